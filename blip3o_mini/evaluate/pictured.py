"""Suites that show a picture and get one back: edit and reconstruct. Lesson 10.

Both pass only when the result shows exactly the expected scene, background included, with nothing unreadable
on it. Only where in its cell an object stands is left open.
"""

from __future__ import annotations

import numpy as np

from .. import world
from ..world.parse import read
from ..world.scene import Scene, is_heldout, sample_scene
from .score import Marks
from .trial import Tick, batches, by_category, draw_scene, noise, pictures_of, readings_of_chance, shows

Edit = tuple[Scene, str, Scene, str]


def edit_items(n: int, rng: np.random.Generator, *, heldout: bool) -> list[Edit]:
    """n times (before, instruction, after, kind), the kinds in turn; the scene after decides the split."""
    items: list[Edit] = []
    while len(items) < n:
        kind = world.EDIT_KINDS[len(items) % len(world.EDIT_KINDS)]
        before = sample_scene(rng, allow_heldout=heldout)
        instruction, after, done = world.edit(before, rng, kind=kind, allow_heldout=heldout)
        if done == kind and is_heldout(after) == heldout:
            items.append((before, instruction, after, kind))
    return items


def run_edit(model, n: int, rng: np.random.Generator, is_heldout: bool, seed: int, tick: Tick) -> Marks:
    """Edits, as in ImgEdit: the change is there and everything else is untouched. Baseline: no change at all."""
    items = edit_items(n, rng, heldout=is_heldout)
    passed: list[bool] = []
    for some in batches(items):
        shown = pictures_of([before for before, *_ in some])
        instructions = [instruction for _, instruction, *_ in some]
        edited = model.edit_batch(shown, instructions, generator=noise(len(passed), len(some), seed))
        passed += [shows(read(image), after) for image, (_, _, after, _) in zip(edited, some, strict=True)]
        tick(len(some))
    unchanged = [before == after for before, _, after, _ in items]
    return Marks(by_category([kind for *_, kind in items], passed), np.mean(unchanged))


def reconstruct_scenes(n: int, rng: np.random.Generator, *, is_heldout: bool) -> list[Scene]:
    """n scenes of one to four objects in turn."""
    return [draw_scene(rng, is_heldout, count=1 + k % 4) for k in range(n)]


def run_reconstruct(model, n: int, rng: np.random.Generator, is_heldout: bool, seed: int, tick: Tick) -> Marks:
    """Picture → features → picture shows the same scene: the decoder's ceiling. Baseline: a random scene."""
    scenes = reconstruct_scenes(n, rng, is_heldout=is_heldout)
    passed: list[bool] = []
    for some in batches(scenes):
        again = model.reconstruct(pictures_of(some), seed=seed + len(passed))
        passed += [shows(read(image), scene) for image, scene in zip(again, some, strict=True)]
        tick(len(some))
    names = [f"{len(scene.objects)} objects" if len(scene.objects) > 1 else "1 object" for scene in scenes]
    chance = [shows(reading, scene) for reading in readings_of_chance(rng) for scene in scenes]
    return Marks(by_category(names, passed), np.mean(chance))
