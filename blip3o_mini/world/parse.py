"""Pixels → objects: the detector of the evaluation. It reads a scene, or refuses; it never guesses.

The background is the known gradient that most pixels agree with. What lies off the line from black to that
gradient (a shadow only darkens it) is foreground. Every connected patch of it is compared with the
silhouettes of all shapes and sizes, and its core with the palette. A patch is an object only if one
silhouette fits well and no other nearly as well, one colour fits and no other nearly as well, the whole core
has that colour, and it stands inside a cell; any other patch is counted as unreadable. Lesson 10.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from PIL import Image
from scipy import ndimage

from .render import CELL, RADIUS, RGB, backdrop, inside
from .scene import BACKGROUNDS, COLOURS, JITTER, SHAPES, SIZES, Object

SIDE = 72  # every image is read at this size; the constants below were measured there

# Background. Noise of 8 grey levels moves a pixel by 14 on average and a colour shift of 8 by another 14;
# the closest two backgrounds (white and cream) are 41 apart at the top and 64 at the bottom.
NEAR = 40.0
LEAST_BACKGROUND = 0.55  # four large objects with their shadows leave 0.76 of the board
MOST_SHIFT = 14.0  # the board's median colour may lie this far off the gradient, in grey levels per channel

# Foreground. The contrast of a pixel is its distance from the line {a · background}, a within SHADE.
SHADE = (0.62, 1.06)  # two overlapping shadows of 0.20 leave 0.64
LEAST_CONTRAST = 30.0  # the faintest colour (pink on cream) has 63: about half covered
LEAST_AREA = 12  # smaller specks are noise; the smallest object covers 52 pixels

# Silhouettes. Overlap is the Jaccard index p·t / (p² + t² − p·t) of soft coverages p and t, which is
# intersection over union for binary ones. The closest two shapes, circle and square, overlap by 0.82.
PATCH = 30  # side of a template in pixels; a large object is 21 wide
FINE = 8  # sub-pixels per pixel when templates are drawn
QUARTERS = (-2, -1, 0, 1, 2)  # templates are prepared at these offsets, in quarters of a pixel
BLURS = (0.0, 0.6, 1.0)  # and at these softnesses, in pixels: a drawn edge may be soft, a smear may not
RIM = 0.8  # contrast, over its upper quartile, that counts as fully covered: the rim is that much darker
# Clean objects reach 0.96. Blur, noise and tint together leave 0.92 of small and 0.95 of large ones; a square
# that stands on its tip overlaps with a circle by 0.91 (small) and 0.89 (large).
LEAST_OVERLAP = {"small": 0.92, "large": 0.93}
MOST_ERROR_RATIO = 0.65  # (1 − overlap) of the best kind over that of the runner-up; clean objects have 0.32
# Softness Σ t·(1 − t) / Σ t of a silhouette over that of the softest template of its kind: at most 0.79 after
# a blur of 0.8 pixels and noise, 0.85 after one of 1.0 pixels; a smear without any edge has more.
MOST_SOFTNESS = 0.9

# Colours, in CIE Lab. The closest two (blue and purple) are 33 apart; a tint of 8 levels moves one by 11.
MOST_COLOUR_ERROR = 20.0
MOST_COLOUR_RATIO = 0.65  # distance to the nearest over distance to the runner-up; a half-and-half mix has 1
LIGHT = 1.06  # the renderer lights the middle of an object by this factor
PURE = 34.0  # a core pixel has the patch's colour if it is this close in RGB, at a brightness within LIGHTS
LIGHTS = (0.8, 1.16)
LEAST_PURE = 0.88  # share of core pixels that must have it

STRAY = 2.5  # pixels that an object may stray from the middle of its cell beyond the renderer's own jitter


@dataclass(frozen=True)
class Reading:
    """What an image shows: objects in reading order, the background, and the number of other patches."""

    objects: tuple[Object, ...]
    background: str | None
    unreadable: int

    @property
    def is_clean(self) -> bool:
        """True when the background and every patch on it were recognised."""
        return self.background is not None and self.unreadable == 0


@dataclass(frozen=True)
class _Templates:
    """Every silhouette at every offset and softness: one row each."""

    covers: np.ndarray  # (n, PATCH²)
    squares: np.ndarray  # (n,) sum of squares of each cover
    kinds: np.ndarray  # (n,) index into _KINDS
    softness: np.ndarray  # (n,) that of the softest template of the same kind and offset
    centres: np.ndarray  # (n, 2) where the middle of the shape is, (x, y) from the middle of the patch
    cores: np.ndarray  # (n, PATCH, PATCH) what lies inside the rim


_KINDS = tuple(product(SHAPES, SIZES))


def parse(image) -> list[Object]:
    """Recover the objects of an image (PIL or uint8 array) in reading order; [] when it refuses."""
    return list(read(image).objects)


def parse_background(image) -> str | None:
    """Name the background of an image, or None when it is none of ours."""
    return _find_background(to_pixels(image))[0]


def read(image) -> Reading:
    """Recover objects and background of an image, and count the patches that are neither."""
    pixels = to_pixels(image)
    name, board = _find_background(pixels)
    if name is None:
        return Reading((), None, 0)
    # Padded, so that a patch at the border can be cut out like any other.
    contrast = np.pad(_contrast(pixels, board), PATCH)
    pixels = np.pad(pixels, ((PATCH, PATCH), (PATCH, PATCH), (0, 0)), mode="edge")
    labels, count = ndimage.label(_foreground(contrast))
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    patches = [k for k in range(1, count + 1) if areas[k] >= LEAST_AREA]
    found = [_recognise(pixels, contrast, labels, k) for k in patches]
    cells = [o.cell for o in found if o]
    objects = sorted((o for o in found if o and cells.count(o.cell) == 1), key=lambda o: o.cell)
    unreadable = len(patches) - len(objects)
    if unreadable > len(objects):  # most of what it shows is not ours, so the rest is a coincidence
        objects = []
    return Reading(tuple(objects), name, unreadable)


def to_pixels(image) -> np.ndarray:
    """Any image → float32 (72, 72, 3), 0 to 255; transparency becomes white."""
    if not isinstance(image, Image.Image):
        array = np.asarray(image)
        if array.dtype != np.uint8 or array.ndim not in (2, 3):
            raise ValueError(
                f"give a PIL image or a uint8 array (rows, columns, 3), not {array.dtype} {array.shape}"
            )
        image = Image.fromarray(array)
    if image.mode[0] in "IF":  # 16 or 32 bits of grey: PIL would clip where it should scale
        grey = np.asarray(image, np.float64)
        image = Image.fromarray(np.uint8(np.clip(grey / max(grey.max(), 255) * 255, 0, 255)))
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    image = image.convert("RGB")
    if image.size != (SIDE, SIDE):
        image = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return np.asarray(image, np.float32)


def _find_background(pixels: np.ndarray) -> tuple[str | None, np.ndarray | None]:
    """Name and tint-corrected board of the gradient that most pixels agree with, or (None, None)."""
    most = 0.0
    for name in BACKGROUNDS:
        difference = pixels - backdrop(name, SIDE)
        agrees = np.einsum("yxc,yxc->yx", difference, difference) < NEAR**2
        if agrees.mean() > most:
            most, best, shift = agrees.mean(), name, np.median(difference[agrees], axis=0)
    if most < LEAST_BACKGROUND or abs(shift).max() > MOST_SHIFT:
        return None, None
    return best, backdrop(best, SIDE) + shift


def _contrast(pixels: np.ndarray, board: np.ndarray) -> np.ndarray:
    """Distance of every pixel from its background at any brightness that a shadow can leave: (72, 72)."""
    shade = np.einsum("yxc,yxc->yx", pixels, board) / np.einsum("yxc,yxc->yx", board, board)
    return np.linalg.norm(pixels - np.clip(shade, *SHADE)[..., None] * board, axis=-1)


def _foreground(contrast: np.ndarray) -> np.ndarray:
    """Mask of the pixels that an object covers by more than half."""
    # Half of the contrast nearby, so that a strong colour's soft edge neither grows it nor joins two objects.
    return contrast > np.maximum(LEAST_CONTRAST, 0.5 * ndimage.maximum_filter(contrast, size=5))


def _recognise(pixels: np.ndarray, contrast: np.ndarray, labels: np.ndarray, k: int) -> Object | None:
    """The object that patch k is, or None."""
    rows, columns = np.nonzero(labels == k)
    if max(np.ptp(rows), np.ptp(columns)) >= CELL:
        return None
    y, x = round(rows.mean() + 0.5), round(columns.mean() + 0.5)
    square = (slice(y - PATCH // 2, y + PATCH // 2), slice(x - PATCH // 2, x + PATCH // 2))
    own = labels[square] == k
    # The soft edge belongs to the patch as well, unless it is another patch.
    edge = ndimage.binary_dilation(own, np.ones((3, 3))) & ((labels[square] == 0) | own)
    full = RIM * np.percentile(contrast[square][own], 75)
    template = _match(np.where(edge, np.clip(contrast[square] / full, 0, 1), 0))
    if template is None:
        return None
    kind, core, (off_x, off_y) = template
    colour = _name_colour(pixels[square][core])
    if colour is None:
        return None
    return _place(*_KINDS[kind], colour, x + off_x - PATCH, y + off_y - PATCH)


def _match(cover: np.ndarray) -> tuple[int, np.ndarray, np.ndarray] | None:
    """The kind, core and centre of the template that a soft silhouette clearly is, or None."""
    templates = _templates()
    cover = cover.astype(np.float32).ravel()
    common = templates.covers @ cover
    overlaps = common / (templates.squares + cover @ cover - common)
    best = overlaps.argmax()
    kind = templates.kinds[best]
    runner_up = overlaps[templates.kinds != kind].max()
    if overlaps[best] < LEAST_OVERLAP[_KINDS[kind][1]]:
        return None
    if 1 - overlaps[best] > MOST_ERROR_RATIO * (1 - runner_up):
        return None
    if _softness(cover) > MOST_SOFTNESS * templates.softness[best]:
        return None
    return kind, templates.cores[best], templates.centres[best]


def _name_colour(core: np.ndarray) -> str | None:
    """The palette colour of the core pixels (n, 3), or None when they have none or more than one."""
    colour = np.median(core, axis=0)
    errors = np.linalg.norm(_palette() - _lab(colour), axis=-1)
    nearest, runner_up = np.sort(errors)[:2]
    if nearest > MOST_COLOUR_ERROR or nearest > MOST_COLOUR_RATIO * runner_up:
        return None
    light = np.clip(core @ colour / (colour @ colour), *LIGHTS)
    if (np.linalg.norm(core - light[:, None] * colour, axis=-1) < PURE).mean() < LEAST_PURE:
        return None
    return COLOURS[errors.argmin()]


def _place(shape: str, size: str, colour: str, x: float, y: float) -> Object | None:
    """The object with its middle at (x, y), or None when that is between two cells."""
    column, row = int(x // CELL), int(y // CELL)
    dx, dy = x - CELL * (column + 0.5), y - CELL * (row + 0.5)
    if not (0 <= column < 3 and 0 <= row < 3) or max(abs(dx), abs(dy)) > JITTER[size] + STRAY:
        return None
    return Object(shape, colour, size, row, column, round(dx), round(dy))


@lru_cache(maxsize=1)
def _templates() -> _Templates:
    """Draw every silhouette with its centroid in the middle of the patch, at all offsets and softnesses."""
    fine = (np.arange(PATCH * FINE) + 0.5) / FINE - PATCH / 2
    covers, kinds, softness, centres, cores = [], [], [], [], []
    for kind, (shape, size) in enumerate(_KINDS):
        radius = RADIUS[size]
        mask = inside(shape, *np.meshgrid(fine / radius, fine / radius))
        y, x = (round(float(fine @ mask.sum(axis) / mask.sum()) * FINE) for axis in (1, 0))
        for down, right in product(QUARTERS, QUARTERS):
            shift = (down * FINE // 4 - y, right * FINE // 4 - x)
            sharp = np.roll(mask, shift, (0, 1)).reshape(PATCH, FINE, PATCH, FINE).mean((1, 3))
            for blur in BLURS:
                covers.append(ndimage.gaussian_filter(sharp, blur) if blur else sharp)
                kinds.append(kind)
                softness.append(_softness(ndimage.gaussian_filter(sharp, BLURS[-1])))
                centres.append((shift[1] / FINE, shift[0] / FINE))
                cores.append(ndimage.binary_erosion(sharp > 0.95))
    flat = np.array(covers, np.float32).reshape(len(covers), -1)
    columns = (np.array(column) for column in (kinds, softness, centres, cores))
    return _Templates(flat, (flat**2).sum(1), *columns)


def _softness(cover: np.ndarray) -> float:
    """Share of a silhouette that is neither covered nor clear."""
    return float((cover * (1 - cover)).sum() / cover.sum())


@lru_cache(maxsize=1)
def _palette() -> np.ndarray:
    """The palette as the renderer lights it, in Lab: (8, 3)."""
    return _lab(np.clip(np.array([RGB[colour] for colour in COLOURS]) * LIGHT, 0, 255))


def _lab(rgb: np.ndarray) -> np.ndarray:
    """sRGB 0 to 255 → CIE Lab (D65), where Euclidean distance is roughly what an eye sees."""
    linear = np.where(rgb > 10.31, ((rgb / 255 + 0.055) / 1.055) ** 2.4, rgb / 255 / 12.92)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ (to_xyz / np.array([[0.9505], [1.0], [1.089]])).T
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


__all__ = ["Reading", "parse", "parse_background", "read"]
