"""The main job: one checkpoint, all five tasks, one page of pictures and a short score table.

Everything shown is made on the spot by the model's public methods; the pictures it is shown come
from the little world. Nothing is picked by hand: the requests are fixed, and so is the seed.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from . import world
from .world import Object, Scene

if TYPE_CHECKING:
    from PIL.Image import Image

    from .cli.session import Session
    from .lab.poster import Story

NEVER_SEEN = "never seen in training"
# Requests for pictures, each with a remark; a test compares the remarks with the held-out sets.
DRAW = (
    ("a red circle to the left of a blue square", NEVER_SEEN),
    ("two green stars on a navy background", ""),
    ("a large purple heart in the top right corner and a small orange triangle at the bottom", ""),
    ("three yellow hearts", NEVER_SEEN),
    ("the shape with three corners in the color of grass", ""),
)
EDITS = (
    (Scene((Object("star", "yellow", "large", 1, 0), Object("square", "blue", "large", 1, 2)), "white"),
     "make the star red"),
    (Scene((Object("heart", "pink", "large", 0, 1), Object("triangle", "green", "small", 2, 0)), "cream"),
     "remove the triangle"),
    (Scene((Object("circle", "orange", "large", 1, 1), Object("cross", "brown", "small", 2, 2)), "mint"),
     "change the background to navy"),
)  # fmt: skip
SINGLE = Scene((Object("star", "orange", "large", 1, 1),), "navy")
SEVERAL = Scene(
    (Object("circle", "blue", "large", 0, 0), Object("heart", "red", "large", 1, 2),
     Object("triangle", "yellow", "small", 2, 1)),
    "cream",
)  # fmt: skip
LABELS = ("orange star", "yellow star", "orange cross", "blue circle")
ASK_SINGLE = ("what color is the star?", "where is the star?", "is there an orange circle?")
ASK_SEVERAL = (
    "how many objects are there?",
    "is the heart to the left of the circle?",
    "what is at the bottom?",
)
TELL = (
    "how many corners does a triangle have?",
    "which colour does a frog have?",
    "which shape is the shape of a plus sign?",
    "what is the opposite of left?",
    "a green square above a pink star. what color is the star?",
)
TALK = (
    "draw a yellow star to the right of a blue square",
    "how many objects are there?",
    "make the square green",
    "what color is the square?",
    "is there a red circle?",
)
SUITES = ("geneval", "edit", "vqa", "caption", "classify", "text")


def run(session: Session, out: Path, *, samples: int, seed: int, say: Callable[[str], None] = print) -> None:
    """Show everything, write contact_sheet.png into `out`, and tell how to go on."""
    from .imagefile import png, write_files
    from .lab.poster import draw_poster

    start = time.perf_counter()
    say(f"{machine()} · {session.place}")
    say(f"{session.name} loaded in {session.seconds:.1f} s")
    story = new_story()
    for line in tell(session.model, story, seed):
        say(line)
    # Counted last: it loads the vision part, which the first picture need not wait for.
    size = f"{session.model.parameter_counts()['total'] / 1e6:.1f} million parameters"
    story.subtitle = f"Checkpoint {session.name}, {size}, {session.device}, seed {seed}. {story.subtitle}"
    page = write_files({"contact_sheet.png": png(draw_poster(story))}, out)[0]
    say(f"\nall of it on one page: {page}   ({time.perf_counter() - start:.0f} s)")
    if samples:
        say(f"\nscores, {samples} fresh prompts for each line (blip3o-mini evaluate asks more)")
        say(scores(session.model, samples, seed))
    say("\nNext: the notebooks build every part of this by hand.   blip3o-mini lab")
    say('Or ask for a picture:   blip3o-mini generate --prompt "a pink heart above a blue star" --out out')


def machine() -> str:
    """Python, torch, cores: the first thing to know when something is slow or odd."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"Python {platform.python_version()} · torch {torch.__version__} · {cores} cores"


def new_story() -> Story:
    """An empty page for `tell` to fill."""
    from .lab.poster import Story

    return Story("BLIP3-o in small: one model, five tasks", "Made just now, nothing picked by hand.")


def picture(scene: Scene) -> Image:
    """A scene of the world as the picture that the model is shown."""
    from PIL import Image

    return Image.fromarray(world.render([scene])[0])


def tell(model, story: Story, seed: int) -> Iterator[str]:
    """Do all five tasks, filling the story; yield one readable line for each result as it comes."""
    for task in (draw, edit, read, recall, talk):
        yield ""
        yield from task(model, story, seed)


def draw(model, story: Story, seed: int) -> Iterator[str]:
    """text → image."""
    yield "text → image"
    for prompt, remark in DRAW:
        begin = time.perf_counter()
        image = model.generate(prompt, seed=seed)[0]
        story.drawn.append((prompt, image, remark))
        yield f"  {prompt:<60} {time.perf_counter() - begin:.1f} s   {remark}".rstrip()


def edit(model, story: Story, seed: int) -> Iterator[str]:
    """image → image."""
    yield "image → image"
    for scene, instruction in EDITS:
        before = picture(scene)
        story.edited.append((before, instruction, model.edit(before, instruction, seed=seed)[0]))
        yield f"  [{world.short_caption(scene)}]".ljust(62) + f" {instruction}"


def read(model, story: Story, seed: int) -> Iterator[str]:
    """image → text: captions, questions, labels."""
    yield "image → text"
    for scene, style, asked in ((SINGLE, "long", ASK_SINGLE), (SEVERAL, "long", ASK_SEVERAL)):
        image = picture(scene)
        pairs = [("caption", model.caption(image, style=style))]
        pairs += [(question, model.answer(image, question)) for question in asked]
        story.seen.append((image, pairs))
        yield f"  [{world.short_caption(scene)}]"
        yield from (f"    {question:<50} {answer}" for question, answer in pairs)
    story.labels = model.classify(story.seen[0][0], list(LABELS))
    ranked = sorted(story.labels.items(), key=lambda pair: -pair[1])
    yield "  labels of the first: " + " · ".join(f"{name} {100 * share:.0f} %" for name, share in ranked)


def recall(model, story: Story, seed: int) -> Iterator[str]:
    """text → text."""
    yield "text → text"
    for question in TELL:
        story.told.append((question, model.answer(None, question)))
        yield f"  {question:<60} {story.told[-1][1]}"


def talk(model, story: Story, seed: int) -> Iterator[str]:
    """Dialogue: draw, ask about it, change it, ask again."""
    yield "dialogue"
    messages: list[dict] = []
    for words in TALK:
        messages.append({"role": "user", "content": [{"type": "text", "text": words}]})
        answer = model.chat(messages, seed=seed)
        messages.append(answer)
        part = answer["content"][0]
        reply = part["image"] if part["type"] == "image" else part["text"]
        story.dialogue.append((words, reply))
        yield f"  {words:<60} {reply if isinstance(reply, str) else '[picture]'}"


def scores(model, samples: int, seed: int) -> str:
    """A table of quick scores, without the lines of single categories."""
    from .evaluate import evaluate, format_scores

    found = evaluate(model, list(SUITES), samples=samples, seed=seed, progress=True)
    return format_scores(found, has_categories=False)
