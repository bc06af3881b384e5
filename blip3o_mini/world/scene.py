"""Scenes of the little world: one to four coloured shapes on a 3×3 board, drawn from a seed.

A scene is plain data. Some combinations never occur in training (`is_heldout`), so that a score on
them tells composition from memory: (shape, colour) pairs, (count, shape) pairs, and ordered relations.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import permutations

import numpy as np

SHAPES = ("circle", "square", "triangle", "star", "heart", "cross")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown")
SIZES = ("small", "large")
BACKGROUNDS = ("white", "cream", "gray", "mint", "navy")
POSITIONS = (
    "top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right",
)  # fmt: skip
CELLS = len(POSITIONS)
MOST_OBJECTS = 4

HELDOUT_PAIRS = frozenset(
    {("circle", "purple"), ("square", "yellow"), ("triangle", "pink"), ("star", "blue"), ("heart", "green"),
     ("cross", "orange"), ("heart", "brown"), ("circle", "red")}
)  # fmt: skip
HELDOUT_COUNTS = frozenset({(2, "cross"), (3, "heart"), (4, "star")})
# (a, "left", b): some a stands in a column left of some b; (a, "above", b): in a row above it.
HELDOUT_RELATIONS = frozenset({("star", "left", "triangle"), ("square", "above", "heart")})

# Pixels at 72 px that an object may stray from the middle of its cell without touching its neighbours.
JITTER = {"small": 4, "large": 1}


@dataclass(frozen=True)
class Object:
    """One shape: what it is, its cell (row and column, 0 to 2), and its offset in pixels at 72 px."""

    shape: str
    colour: str
    size: str
    row: int
    column: int
    dx: int = 0
    dy: int = 0

    @property
    def cell(self) -> int:
        return 3 * self.row + self.column

    @property
    def position(self) -> str:
        return POSITIONS[self.cell]

    def phrase(self, with_size: bool = True) -> str:
        """"large red star", or "red star"."""
        return f"{self.size} {self.colour} {self.shape}" if with_size else f"{self.colour} {self.shape}"

    @property
    def identity(self) -> tuple:
        """What a checker compares: everything but the offset inside the cell."""
        return (self.shape, self.colour, self.size, self.row, self.column)


@dataclass(frozen=True)
class Scene:
    """Objects in reading order on a background."""

    objects: tuple[Object, ...]
    background: str


def relation(a: Object, b: Object) -> set[str]:
    """Every relation of a to b that is true: left, right, above, below (strict, by column and row)."""
    found = set()
    if a.column != b.column:
        found.add("left" if a.column < b.column else "right")
    if a.row != b.row:
        found.add("above" if a.row < b.row else "below")
    return found


def heldout_reasons(scene: Scene) -> set[str]:
    """Which held-out combinations a scene contains: any of "pair", "count", "relation"."""
    reasons = set()
    if any((o.shape, o.colour) in HELDOUT_PAIRS for o in scene.objects):
        reasons.add("pair")
    counts = Counter(o.shape for o in scene.objects)
    if any((n, shape) in HELDOUT_COUNTS for shape, n in counts.items()):
        reasons.add("count")
    for a, b in permutations(scene.objects, 2):
        if any((a.shape, kind, b.shape) in HELDOUT_RELATIONS for kind in relation(a, b)):
            reasons.add("relation")
    return reasons


def is_heldout(scene: Scene) -> bool:
    """True for scenes that training never shows or describes."""
    return bool(heldout_reasons(scene))


def make_object(rng: np.random.Generator, cell: int, *, shape=None, colour=None, size=None) -> Object:
    """An object in a cell; whatever is not given is drawn."""
    shape = shape or SHAPES[rng.integers(len(SHAPES))]
    colour = colour or COLOURS[rng.integers(len(COLOURS))]
    size = size or SIZES[rng.integers(len(SIZES))]
    reach = JITTER[size]
    dx, dy = (int(k) for k in rng.integers(-reach, reach + 1, 2))
    return Object(shape, colour, size, cell // 3, cell % 3, dx, dy)


def make_scene(objects, background: str) -> Scene:
    """A scene with its objects in reading order."""
    return Scene(tuple(sorted(objects, key=lambda o: o.cell)), background)


def _draw(rng: np.random.Generator, count: int | None) -> Scene:
    count = count or int(rng.choice(MOST_OBJECTS, p=(0.3, 0.3, 0.2, 0.2))) + 1
    cells = rng.permutation(CELLS)[:count]
    # A fifth of the scenes repeat one shape (half of those in one colour), so that counting has matter.
    shape = SHAPES[rng.integers(len(SHAPES))] if count > 1 and rng.random() < 0.35 else None
    colour = COLOURS[rng.integers(len(COLOURS))] if shape and rng.random() < 0.5 else None
    repeated = count if rng.random() < 0.7 else count - 1
    objects = [
        make_object(rng, int(cell), shape=shape if i < repeated else None, colour=colour if i < repeated else None)
        for i, cell in enumerate(cells)
    ]
    return make_scene(objects, BACKGROUNDS[rng.integers(len(BACKGROUNDS))])


def sample_scene(rng: np.random.Generator, *, count: int | None = None, allow_heldout: bool = False) -> Scene:
    """Draw a scene; without `allow_heldout`, one that holds no held-out combination."""
    while True:
        scene = _draw(rng, count)
        if allow_heldout or not is_heldout(scene):
            return scene


def sample_heldout_scene(rng: np.random.Generator, *, count: int | None = None) -> Scene:
    """Draw a scene that holds at least one held-out combination."""
    while True:
        scene = _draw(rng, count)
        if is_heldout(scene):
            return scene
