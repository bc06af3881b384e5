"""Checks of lesson 05: folding, features in their places, cross-attention, the training step, the walk to a picture."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import decoder, flow
from .exercise import Exercise, Slip


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ------------------------------------------------------------------ 5.1 fold


def _pictures() -> list[tuple]:
    """Wider than high, too: on a square picture rows and columns can be confused unnoticed."""
    shapes = (((2, 3, 6, 6), 2), ((1, 3, 6, 9), 3), ((3, 2, 4, 8), 4), ((2, 3, 4, 12), 2))
    return [(_random(*shape, seed=k), size) for k, (shape, size) in enumerate(shapes)]


def _folded(images: Tensor, size: int, inside: str, *, is_tiled: bool = False) -> Tensor:
    """Fold with any order of the new channels: c colour, y and x the pixel inside its square."""
    batch, channels, high, wide = images.shape
    # is_tiled: the picture falls into size × size large tiles instead of many small squares
    rows = (size, high // size) if is_tiled else (high // size, size)
    columns = (size, wide // size) if is_tiled else (wide // size, size)
    axes = "_cyrxk" if is_tiled else "_crykx"  # r, k: which square
    grid = images.reshape(batch, channels, *rows, *columns)
    grid = grid.permute(0, *(axes.index(axis) for axis in inside + "rk"))
    return grid.reshape(batch, channels * size**2, high // size, wide // size)


fold = Exercise(
    "5.1", "fold", 10, _pictures, decoder.fold,
    (
        Slip(
            "you reshaped without moving an axis, so a cell of the result holds pixels from far apart. Split height "
            "and width first, then bring the two axes inside the square next to the channels.",
            lambda images, size: images.reshape(
                len(images), -1, images.shape[2] // size, images.shape[3] // size
            ),
        ),
        Slip(
            "the new channels run pixel by pixel, the colours of each together. All of red comes first, then green, "
            "then blue: the order is (channel, y, x).",
            lambda images, size: _folded(images, size, "yxc"),
        ),
        Slip(
            "inside the squares rows and columns have changed places.",
            lambda images, size: _folded(images, size, "cxy"),
        ),
        Slip(
            "you cut the picture into few large tiles and laid them on top of each other. One cell of the result is "
            "one small square: split the height into (H / size, size), not (size, H / size).",
            lambda images, size: _folded(images, size, "cyx", is_tiled=True),
        ),
        Slip(
            "you averaged each square: that is a smaller picture without details. Folding keeps every number.",
            lambda images, size: F.avg_pool2d(images, size),
        ),
    ),
)  # fmt: skip


# ------------------------------------------------------------------ 5.2 layout


def _boards() -> list[tuple]:
    sizes = ((2, 9, 4, 6), (1, 4, 3, 8), (3, 9, 9, 9), (2, 16, 5, 4))
    return [(_random(b, q, d, seed=k), side) for k, (b, q, d, side) in enumerate(sizes)]


def _grid(features: Tensor) -> Tensor:
    side = math.isqrt(features.shape[1])
    return features.transpose(1, 2).unflatten(2, (side, side))  # (B, D, rows, columns)


def _layout(features: Tensor, side: int) -> Tensor:
    return F.interpolate(_grid(features), size=(side, side), mode="nearest")


def _unmoved(features: Tensor, side: int) -> Tensor:
    """The reshape that looks right and mixes channels with places."""
    rows = math.isqrt(features.shape[1])
    return F.interpolate(features.reshape(len(features), -1, rows, rows), size=(side, side), mode="nearest")


def _tiled(features: Tensor, side: int) -> Tensor:
    grid = _grid(features)
    return grid.repeat(1, 1, side // grid.shape[2], side // grid.shape[3])


layout = Exercise(
    "5.2", "layout", 10, _boards, _layout,
    (
        Slip(
            "channels and places are mixed: (B, Q, D) was reshaped as if it were (B, D, Q). Transpose first.",
            _unmoved,
        ),
        Slip(
            "rows and columns have changed places: feature 1 stands to the right of feature 0, not below it.",
            lambda features, side: _layout(features, side).mT,
        ),
        Slip(
            "the whole board was repeated side by side. Each feature fills one square of its own: repeat every row "
            "and column, as `repeat_interleave` does.",
            _tiled,
        ),
        Slip(
            "the features were blended between the squares. Each square gets exactly its own: mode \"nearest\".",
            lambda features, side: F.interpolate(_grid(features), size=(side, side), mode="bilinear"),
        ),
        Slip(
            "the channels are the last axis. A UNet reads (B, D, rows, columns).",
            lambda features, side: _layout(features, side).permute(0, 2, 3, 1),
        ),
    ),
)  # fmt: skip


# ------------------------------------------------------------------ 5.3 cross_attention


def _readers() -> list[tuple]:
    """(pixels (B, N, C), features (B, Q, D), query (C, C), key (C, D), value (C, D), heads)."""
    found = []
    for k, (b, n, c, q, d, heads) in enumerate(((2, 6, 8, 4, 5, 2), (1, 4, 6, 9, 3, 3), (3, 5, 8, 9, 8, 4))):
        made = [(b, n, c), (b, q, d), (c, c), (c, d), (c, d)]
        found.append((*(_random(*shape, seed=10 * k + i) for i, shape in enumerate(made)), heads))
    return found


def _attend(
    pixels: Tensor, features: Tensor, query: Tensor, key: Tensor, value: Tensor, heads: int, *,
    scale: float | None = None, axis: int = -1, is_last: bool = False, has_value: bool = True,
) -> Tensor:  # fmt: skip
    """Cross-attention with any of the usual slips."""

    def split(x: Tensor) -> Tensor:  # (B, N, C) → (B, heads, N, C / heads)
        return (
            x.unflatten(2, (-1, heads)).permute(0, 3, 1, 2) if is_last else x.unflatten(2, (heads, -1)).transpose(1, 2)
        )

    q, k, v = split(pixels @ query.T), split(features @ key.T), split(features @ value.T)
    weights = (q @ k.mT / (q.shape[-1] ** 0.5 if scale is None else scale)).softmax(axis)
    read = weights @ (v if has_value else k)
    return (read.permute(0, 2, 3, 1) if is_last else read.transpose(1, 2)).flatten(2)


cross_attention = Exercise(
    "5.3", "cross_attention", 20, _readers, _attend,
    (
        Slip(
            "the scores are not scaled: divide them by the square root of a head's width, C / heads.",
            lambda *case: _attend(*case, scale=1.0),
        ),
        Slip(
            "you scaled by the root of the whole width C. Each head is only C / heads wide.",
            lambda *case: _attend(*case, scale=case[2].shape[0] ** 0.5),
        ),
        Slip(
            "your softmax runs over the pixels. Every pixel spreads its attention over the features: the last axis.",
            lambda *case: _attend(*case, axis=-2),
        ),
        Slip(
            "all heads look as one. Split the width into `heads` parts before you compare.",
            lambda *case: _attend(*case[:-1], 1),
        ),
        Slip(
            "you split the width into heads the wrong way round: the first C / heads channels are the first head. "
            "`unflatten(2, (heads, -1))`.",
            lambda *case: _attend(*case, is_last=True),
        ),
        Slip(
            "what is read are the keys. Keys say where to look; the values are what is handed over.",
            lambda *case: _attend(*case, has_value=False),
        ),
    ),
)  # fmt: skip


# ------------------------------------------------------------------ 5.4 training_loss


def _guess(x: Tensor, timestep: Tensor | float, features: Tensor) -> Tensor:
    """Stands in for the network: reads its three arguments, each in its own way."""
    thousandths = torch.as_tensor(timestep, dtype=torch.float64).view(-1, *[1] * (x.ndim - 1))
    told = features.mean((1, 2)).view(-1, *[1] * (x.ndim - 1))
    return torch.tanh(0.7 * x + told) * (1 - thousandths / 2000) + 0.1


def _lessons() -> list[tuple]:
    """Noise levels in eighths: their thousandths are exact in every precision."""
    shapes = ((4, 3, 2, 2), (2, 12, 4, 4), (1, 3, 5, 5))
    return [
        (_guess, _random(*s, seed=k), _random(s[0], 9, 4, seed=k + 20), _random(*s, seed=k + 50),
         torch.tensor([0.25, 0.5, 0.875, 0.125][: s[0]], dtype=torch.float64))
        for k, s in enumerate(shapes)
    ]  # fmt: skip


def _loss(guess, image, features, noise, sigma, *, target=None, is_reversed=False, unit=1000.0) -> Tensor:
    x = flow.interpolate(image, noise, 1 - sigma if is_reversed else sigma)
    return flow.loss(guess(x, unit * sigma, features), image if target is None else target)


training_loss = Exercise(
    "5.4", "training_loss", 15, _lessons, _loss,
    (
        Slip(
            "you compare the guess with the velocity, as in lesson 03. This network guesses the clean picture.",
            lambda guess, image, features, noise, sigma: _loss(
                guess, image, features, noise, sigma, target=noise - image
            ),
        ),
        Slip(
            "you compare the guess with the noise, as the published decoder was trained. This network guesses the "
            "clean picture.",
            lambda guess, image, features, noise, sigma: _loss(guess, image, features, noise, sigma, target=noise),
        ),
        Slip(
            "picture and noise have changed places on the path: sigma = 1 is noise.",
            lambda *case: _loss(*case, is_reversed=True),
        ),
        Slip(
            "the network was told sigma. It counts noise levels in thousandths: `flow.timestep(sigma)`.",
            lambda *case: _loss(*case, unit=1.0),
        ),
        Slip(
            "the network did not see the features: hand them over as its third argument.",
            lambda guess, image, features, noise, sigma: _loss(guess, image, 0 * features, noise, sigma),
        ),
        Slip(
            "the network was shown the clean picture, and has nothing to do. Mix in the noise first.",
            lambda guess, image, features, noise, sigma: _loss(guess, image, features, image, sigma),
        ),
    ),
)  # fmt: skip


# ------------------------------------------------------------------ 5.5 draw


def _starts() -> list[tuple]:
    """(guess, features, noise, steps); levels in eighths or coarser."""
    sizes = ((2, 1), (3, 2), (1, 4), (2, 8))
    return [(_guess, _random(b, 9, 4, seed=steps), _random(b, 3, 4, 4, seed=steps + 9), steps) for b, steps in sizes]


def _draw(
    guess, features, x, steps: int, *, sign=1.0, is_divided=True, is_late=False, unit=1000.0, is_cut=False
) -> Tensor:  # fmt: skip
    """The walk from noise to a folded picture, with any of the usual slips."""
    levels = flow.sigmas(steps)
    for here, there in pairwise(levels[:-1] if is_cut else levels):
        clean = guess(x, unit * (there if is_late else here), features)
        velocity = sign * (x - clean) / (here if is_divided else 1.0)
        x = x + (there - here) * velocity
    return x


draw = Exercise(
    "5.5", "draw", 15, _starts, _draw,
    (
        Slip(
            "you walk away from the guess. The velocity points to the noise, (x − guess) / sigma, and sigma falls.",
            lambda *case: _draw(*case, sign=-1.0),
        ),
        Slip(
            "you forgot to divide by sigma. From x to the guess it is a way of length sigma: velocity is way by sigma.",
            lambda *case: _draw(*case, is_divided=False),
        ),
        Slip(
            "the network was told the noise level you are going to. Tell it the one where you stand.",
            lambda *case: _draw(*case, is_late=True),
        ),
        Slip(
            "the network was told sigma. It counts noise levels in thousandths: `flow.timestep(sigma)`.",
            lambda *case: _draw(*case, unit=1.0),
        ),
        Slip(
            "you stopped before sigma 0, so that noise is left in the picture.",
            lambda *case: _draw(*case, is_cut=True),
        ),
    ),
)  # fmt: skip
