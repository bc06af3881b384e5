"""Scenes → questions with exact answers, facts about the world, and labels.

Every question is a triple (question, answer, kind). Yes and no are balanced, and half of the "no"
questions are traps: the right colour on the wrong shape.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np

from .language import (
    COLOUR_RIDDLES,
    NUMBERS,
    OPPOSITE,
    RELATION_WORDS,
    SHAPE_RIDDLES,
    Detail,
    describe,
    group,
    noun,
    pick,
    with_article,
)
from .scene import (
    COLOURS,
    HELDOUT_PAIRS,
    HELDOUT_RELATIONS,
    POSITIONS,
    SHAPES,
    SIZES,
    Object,
    Scene,
    is_heldout,
    make_object,
    relation,
)

Question = tuple[str, str, str]
CORNERS = {"circle": 0, "square": 4, "triangle": 3}
KINDS = ("colour", "shape", "size", "count", "existence", "position", "comparison", "background", "place")
_FULL = Detail(size=False, place=False, background=False)  # "red circle"


def unique_name(o: Object, scene: Scene, rng: np.random.Generator) -> str | None:
    """The words that single out an object: "circle" or "red circle"; None when two share them."""
    same_shape = [p for p in scene.objects if p.shape == o.shape]
    if len(same_shape) == 1 and rng.random() < 0.4:
        return o.shape
    if sum(p.colour == o.colour for p in same_shape) == 1:
        return f"{o.colour} {o.shape}"
    return None


def _about_one(o: Object, scene: Scene, rng: np.random.Generator) -> list[Question]:
    found = []
    if sum(p.shape == o.shape for p in scene.objects) == 1:
        found.append((pick(rng, ("what {c} is the {s}?", "which {c} does the {s} have?")), o.colour, "colour"))
    if sum(p.colour == o.colour for p in scene.objects) == 1:
        found.append((pick(rng, ("what shape is the {o} object?", "which shape is {o}?")), o.shape, "shape"))
    if name := unique_name(o, scene, rng):
        found.append((f"how big is the {name}?" if rng.random() < 0.5 else f"what size is the {name}?", o.size, "size"))
        ask = pick(
            rng, ("where is the {}?", "where is the {}?", "in which place is the {}?", "where do you see the {}?")
        )
        found.append((ask.format(name), o.position, "position"))
    words = dict(c=pick(rng, ("color", "colour")), s=o.shape, o=o.colour)
    return [(question.format(**words), answer, kind) for question, answer, kind in found]


def existence(scene: Scene, rng: np.random.Generator, answer: bool) -> Question | None:
    """"is there a red circle?"; for "no", most often a trap that gives one object what another one has.

    Asks for a shape, or for two or three of size, colour and shape; None where no such question comes to hand.
    """
    tries = (_existence(scene, rng, answer) for _ in range(12))
    return next((question for question in tries if question), None)


def _existence(scene: Scene, rng: np.random.Generator, answer: bool) -> Question | None:
    o = pick(rng, scene.objects)
    size, colour, shape = o.size, o.colour, o.shape
    if not answer:  # change one of the three
        other = pick(rng, scene.objects) if rng.random() < 0.5 else make_object(rng, 0)
        kind = rng.integers(5)
        size, colour, shape = (
            (other.size, colour, shape) if kind == 0 else (size, other.colour, shape) if kind < 3
            else (size, colour, other.shape)
        )  # fmt: skip
        # Naming a held-out pair only ever to deny it would teach "no" for it.
        if (shape, colour) in HELDOUT_PAIRS and not is_heldout(scene):
            return None
    asked = [("shape",), ("colour", "shape"), ("size", "shape"), ("size", "colour"), ("size", "colour", "shape")]
    asked = asked[rng.choice(5, p=(0.2, 0.4, 0.1, 0.1, 0.2))]
    told = {"size": size, "colour": colour, "shape": shape}
    if answer != any(all(getattr(p, name) == told[name] for name in asked) for p in scene.objects):
        return None
    name = " ".join(told[name] for name in asked) + ("" if "shape" in asked else " object")
    frame = pick(rng, ("is there {}?", "can you see {}?", "does the picture show {}?", "do you see {}?"))
    return frame.format(with_article(name)), "yes" if answer else "no", "existence"


def _count(scene: Scene, rng: np.random.Generator) -> Question:
    kind = rng.integers(4)
    o = scene.objects[rng.integers(len(scene.objects))]
    if kind == 0:
        ask = pick(rng, ("how many objects are there?", "how many shapes are there?", "how many things do you see?"))
        return ask, NUMBERS[len(scene.objects)], "count"
    if kind == 1:
        colour = o.colour if rng.random() < 0.8 else pick(rng, COLOURS)
        return f"how many {colour} objects are there?", NUMBERS[sum(p.colour == colour for p in scene.objects)], "count"
    shape = o.shape if rng.random() < 0.8 else pick(rng, SHAPES)
    plural = shape + ("es" if shape == "cross" else "s")
    return f"how many {plural} are there?", NUMBERS[sum(p.shape == shape for p in scene.objects)], "count"


def _comparison(scene: Scene, rng: np.random.Generator) -> Question | None:
    if len(scene.objects) < 2:
        return None
    i, j = rng.permutation(len(scene.objects))[:2]
    a, b = scene.objects[i], scene.objects[j]
    first, second = unique_name(a, scene, rng), unique_name(b, scene, rng)
    if not first or not second:
        return None
    if rng.random() < 0.3:
        same = a.size == b.size
        return f"are the {first} and the {second} the same size?", "yes" if same else "no", "comparison"
    kinds = _askable(a, b, scene)
    if not kinds:
        return None
    true = pick(rng, kinds)
    asked = true if rng.random() < 0.5 else OPPOSITE[true]
    words = pick(rng, RELATION_WORDS[asked])
    return f"is the {first} {words} the {second}?", "yes" if asked == true else "no", "comparison"


def _askable(a: Object, b: Object, scene: Scene) -> list[str]:
    """The relations of a to b that may be asked for: where one is held out, its answer would always be the same."""
    rows = {"left": (a, b), "right": (b, a), "above": (a, b), "below": (b, a)}
    axis = {"left": "left", "right": "left", "above": "above", "below": "above"}
    kinds = sorted(relation(a, b))
    if is_heldout(scene):
        return kinds
    both = {kind: {(p.shape, axis[kind], q.shape) for p, q in (rows[kind], rows[kind][::-1])} for kind in kinds}
    return [kind for kind in kinds if not both[kind] & HELDOUT_RELATIONS]


def _at(scene: Scene, rng: np.random.Generator) -> Question:
    """ "what is in the top left?" → "a large red circle" or "nothing"."""
    by_cell = {o.cell: o for o in scene.objects}
    cell = pick(rng, list(by_cell)) if rng.random() < 0.6 else int(rng.integers(9))
    answer = with_article(by_cell[cell].phrase()) if cell in by_cell else "nothing"
    ask = pick(
        rng, ("what is at the {}?", "what is at the {}?", "what do you see at the {}?", "which object is at the {}?")
    )
    return ask.format(POSITIONS[cell]), answer, "place"


def questions(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """A shuffled mixture of questions on one scene, one or more of every kind that applies."""
    found: list[Question | None] = []
    for o in scene.objects:
        found += _about_one(o, scene, rng)
    found += [existence(scene, rng, answer=True), existence(scene, rng, answer=False)]
    found += [_count(scene, rng), _count(scene, rng), _at(scene, rng), _at(scene, rng)]
    found += [_comparison(scene, rng) for _ in range(3)]
    ask = pick(rng, ("what {} is the background?", "which {} does the background have?"))
    found.append((ask.format(pick(rng, ("color", "colour"))), scene.background, "background"))
    kept = [q for q in found if q]
    rng.shuffle(kept)
    return [tuple(q) for q in kept]


def more_questions(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """Questions that training asks beside those of `questions`: how two stand to each other, and "this or that?"."""
    found, objects = [], [scene.objects[k] for k in rng.permutation(len(scene.objects))]
    for a, b in pairwise(objects):
        first, second = unique_name(a, scene, rng), unique_name(b, scene, rng)
        kinds = _askable(a, b, scene)
        if not (first and second and kinds and set(kinds) == relation(a, b)):
            continue
        way = " ".join(kind for kind in ("above", "below", "left", "right") if kind in kinds)
        ask = pick(rng, ("how does the {} stand to the {}?", "where is the {}, seen from the {}?"))
        found.append((ask.format(first, second), way, "way"))
        kind = pick(rng, kinds)
        sides = " or ".join(pick(rng, ((kind, OPPOSITE[kind]), (OPPOSITE[kind], kind))))
        of = " of" if kind in ("left", "right") else ""
        found.append((f"is the {first} {sides}{of} the {second}?", kind, "choice"))
        bigger = "larger" if rng.random() < 0.5 else "smaller"
        is_so = (a.size, b.size) == (("large", "small") if bigger == "larger" else ("small", "large"))
        found.append((f"is the {first} {bigger} than the {second}?", "yes" if is_so else "no", "comparison"))
    o = objects[0]
    for name, options in (("colour", COLOURS), ("size", SIZES)):
        said, true = unique_name(o, scene, rng), getattr(o, name)
        if said and not (name == "colour" and " " in said):
            other = pick(rng, [option for option in options if option != true])
            is_trap = name == "colour" and (o.shape, other) in HELDOUT_PAIRS and not is_heldout(scene)
            both = (true, other) if rng.random() < 0.5 else (other, true)
            found += [] if is_trap else [("is the {} {} or {}?".format(said, *both), true, "choice")]
    return found


def label_question(scene: Scene, rng: np.random.Generator) -> Question:
    """Naming: "what is in the picture?" → "red circle"; the question that classification scores labels with."""
    o = scene.objects[rng.integers(len(scene.objects))]
    name = pick(rng, (o.shape, f"{o.colour} {o.shape}", o.phrase()))
    return "what is in the picture?", name if rng.random() < 0.5 else with_article(name), "label"


def described(scene: Scene, rng: np.random.Generator) -> tuple[str, list[Question]]:
    """A scene that is told, not shown: (description, questions that it answers)."""
    if len(scene.objects) == 2 and rng.random() < 0.5 and (related := _related(scene, rng)):
        return related
    if rng.random() < 0.3:
        detail = Detail(size=False, place=False, background=False)
        asked = [q for q in questions(scene, rng) if q[2] in ("colour", "shape", "count", "existence")]
        return group(scene, detail, rng), asked
    asked = questions(scene, rng) + [_at(scene, rng) for _ in range(3)]
    rng.shuffle(asked)
    return describe(scene, Detail(), rng), [tuple(q) for q in asked]


def _related(scene: Scene, rng: np.random.Generator) -> tuple[str, list[Question]] | None:
    a, b = scene.objects if rng.random() < 0.5 else scene.objects[::-1]
    if a.shape == b.shape or not _askable(a, b, scene):
        return None
    detail = Detail(size=bool(rng.random() < 0.5), colour=True, place=False, background=False)
    kind = pick(rng, _askable(a, b, scene))
    first, second = noun(a, detail, rng), noun(b, detail, rng)
    text = f"{with_article(first)} {pick(rng, RELATION_WORDS[kind])} {with_article(second)}"
    named_a, named_b = with_article(noun(a, _FULL)), with_article(noun(b, _FULL))
    other = OPPOSITE[kind]
    asked = [
        (f"what is {pick(rng, RELATION_WORDS[kind])} the {b.shape}?", named_a, "relation"),
        (f"what is {pick(rng, RELATION_WORDS[other])} the {a.shape}?", named_b, "relation"),
        (f"what color is the {a.shape}?", a.colour, "colour"),
        (f"what color is the {b.shape}?", b.colour, "colour"),
        (f"is the {b.shape} {pick(rng, RELATION_WORDS[other])} the {a.shape}?", "yes", "comparison"),
        (f"is the {b.shape} {pick(rng, RELATION_WORDS[kind])} the {a.shape}?", "no", "comparison"),
    ]
    rng.shuffle(asked)
    return text, [tuple(q) for q in asked]


def facts() -> list[tuple[str, str]]:
    """Text-only questions about the world: corners, points, and the colours of things."""
    found = []
    for shape, riddles in SHAPE_RIDDLES.items():
        found += [(f"which shape is {r}?", shape) for r in riddles] + [(f"name {r}.", shape) for r in riddles]
    for colour, things in COLOUR_RIDDLES.items():
        for thing in things:
            verb = "do" if thing in ("blueberries", "grapes") else "does"
            found += [(f"what color {verb} {thing} have?", colour), (f"which colour {verb} {thing} have?", colour)]
    for shape, corners in CORNERS.items():
        found += [(f"how many corners does a {shape} have?", NUMBERS[corners])]
        found += [(f"how many sides does a {shape} have?", NUMBERS[corners])] if corners else []
    found.append(("how many points does a star have?", NUMBERS[5]))
    sizes_and_places = (("small", "large"), ("large", "small"), ("top", "bottom"), ("bottom", "top"))
    for word, opposite in (*OPPOSITE.items(), *sizes_and_places):
        found.append((f"what is the opposite of {word}?", opposite))
    return found


def majority(answers: list[str]) -> float:
    """The share that always giving the most common answer would get."""
    return max(Counter(answers).values()) / len(answers)


__all__ = ["KINDS", "described", "existence", "facts", "label_question", "majority", "more_questions", "questions"]
