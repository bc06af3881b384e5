"""What all suites share: scenes of a split, pictures drawn in batches, and what counts as showing a scene.

Picture i of a suite starts from noise of its own, seeded by its number, so that scores do not depend on the
batch size and every prompt meets fresh noise. Lesson 10.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from PIL import Image

from .. import world
from ..world.parse import Reading
from ..world.scene import Scene, sample_heldout_scene, sample_scene

Tick = Callable[[int], object]  # called with the number of prompts just done
BATCH = 32
POOL = 100


def batches(items: Sequence, size: int = BATCH) -> Iterator[Sequence]:
    """Slices of at most `size` items."""
    return (items[k : k + size] for k in range(0, len(items), size))


def noise(first: int, count: int, seed: int) -> list:
    """One random generator for each of the pictures `first`, `first` + 1, …"""
    import torch

    return [torch.Generator().manual_seed(1_000_003 * seed + first + k) for k in range(count)]


def draw(model, prompts: Sequence[str], seed: int, tick: Tick) -> list[Image.Image]:
    """One picture of every prompt."""
    pictures: list[Image.Image] = []
    for some in batches(prompts):
        pictures += model.generate(list(some), generator=noise(len(pictures), len(some), seed))
        tick(len(some))
    return pictures


def pictures_of(scenes: Sequence[Scene]) -> list[Image.Image]:
    """Scenes of the world as the pictures that a model is shown."""
    return [Image.fromarray(image) for image in world.render(scenes)]


def draw_scene(rng: np.random.Generator, is_heldout: bool, *, count: int | None = None) -> Scene:
    """A scene that holds a held-out combination, or one that holds none."""
    return (sample_heldout_scene if is_heldout else sample_scene)(rng, count=count)


def shows(reading: Reading, scene: Scene) -> bool:
    """True when a picture shows exactly this scene, background included, and nothing else."""
    is_same = [o.identity for o in reading.objects] == [o.identity for o in scene.objects]
    return is_same and reading.background == scene.background and reading.is_clean


def readings_of_chance(rng: np.random.Generator) -> list[Reading]:
    """Readings of random scenes: what a model draws that does not listen to its prompt."""
    scenes = [sample_scene(rng, allow_heldout=True) for _ in range(POOL)]
    return [Reading(scene.objects, scene.background, 0) for scene in scenes]


def by_category(names: Sequence[str], scores: Sequence[float]) -> dict[str, list[float]]:
    """Sort scores by the category that stands beside each, in order of first appearance."""
    categories: dict[str, list[float]] = {}
    for name, score in zip(names, scores, strict=True):
        categories.setdefault(name, []).append(float(score))
    return categories
