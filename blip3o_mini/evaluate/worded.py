"""Suites that get words back: vqa, hallucination, caption, classify, text.

An answer is right when it is the expected one, up to case, spaces and a final full stop. The baseline always
gives the most common answer to each kind of question, or picks a label by chance. Every question is on a
scene of its own, so that the answers are independent. Lesson 10.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .. import world
from ..world.language import described_background, described_objects
from ..world.questions import KINDS, described, existence, facts, questions
from ..world.scene import COLOURS, HELDOUT_PAIRS, SHAPES, Scene, make_object, make_scene
from .score import Marks
from .trial import Tick, batches, by_category, draw_scene, pictures_of

MANY = 450  # questions that a baseline is estimated from, however few the model is asked
LABELS = {"shape": SHAPES, "colour and shape": tuple(f"{c} {s}" for c in COLOURS for s in SHAPES)}


class Question(NamedTuple):
    """What is asked about a scene (or about none), what is right, and what kind of question it is."""

    scene: Scene | None
    text: str
    answer: str
    kind: str
    others: tuple[str, ...] = ()  # more answers that are right


def normal(text: str) -> str:
    """Lower case, single spaces, no final full stop."""
    return " ".join(text.lower().split()).rstrip(" .")


def common_answers(asked: Sequence[Question]) -> float:
    """The score of always giving the most common answer of each kind."""
    counts: dict[str, Counter] = {}
    for question in asked:
        counts.setdefault(question.kind, Counter())[normal(question.answer)] += 1
    return sum(max(answers.values()) for answers in counts.values()) / len(asked)


def ask(model, asked: Sequence[Question], tick: Tick) -> dict[str, list[float]]:
    """Let the model answer; right or wrong, by kind."""
    right: list[bool] = []
    for some in batches(asked):
        images = [None if q.scene is None else pictures_of([q.scene])[0] for q in some]
        answers = model.answer_batch(images, [q.text for q in some])
        accepted = [{normal(right) for right in (q.answer, *q.others)} for q in some]
        right += [normal(answer) in expected for answer, expected in zip(answers, accepted, strict=True)]
        tick(len(some))
    return by_category([q.kind for q in asked], right)


def vqa_questions(n: int, rng: np.random.Generator, *, is_heldout: bool) -> list[Question]:
    """n questions on n scenes, the kinds in turn."""
    asked: list[Question] = []
    while len(asked) < n:
        kind = KINDS[len(asked) % len(KINDS)]
        scene = draw_scene(rng, is_heldout)
        fitting = [(text, answer) for text, answer, its_kind in questions(scene, rng) if its_kind == kind]
        if fitting:
            asked.append(Question(scene, *fitting[rng.integers(len(fitting))], kind))
    return asked


def run_vqa(model, n: int, rng: np.random.Generator, is_heldout: bool, seed: int, tick: Tick) -> Marks:
    """Questions on pictures, each kind as often."""
    asked = vqa_questions(n, rng, is_heldout=is_heldout)
    return Marks(ask(model, asked, tick), common_answers(vqa_questions(MANY, rng, is_heldout=is_heldout)))


def hallucination_questions(n: int, rng: np.random.Generator, *, is_heldout: bool) -> list[Question]:
    """n questions on whether something is there, yes and no in turn; half of the "no" are traps."""
    asked: list[Question] = []
    while len(asked) < n:
        is_there = len(asked) % 2 == 0
        scene = draw_scene(rng, is_heldout)
        if found := existence(scene, rng, is_there):
            asked.append(Question(scene, *found[:2], "present" if is_there else "absent"))
    return asked


def run_hallucination(model, n: int, rng: np.random.Generator, is_heldout: bool, seed: int, tick: Tick) -> Marks:
    """Is it there? as in POPE. Baseline: always yes, or always no."""
    return Marks(ask(model, hallucination_questions(n, rng, is_heldout=is_heldout), tick), 0.5)


def text_questions(n: int, rng: np.random.Generator, *, is_heldout: bool) -> list[Question]:
    """n questions without a picture: on a scene that is told; among the seen ones, half on facts.

    Facts hold no combination of things, so there are no held-out ones.
    """
    known, asked = facts(), []
    while len(asked) < n:
        if not is_heldout and len(asked) % 2:
            asked.append(Question(None, *known[rng.integers(len(known))], "facts"))
            continue
        told, questions_on_it = described(draw_scene(rng, is_heldout), rng)
        if questions_on_it:
            text, answer, _ = questions_on_it[rng.integers(len(questions_on_it))]
            asked.append(Question(None, f"{told}. {text}", answer, "described"))
    return asked


def run_text(model, n: int, rng: np.random.Generator, is_heldout: bool, seed: int, tick: Tick) -> Marks:
    """Text-only questions."""
    asked = text_questions(n, rng, is_heldout=is_heldout)
    return Marks(ask(model, asked, tick), common_answers(text_questions(MANY, rng, is_heldout=is_heldout)))


def is_caption_of(text: str, scene: Scene) -> bool:
    """True when a long caption names exactly the scene's objects, each with size, colour and place, and the
    background."""
    told = Counter(described_objects(text))
    there = Counter((o.size, o.colour, o.shape, o.position) for o in scene.objects)
    return told == there and described_background(text) == scene.background


def run_caption(model, n: int, rng: np.random.Generator, is_heldout: bool, seed: int, tick: Tick) -> Marks:
    """Long captions, read back. Baseline: the caption that is true most often."""
    scenes = [draw_scene(rng, is_heldout, count=1 + k % 4) for k in range(n)]
    right: list[bool] = []
    for some in batches(scenes):
        captions = model.caption_batch(pictures_of(some), "long")
        right += [is_caption_of(caption, scene) for caption, scene in zip(captions, some, strict=True)]
        tick(len(some))
    names = [f"{len(scene.objects)} objects" if len(scene.objects) > 1 else "1 object" for scene in scenes]
    usual = Counter(world.long_caption(draw_scene(rng, is_heldout)) for _ in range(MANY))
    return Marks(by_category(names, right), max(usual.values()) / MANY)


def classify_scenes(n: int, rng: np.random.Generator, *, is_heldout: bool) -> list[Scene]:
    """n pictures of one object."""
    pairs = [(s, c) for s in SHAPES for c in COLOURS if ((s, c) in HELDOUT_PAIRS) == is_heldout]
    scenes = []
    for _ in range(n):
        shape, colour = pairs[rng.integers(len(pairs))]
        o = make_object(rng, int(rng.integers(9)), shape=shape, colour=colour)
        scenes.append(make_scene([o], world.BACKGROUNDS[rng.integers(len(world.BACKGROUNDS))]))
    return scenes


def run_classify(model, n: int, rng: np.random.Generator, is_heldout: bool, seed: int, tick: Tick) -> Marks:
    """The likeliest label of a picture: half of them among all shapes, half among all 48 coloured shapes."""
    scenes = classify_scenes(n, rng, is_heldout=is_heldout)
    categories: dict[str, list[float]] = {}
    chance = []
    for k, (kind, labels) in enumerate(LABELS.items()):
        own = scenes[k::2]
        for some in batches(own):
            truth = [s.objects[0].shape if kind == "shape" else s.objects[0].phrase(with_size=False) for s in some]
            shares = model.classify_batch(pictures_of(some), list(labels))
            right = [max(share, key=share.get) == name for share, name in zip(shares, truth, strict=True)]
            categories.setdefault(kind, []).extend(map(float, right))
            tick(len(some))
        chance += [1 / len(labels)] * len(own)
    return Marks(categories, np.mean(chance))
