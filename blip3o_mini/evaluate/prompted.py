"""Suites that draw from a prompt and read the picture: geneval, knowledge, dense, diversity.

The baseline is the score of random scenes, drawn without listening to the prompt; for diversity it is that of
a model which draws the same picture every time. Lesson 10.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from scipy.optimize import linear_sum_assignment

from ..world.language import COLOUR_RIDDLES, SHAPE_RIDDLES, Detail, describe, pick, with_article
from ..world.parse import Reading, read
from ..world.scene import COLOURS, HELDOUT_PAIRS, SHAPES, Object, Scene
from . import geneval
from .score import Marks
from .trial import Tick, batches, by_category, draw, draw_scene, readings_of_chance

DIVERSITY_IMAGES = 6  # pictures of every diversity prompt: 15 pairs
# What a dense prompt tells about a scene of so many objects: 4, 7, 7 and 8 facts.
DENSE = {1: Detail(), 2: Detail(), 3: Detail(size=False), 4: Detail(size=False, background=False)}


def run_geneval(model, n: int, rng: np.random.Generator, is_heldout: bool, seed: int, tick: Tick) -> Marks:
    """GenEval: the mean of six categories of prompts, each passed or not."""
    asked = geneval.prompts(n, rng, is_heldout=is_heldout)
    return judge_prompts(model, asked, rng, seed, tick, is_mean_of_categories=True)


def run_knowledge(model, n: int, rng: np.random.Generator, is_heldout: bool, seed: int, tick: Tick) -> Marks:
    """Prompts that name things indirectly, as WISE does."""
    return judge_prompts(model, knowledge_prompts(n, rng, is_heldout=is_heldout), rng, seed, tick)


def judge_prompts(model, asked: list[dict], rng, seed: int, tick: Tick, **options) -> Marks:
    """Draw what metadata ask for; a picture passes when no asserted fact fails."""
    drawn = [read(image) for image in draw(model, [facts["prompt"] for facts in asked], seed, tick)]
    tags = [facts["tag"] for facts in asked]
    passed = [not geneval.failures(facts, reading) for facts, reading in zip(asked, drawn, strict=True)]
    pool = readings_of_chance(rng)
    chance = [np.mean([not geneval.failures(facts, reading) for reading in pool]) for facts in asked]
    baseline = np.mean([np.mean(scores) for scores in by_category(tags, chance).values()])
    return Marks(by_category(tags, passed), baseline, **options)


def knowledge_prompts(n: int, rng: np.random.Generator, *, is_heldout: bool) -> list[dict]:
    """Metadata of n prompts that name shape and colour, the colour, or the shape by what people know of it."""
    pairs = [(s, c) for s in SHAPES for c in COLOURS if ((s, c) in HELDOUT_PAIRS) == is_heldout]
    asked = []
    for k in range(n):
        shape, colour = pick(rng, pairs)
        riddle, thing = pick(rng, SHAPE_RIDDLES[shape]), pick(rng, COLOUR_RIDDLES[colour])
        tag, prompt = (
            ("both", f"{riddle} in the color of {thing}"),
            ("colour", f"{with_article(shape)} in the color of {thing}"),
            ("shape", f"{riddle} in {colour}"),
        )[k % 3]
        include = [{"class": shape, "count": 1, "color": colour}]
        asked.append({"tag": tag, "include": include, "prompt": prompt})
    return asked


def dense_prompts(n: int, rng: np.random.Generator, *, is_heldout: bool) -> list[tuple[str, Scene, Detail]]:
    """n times (long prompt, the scene it describes, what it tells of it): 4 to 8 facts each."""
    scenes = [draw_scene(rng, is_heldout, count=1 + k % 4) for k in range(n)]
    details = [DENSE[len(scene.objects)] for scene in scenes]
    return [(describe(scene, detail, rng), scene, detail) for scene, detail in zip(scenes, details)]


def facts_that_hold(scene: Scene, detail: Detail, reading: Reading) -> dict[str, list[bool]]:
    """Judge every fact that a prompt told: object there, of its size, in its place; the background.

    Described and drawn objects are paired so that most facts hold. An object without a partner of its shape
    and colour has neither size nor place.
    """
    facts: dict[str, list[bool]] = {"object": [], "size": [], "position": []}
    pairs = [[_object_facts(o, p, detail) for p in (*reading.objects, *[None] * len(scene.objects))]
             for o in scene.objects]  # fmt: skip
    values = np.array([[sum(held.values()) for held in row] for row in pairs])
    for i, j in zip(*linear_sum_assignment(values, maximize=True)):
        for name, held in pairs[i][j].items():
            facts[name].append(held)
    return {**facts, "background": [reading.background == scene.background] if detail.background else []}


def _object_facts(told: Object, drawn: Object | None, detail: Detail) -> dict[str, bool]:
    is_there = drawn is not None and (told.shape, told.colour) == (drawn.shape, drawn.colour)
    held = {"object": is_there}
    if detail.size:
        held["size"] = is_there and told.size == drawn.size
    if detail.place:
        held["position"] = is_there and told.position == drawn.position
    return held


def share(facts: dict[str, list[bool]]) -> float:
    """Share of facts that hold."""
    return float(np.mean([held for some in facts.values() for held in some]))


def run_dense(model, n: int, rng: np.random.Generator, is_heldout: bool, seed: int, tick: Tick) -> Marks:
    """Long prompts, as in DPG-Bench: the mean share of facts that hold; categories pool facts by kind."""
    asked = dense_prompts(n, rng, is_heldout=is_heldout)
    drawn = [read(image) for image in draw(model, [prompt for prompt, *_ in asked], seed, tick)]
    categories: dict[str, list[float]] = {"object": [], "size": [], "position": [], "background": []}
    shares, chance = [], []
    pool = readings_of_chance(rng)
    for k, ((_, scene, detail), reading) in enumerate(zip(asked, drawn, strict=True)):
        facts = facts_that_hold(scene, detail, reading)
        for name, held in facts.items():
            categories[name] += [float(is_true) for is_true in held]
        shares.append(share(facts))
        chance += [share(facts_that_hold(scene, detail, pool[(k + j) % len(pool)])) for j in range(10)]
    return Marks(categories, np.mean(chance), overall=shares)


def run_diversity(model, n: int, rng: np.random.Generator, is_heldout: bool, seed: int, tick: Tick) -> Marks:
    """Spread over seeds: draw each one-object prompt several times and compare every two of the pictures.

    The score is the share of pairs whose readings differ; the categories tell in what they do. A picture that
    does not show what was asked differs from nothing, so that noise is not taken for variety.
    """
    asked = geneval.prompts(6 * n, rng, is_heldout=is_heldout)
    asked = [facts for facts in asked if facts["tag"] == "single_object"]
    repeated = [facts["prompt"] for facts in asked for _ in range(DIVERSITY_IMAGES)]
    drawn = draw(model, repeated, seed, lambda k: tick(k / DIVERSITY_IMAGES))
    shares = []
    aspects: dict[str, list[float]] = {"position": [], "size": [], "background": []}
    for facts, pictures in zip(asked, batches(drawn, DIVERSITY_IMAGES), strict=True):
        pairs = list(combinations([_shown(facts, read(picture)) for picture in pictures], 2))
        differ = np.mean([[bool(a and b) and x != y for x, y in zip(a or [0] * 4, b or [0] * 4)] for a, b in pairs], 0)
        shares.append(float(differ[0]))
        for name, value in zip(aspects, differ[1:]):
            aspects[name].append(float(value))
    return Marks(aspects, 0.0, overall=shares)


def _shown(facts: dict, reading: Reading) -> tuple | None:
    """(everything, then position, size and background of what was asked for), or None when it is not there."""
    if geneval.failures(facts, reading):
        return None
    wanted = facts["include"][0]
    fits = (o for o in reading.objects if o.shape == wanted["class"] and wanted.get("color") in (None, o.colour))
    o = next(fits)
    everything = (*[p.identity for p in reading.objects], reading.background)
    return everything, o.position, o.size, reading.background
