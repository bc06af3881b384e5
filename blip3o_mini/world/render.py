"""Scenes → pixels: anti-aliased shapes with shading and a soft shadow, pasted from prepared stamps.

Each (shape, colour, size) is drawn once, 4× supersampled, as a premultiplied stamp; a scene is then
`canvas · (1 − alpha) + stamp` per object, which renders thousands of scenes a second on one core.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image

from .scene import BACKGROUNDS, COLOURS, SHAPES, SIZES, Scene

RGB = {
    "red": (222, 45, 48), "orange": (250, 140, 30), "yellow": (252, 212, 45), "green": (45, 160, 75),
    "blue": (45, 105, 225), "purple": (130, 60, 185), "pink": (248, 130, 185), "brown": (128, 78, 42),
}  # fmt: skip
# Top and bottom colour of each background's vertical gradient.
GRADIENT = {
    "white": ((252, 253, 255), (238, 242, 248)), "cream": ((253, 243, 215), (244, 226, 186)),
    "gray": ((176, 182, 190), (146, 152, 162)), "mint": ((208, 244, 226), (174, 226, 204)),
    "navy": ((22, 28, 62), (44, 54, 100)),
}  # fmt: skip
RADIUS = {"small": 6.0, "large": 10.0}  # half the extent, in pixels at 72 px
CELL = 24.0  # one cell, in pixels at 72 px
OVERSAMPLE = 4


def inside(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Boolean mask of a shape of half-extent 1 at points (x right, y down)."""
    if shape == "circle":
        return x**2 + y**2 <= 1
    if shape == "square":
        return np.maximum(abs(x), abs(y)) <= 0.86
    if shape == "triangle":
        return (y <= 0.82) & (y >= -0.95 + 1.77 * abs(x) / 1.0)
    if shape == "cross":
        return (np.minimum(abs(x), abs(y)) <= 0.34) & (np.maximum(abs(x), abs(y)) <= 0.97)
    if shape == "heart":
        u, w = 1.16 * x, -1.2 * y + 0.16
        return (u**2 + w**2 - 0.86) ** 3 <= 1.5 * u**2 * w**3
    if shape == "star":
        angle = (np.arctan2(x, -y) + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5
        # Edge from the tip (radius 1.05, angle 0) to the notch (radius 0.47, angle 36°).
        tip, notch, half = 1.05, 0.47, np.pi / 5
        radius, angle = np.hypot(x, y), abs(angle)
        edge = tip * notch * np.sin(half) / (tip * np.sin(angle) + notch * np.sin(half - angle))
        return radius <= edge
    raise ValueError(f"there is no shape {shape!r}; choose one of {', '.join(SHAPES)}")


@lru_cache(maxsize=512)
def stamp(shape: str, colour: str, size: str, pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """(premultiplied colour (k, k, 3), 1 − alpha (k, k, 1)) of one object in an image of `pixels` px."""
    radius = RADIUS[size] * pixels / 72
    half = int(np.ceil(radius * 1.3)) + 1
    fine = (np.arange(2 * half * OVERSAMPLE) + 0.5) / OVERSAMPLE - half
    x, y = np.meshgrid(fine / radius, fine / radius)
    cover, core = inside(shape, x, y), inside(shape, x * 1.16, y * 1.16)
    shadow = np.exp(-3.5 * np.clip(np.hypot(x - 0.1, y - 0.22) - 0.72, 0, None) ** 2 / 0.06) * 0.20
    light = 1.06 - 0.10 * (x + y)  # lit from the top left
    shade = np.where(core, light, 0.80)  # a darker rim
    rgb = np.clip(np.array(RGB[colour]) * shade[..., None], 0, 255) * cover[..., None]
    alpha = np.where(cover, 1.0, shadow)

    def shrink(values: np.ndarray) -> np.ndarray:
        return values.reshape(2 * half, OVERSAMPLE, 2 * half, OVERSAMPLE, -1).mean((1, 3)).astype(np.float32)

    return shrink(rgb), 1 - shrink(alpha)


@lru_cache(maxsize=32)
def backdrop(background: str, pixels: int) -> np.ndarray:
    """The empty board (pixels, pixels, 3): a vertical gradient with a faint glow."""
    top, bottom = (np.array(c, np.float32) for c in GRADIENT[background])
    down = np.linspace(0, 1, pixels, dtype=np.float32)[:, None, None]
    return np.broadcast_to(top + (bottom - top) * down, (pixels, pixels, 3)).astype(np.float32)


def render(scenes: Sequence[Scene], size: int = 72) -> np.ndarray:
    """Render scenes to uint8 (B, size, size, 3)."""
    canvas = np.empty((len(scenes), size, size, 3), np.float32)
    scale = size / 72
    for image, scene in zip(canvas, scenes):
        image[:] = backdrop(scene.background, size)
        for o in scene.objects:
            colour, clear = stamp(o.shape, o.colour, o.size, size)
            half = len(clear) // 2
            left = round((CELL * (o.column + 0.5) + o.dx) * scale) - half
            top = round((CELL * (o.row + 0.5) + o.dy) * scale) - half
            # Shadows may reach over the border: cut both the stamp and its place on the canvas.
            y0, x0, y1, x1 = max(top, 0), max(left, 0), min(top + 2 * half, size), min(left + 2 * half, size)
            place = image[y0:y1, x0:x1]
            place *= clear[y0 - top : y1 - top, x0 - left : x1 - left]
            place += colour[y0 - top : y1 - top, x0 - left : x1 - left]
    return (canvas + 0.5).astype(np.uint8)


def contact_sheet(images: Sequence, columns: int, *, size: int = 144, gap: int = 6) -> Image.Image:
    """Tile images (PIL or uint8 arrays) into one picture, row by row."""
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * (size + gap) + gap, rows * (size + gap) + gap), (255, 255, 255))
    for k, image in enumerate(images):
        image = image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image))
        place = (gap + (k % columns) * (size + gap), gap + (k // columns) * (size + gap))
        sheet.paste(image.convert("RGB").resize((size, size), Image.LANCZOS), place)
    return sheet


__all__ = ["BACKGROUNDS", "COLOURS", "SIZES", "contact_sheet", "inside", "render"]
