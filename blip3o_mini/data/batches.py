"""Batches for every stage, each a pure function of a random generator: the same step, the same batch.

That is what makes an interrupted run resume to the same weights: no data order has to be stored.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .. import world
from ..tokens import ChatTokens, pad_left
from ..vision import to_tensor
from .pool import Pool

LONGEST = 96  # tokens of a conversation in training


class Conversations(NamedTuple):
    """Left-padded conversations; `said` marks what the assistant says; `features` fill the pictures."""

    ids: Tensor  # (B, T)
    mask: Tensor  # (B, T)
    said: Tensor  # (B, T)
    features: Tensor | None  # (pictures, Q, D)


class Drawings(NamedTuple):
    """Prompts that end in [IMG], the features to generate, and the source features of edits (else zeros).

    Rows are sorted by length, so that neighbours can be read together with little padding.
    """

    ids: Tensor  # (B, T)
    mask: Tensor  # (B, T)
    features: Tensor | None  # (pictures, Q, D), for the pictures inside the prompts
    target: Tensor  # (B, Q, D)
    source: Tensor  # (B, Q, D)
    words: Tensor  # (B, Q, words), what will stand in each cell
    judged: Tensor  # (B, 1, words), 0 for the words that the prompt leaves open
    named: Tensor  # (B, objects, words), of the object that the prompt names first, second, …; of what an edit makes
    is_named: Tensor  # (B, 1, 1), 0 where no object is named, as when the background changes


def _pad_right(rows: list[list[int]], length: int | None = None) -> Tensor:
    length = length or max(len(row) for row in rows)
    return torch.tensor([[*row[:length], *[0] * (length - len(row))] for row in rows])


_COLOURLESS = torch.tensor([word not in (*world.COLOURS, *world.BACKGROUNDS) for word in world.CELL_WORDS])


class Pictures(NamedTuple):
    """Pictures with a text each, and what a word head should say of every cell."""

    images: Tensor  # (B, 3, H, W)
    texts: Tensor  # (B, context)
    words: Tensor  # (B, Q, words), 1 where the word fits
    judged: Tensor  # (B, 1, words), 0 for the words that the picture cannot tell
    offsets: Tensor  # (B, Q, 2), of the object from the middle of its cell, in units of 4 px; NaN: no object


def vision_batch(rng: np.random.Generator, chat: ChatTokens, size: int, context: int) -> Pictures:
    """Pictures, a third without colours: a shape is to be known in any colour."""
    scenes = [world.sample_scene(rng) for _ in range(size)]
    images, texts = to_tensor(world.render(scenes)), []
    words = torch.from_numpy(world.cell_words(scenes)).float()
    judged = torch.ones(size, 1, len(world.CELL_WORDS))
    offsets = torch.full((size, world.CELLS, 2), torch.nan)
    for k, scene in enumerate(scenes):
        for o in scene.objects:
            offsets[k, o.cell] = torch.tensor([o.dx, o.dy]) / 4
        if rng.random() < 0.35:
            images[k] = images[k].mean(0, keepdim=True)
            judged[k] = _COLOURLESS
            text = world.describe(scene, world.Detail(colour=False, background=False), rng)
        else:
            text = (world.short_caption if rng.random() < 0.5 else world.long_caption)(scene, rng)
        texts.append([*chat.words(text)[: context - 1], chat.end])
    return Pictures(images, _pad_right(texts, context), words, judged, offsets)


def _ask(question: str, answer: str) -> list[dict]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _asked(scene: world.Scene, rng: np.random.Generator, most: int) -> list[tuple[str, str]]:
    """Questions on a scene with their answers, half of them in a stranger's words."""
    asked = world.questions(scene, rng) + world.more_questions(scene, rng)
    return [(_said(asked[k][0], rng), asked[k][1]) for k in rng.permutation(len(asked))[:most]]


def _said(text: str, rng: np.random.Generator) -> str:
    return world.loosely(text, rng) if rng.random() < 0.5 else text


def _seen(scene: world.Scene, rng: np.random.Generator, most: int) -> list[dict]:
    asked = _asked(scene, rng, most)
    style = "long" if rng.random() < 0.6 else "short"
    if rng.random() < 0.4:
        request = world.CAPTION_REQUESTS[style][rng.integers(3)]
        caption = world.long_caption(scene) if style == "long" else world.short_caption(scene)
        asked.insert(0, (request, caption))  # first, or the longest would not fit
    elif rng.random() < 0.5:
        asked.insert(0, world.label_question(scene, rng)[:2])
    turns = [turn for q, a in asked for turn in _ask(q, a)]
    picture = {"type": "image"}
    turns[0] = {"role": "user", "content": [picture, {"type": "text", "text": turns[0]["content"]}]}
    return turns


def _told(scene: world.Scene, rng: np.random.Generator, most: int) -> list[dict]:
    text, told = world.described(scene, rng)
    asked = [(_said(q, rng), a) for q, a, _ in told]
    if rng.random() < 0.5:  # the request to draw, then questions on the picture nobody has drawn yet
        turns = [{"role": "user", "content": _said(world.draw_request(text, rng if rng.random() < 0.5 else None), rng)}]
        turns += [{"role": "assistant", "content": [{"type": "draw"}]}]
        return turns + [turn for q, a in asked[:most] for turn in _ask(q, a)]
    asked[0] = (f"{text}. {asked[0][0]}", asked[0][1])
    return [turn for q, a in asked[:most] for turn in _ask(q, a)]


def _conversation(pool: Pool, i: int, rng: np.random.Generator) -> tuple[list[dict], list[Tensor]]:
    kind = rng.random()
    before, after = pool.scenes[i], pool.after[i]
    if kind < 0.38:
        return _seen(before, rng, 6), [pool.features[i]]
    if kind < 0.70:
        return _told(before, rng, 8), []
    edit = [{"type": "text", "text": _said(pool.instructions[i], rng)}]
    if kind < 0.84:  # an edit nobody has drawn yet: what will be where?
        turns = [{"role": "user", "content": [{"type": "image"}, *edit]}]
        turns += [{"role": "assistant", "content": [{"type": "draw"}]}]
        return turns + [turn for q, a in _asked(after, rng, 6) for turn in _ask(q, a)], [pool.features[i]]
    if kind < 0.90:
        facts = world.facts()
        return [turn for k in rng.permutation(len(facts))[:5] for turn in _ask(*facts[k])], []
    image = [{"type": "image"}]
    turns = [{"role": "user", "content": world.draw_request(world.short_caption(before, rng), rng)}]
    turns += [{"role": "assistant", "content": image}]
    turns += [turn for q, a in _asked(before, rng, 2) for turn in _ask(q, a)]
    turns += [{"role": "user", "content": edit}, {"role": "assistant", "content": image}]
    turns += [turn for q, a in _asked(after, rng, 2) for turn in _ask(q, a)]
    return turns, [pool.features[i], pool.after_features[i]]


def conversation_batch(rng: np.random.Generator, pool: Pool, chat: ChatTokens, size: int) -> Conversations:
    """Talk about pictures that are seen, told, or about to be edited; facts; and whole dialogues."""
    rows, said, pictures = [], [], []
    for i in rng.integers(pool.size, size=size):
        messages, shown = _conversation(pool, int(i), rng)
        ids, is_said = chat.chat(messages, is_open=False)
        # Whole turns that do not fit are left out: padding every row to the longest would cost a third more.
        kept = len(ids) if len(ids) <= LONGEST else LONGEST - ids[:LONGEST][::-1].index(chat.end)
        rows.append(ids[:kept])
        said.append(is_said[:kept])
        pictures += shown[: ids[:kept].count(chat.picture[0])]
    ids, mask = pad_left(rows, chat.pad)
    spoken, _ = pad_left(said, 0)
    features = torch.stack(pictures) if pictures else None
    return Conversations(torch.from_numpy(ids), torch.from_numpy(mask), torch.from_numpy(spoken), features)


class _Drawing(NamedTuple):
    """One prompt, the scene to draw (index in the pool, edited or not), and the features it starts from."""

    messages: list[dict]
    caption: str | None  # None: the prompt and its picture leave nothing open
    i: int
    is_edited: bool = False
    source: Tensor | None = None


def _drawings(drawings: list[_Drawing], pool: Pool, chat: ChatTokens) -> Drawings:
    rows = {id(d): [*chat.chat(d.messages)[0], chat.start_of_image] for d in drawings}
    drawings = sorted(drawings, key=lambda d: len(rows[id(d)]))
    ids, mask = pad_left([rows[id(d)] for d in drawings], chat.pad)
    halves = {False: (pool.features, pool.words), True: (pool.after_features, pool.after_words)}
    target, words = (torch.stack([halves[d.is_edited][k][d.i] for d in drawings]) for k in (0, 1))
    none = torch.zeros_like(target[0])
    source = torch.stack([none if d.source is None else d.source for d in drawings])
    pictures = [d.source for d in drawings if d.source is not None]
    features = torch.stack(pictures) if pictures else None
    everything = np.ones(len(world.CELL_WORDS), np.uint8)
    told = np.stack([everything if d.caption is None else world.told_words(d.caption) for d in drawings])
    named = np.stack([
        world.new_object_words(pool.scenes[d.i], pool.after[d.i]) if d.caption is None
        else world.object_words(d.caption, pool.scenes[d.i]) for d in drawings
    ])  # fmt: skip
    is_named = named.any((1, 2), keepdims=True)
    ids, mask, judged, named, is_named = (torch.from_numpy(a) for a in (ids, mask, told[:, None], named, is_named))
    return Drawings(ids, mask, features, target, source, words.float(), judged.float(), named.float(), is_named.float())


def drawing_batch(
    rng: np.random.Generator, pool: Pool, chat: ChatTokens, size: int, *, edits: float = 0.25
) -> Drawings:
    """Prompts of every wording with the features they describe; a share of `edits` changes a picture."""
    drawings = []
    for i in rng.integers(pool.size, size=size):
        i, kind = int(i), rng.random()
        if kind < edits:
            instruction = _said(pool.instructions[i], rng)
            drawings.append(_Drawing(edit_messages(instruction), None, i, True, pool.features[i]))
            continue
        caption = (world.long_caption if rng.random() < 0.25 else world.short_caption)(pool.scenes[i], rng)
        request = _said(world.draw_request(caption, rng if rng.random() < 0.5 else None), rng)
        messages, source = draw_messages(request), None
        if kind < edits + 0.05:  # a new drawing late in a conversation: the old picture must not show
            j = int(rng.integers(pool.size))
            messages, source = [*_seen(pool.scenes[j], rng, 1)[:2], *messages], pool.features[j]
        drawings.append(_Drawing(messages, caption, i, False, source))
    return _drawings(drawings, pool, chat)


def draw_messages(request: str) -> list[dict]:
    return [{"role": "user", "content": request}]


def edit_messages(instruction: str) -> list[dict]:
    return [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": instruction}]}]


def instruct_batch(rng: np.random.Generator, pool: Pool, chat: ChatTokens, size: int, *, clean: int) -> Drawings:
    """The small clean set: the first `clean` scenes of the pool, drawn, edited, and within dialogues."""
    drawings = []
    for i in rng.integers(min(clean, pool.size), size=size):
        i, kind = int(i), rng.random()
        fixed = np.random.default_rng([pool.seed, 2, i])  # one clean prompt per scene, always the same
        caption = world.short_caption(pool.scenes[i], fixed)
        request = world.draw_request(caption)
        if kind < 0.6:
            drawings.append(_Drawing(draw_messages(request), caption, i))
        elif kind < 0.85:
            drawings.append(_Drawing(edit_messages(pool.instructions[i]), None, i, True, pool.features[i]))
        else:  # a conversation: drawn a moment ago, now to be edited
            messages = [*draw_messages(request), {"role": "assistant", "content": [{"type": "image"}]}]
            messages += [{"role": "user", "content": pool.instructions[i]}]
            drawings.append(_Drawing(messages, None, i, True, pool.features[i]))
    return _drawings(drawings, pool, chat)
