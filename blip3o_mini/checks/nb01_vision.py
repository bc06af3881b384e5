"""Checks of lesson 01: patches, pooling, the contrastive loss, zero-shot classification, whitening."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import torch
from torch import Tensor
from torch.nn import functional as F

from ..objectives import contrastive_loss as package_loss
from ..vision import Vision
from ..vision import pool_grid as package_pool
from .exercise import Exercise, Slip


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ------------------------------------------------------------------ 1.1 patches


def _pictures() -> list[tuple]:
    """Wider than high, too: on a square picture rows and columns can be confused unnoticed."""
    shapes = (((2, 3, 6, 6), 2), ((1, 3, 4, 8), 4), ((3, 3, 6, 9), 3), ((2, 3, 4, 4), 2))
    return [(_random(*shape, seed=k), size) for k, (shape, size) in enumerate(shapes)]


def _patches(images: Tensor, size: int) -> Tensor:
    """(B, C, H, W) → (B, N, C · size²): what a convolution with kernel = stride = size sees at each step."""
    return F.unfold(images, size, stride=size).transpose(1, 2)


def _squares(images: Tensor, size: int, order: str) -> Tensor:
    """Patches with their axes in any order: B, then r and c (which patch), k (channel), y and x (which pixel)."""
    batch, channels, high, wide = images.shape
    grid = images.view(batch, channels, high // size, size, wide // size, size)
    grid = grid.permute(0, *("_krycx".index(axis) for axis in order))
    return grid.reshape(batch, (high // size) * (wide // size), -1)


patches = Exercise(
    "1.1", "patches", 10, _pictures, _patches,
    (
        Slip(
            "you reshaped without moving an axis. Each row holds whole lines of the picture, not a square of it: "
            "split height and width first, then bring the two patch axes to the front.",
            lambda images, size: images.reshape(len(images), -1, images.shape[1] * size * size),
        ),
        Slip(
            "inside a patch your numbers run pixel by pixel, three colours at a time. A convolution's weight is "
            "ordered (channel, row, column): first all of red, then all of green, then all of blue.",
            lambda images, size: _squares(images, size, "rcyxk"),
        ),
        Slip(
            "your patches run down the columns. Read the picture like a page: row by row.",
            lambda images, size: _squares(images, size, "crkyx"),
        ),
        Slip(
            "inside a patch rows and columns have changed places: every patch is mirrored at its diagonal.",
            lambda images, size: _squares(images, size, "rckxy"),
        ),
        Slip(
            "the last two axes have changed places: (B, N, numbers) is asked for, one row per patch.",
            lambda images, size: F.unfold(images, size, stride=size),
        ),
    ),
)  # fmt: skip


# ------------------------------------------------------------------ 1.2 pool_grid


def _grids() -> list[tuple]:
    sizes = ((2, 16, 5, 2), (1, 36, 4, 3), (3, 16, 2, 4), (2, 9, 3, 1), (1, 36, 36, 2))
    return [(_random(b, n, c, seed=k), pool) for k, (b, n, c, pool) in enumerate(sizes)]


def _grid(tokens: Tensor) -> Tensor:
    side = round(tokens.shape[1] ** 0.5)
    return tokens.transpose(1, 2).unflatten(2, (side, side))


def _pool_mixed(tokens: Tensor, pool: int) -> Tensor:
    """The reshape that looks right and mixes channels with places."""
    side = round(tokens.shape[1] ** 0.5)
    grid = tokens.reshape(len(tokens), tokens.shape[2], side, side)
    return F.avg_pool2d(grid, pool).flatten(2).transpose(1, 2)


pool_grid = Exercise(
    "1.2", "pool_grid", 10, _grids, package_pool,
    (
        Slip(
            "you averaged tokens that follow each other in the sequence. Neighbours in the picture also stand one "
            "row below: form the square grid first.",
            lambda tokens, pool: tokens.unflatten(1, (-1, pool * pool)).mean(2),
        ),
        Slip(
            "channels and places are mixed: (B, N, C) was reshaped as if it were (B, C, N). Transpose first.",
            _pool_mixed,
        ),
        Slip(
            "you kept the largest value of each square. The average is asked for: every patch has its say.",
            lambda tokens, pool: F.max_pool2d(_grid(tokens), pool).flatten(2).transpose(1, 2),
        ),
        Slip(
            "the result has its channels in the middle. Tokens are (B, Q, C): transpose back at the end.",
            lambda tokens, pool: F.avg_pool2d(_grid(tokens), pool).flatten(2),
        ),
        Slip(
            "you summed the patches of each square; divide by their number.",
            lambda tokens, pool: package_pool(tokens, pool) * pool**2,
        ),
    ),
)  # fmt: skip


# ------------------------------------------------------------------ 1.3 contrastive_loss


def _batches() -> list[tuple]:
    sizes = ((5, 8, 10.0), (2, 3, 1.0), (7, 4, 30.0))
    return [
        (_random(b, c, seed=k), _random(b, c, seed=k + 50), torch.tensor(scale, dtype=torch.float64))
        for k, (b, c, scale) in enumerate(sizes)
    ]


def _logits(image: Tensor, text: Tensor) -> Tensor:
    return F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T


def _cross_entropy(logits: Tensor) -> Tensor:
    return F.cross_entropy(logits, torch.arange(len(logits)))


def _both_ways(logits: Tensor) -> Tensor:
    return (_cross_entropy(logits) + _cross_entropy(logits.T)) / 2


contrastive_loss = Exercise(
    "1.3", "contrastive_loss", 15, _batches, package_loss,
    (
        Slip(
            "the embeddings were not normalised. CLIP compares directions only: divide each vector by its length.",
            lambda image, text, scale: _both_ways(scale * image @ text.T),
        ),
        Slip(
            "only one way is there: for each picture, which text? Add the other: for each text, which picture? "
            "It is the same matrix, transposed.",
            lambda image, text, scale: _cross_entropy(scale * _logits(image, text)),
        ),
        Slip(
            "only one way is there: for each text, which picture? Add the other: for each picture, which text?",
            lambda image, text, scale: _cross_entropy(scale * _logits(image, text).T),
        ),
        Slip(
            "you added the two ways; take their mean.",
            lambda image, text, scale: 2 * _both_ways(scale * _logits(image, text)),
        ),
        Slip(
            "you divided by the scale. It is the inverse of a temperature: the similarities are multiplied by it.",
            lambda image, text, scale: _both_ways(_logits(image, text) / scale),
        ),
        Slip(
            "the scale has no effect. Cosines lie between −1 and 1, too close together for a softmax to decide.",
            lambda image, text, scale: _both_ways(_logits(image, text)),
        ),
    ),
)  # fmt: skip


# ------------------------------------------------------------------ 1.4 zero_shot


def _labels() -> list[tuple]:
    sizes = ((4, 3, 8, 10.0), (3, 3, 5, 2.0), (1, 6, 4, 30.0))
    return [
        (_random(b, c, seed=k), _random(n, c, seed=k + 50), torch.tensor(scale, dtype=torch.float64))
        for k, (b, n, c, scale) in enumerate(sizes)
    ]


zero_shot = Exercise(
    "1.4", "zero_shot", 10, _labels,
    lambda image, labels, scale: (scale * _logits(image, labels)).softmax(1),
    (
        Slip(
            "your shares add up to 1 over the pictures. For each picture they must add up to 1 over the labels.",
            lambda image, labels, scale: (scale * _logits(image, labels)).softmax(0),
        ),
        Slip(
            "these are similarities, not shares: the softmax is missing.",
            lambda image, labels, scale: scale * _logits(image, labels),
        ),
        Slip(
            "the scale is missing: without it, all labels look nearly alike.",
            lambda image, labels, scale: _logits(image, labels).softmax(1),
        ),
        Slip(
            "the embeddings were not normalised, so that a long text vector wins everywhere.",
            lambda image, labels, scale: (scale * image @ labels.T).softmax(1),
        ),
    ),
)  # fmt: skip


# ------------------------------------------------------------------ 1.5 whitening


def _clouds() -> list[tuple]:
    """Clouds of tokens (n, C), stretched by a different factor along each of C crooked directions."""
    found = []
    for k, (n, width, kept) in enumerate(((300, 6, 3), (200, 4, 4), (500, 10, 2))):
        stretched = _random(n, width, seed=k) * torch.arange(1, width + 1)
        directions = torch.linalg.qr(_random(width, width, seed=k + 50)).Q
        found.append((stretched @ directions + 2, kept))
    return found


def _whitening(tokens: Tensor, kept: int) -> tuple[Tensor, Tensor]:
    """The package's own, which writes into the tower's buffers."""
    empty = torch.zeros(tokens.shape[1], kept, dtype=torch.float64)
    tower = SimpleNamespace(
        config=SimpleNamespace(feature_width=kept), feature_mean=empty[:, 0].clone(), whitening=empty
    )
    Vision.fit_whitening(tower, tokens[:, None])
    return tower.feature_mean, tower.whitening


def _by_hand(
    tokens: Tensor, kept: int, *, power: float = 0.5, is_centred: bool = True, is_ascending: bool = False,
    is_biased: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Whitening with any of the usual slips."""
    mean = tokens.mean(0)
    away = tokens - mean if is_centred else tokens
    covariance = away.T @ away / (len(tokens) - (0 if is_biased else 1))
    variance, directions = torch.linalg.eigh(covariance)
    if not is_ascending:
        variance, directions = variance.flip(0), directions.flip(1)
    return mean, signed(directions[:, :kept] / variance[:kept] ** power)


def signed(projection: Tensor) -> Tensor:
    """Each column times ±1, so that its largest entry is positive: a direction's sign is arbitrary."""
    return projection * projection.gather(0, projection.abs().argmax(0, keepdim=True)).sign()


_whitening_exercise = Exercise(
    "1.5", "whitening", 20, _clouds, _whitening,
    (
        Slip(
            "you kept the directions of the smallest variance. `eigh` sorts upwards: flip before you cut.",
            lambda tokens, kept: _by_hand(tokens, kept, is_ascending=True),
        ),
        Slip(
            "the directions are right, but the channels keep their own variance. Divide each direction by the "
            "square root of its variance.",
            lambda tokens, kept: _by_hand(tokens, kept, power=0.0),
        ),
        Slip(
            "you divided by the variance. A channel divided by its standard deviation, the root, has variance 1.",
            lambda tokens, kept: _by_hand(tokens, kept, power=1.0),
        ),
        Slip(
            "you multiplied by the standard deviation: large directions became larger still. Divide.",
            lambda tokens, kept: _by_hand(tokens, kept, power=-0.5),
        ),
        Slip(
            "the mean was not taken away before the covariance: the largest direction only points to the mean.",
            lambda tokens, kept: _by_hand(tokens, kept, is_centred=False),
        ),
        Slip(
            "almost: your covariance divides by n. `torch.cov` divides by n − 1, since the mean was estimated too.",
            lambda tokens, kept: _by_hand(tokens, kept, is_biased=True),
        ),
    ),
    rtol=1e-7,  # eigenvectors: as exact as the gaps between the variances allow
)  # fmt: skip


def whitening(learner: Callable) -> bool:
    """Exercise 1.5, whatever signs the learner's directions have."""

    def with_signs(*case):
        answer = learner(*case)
        is_pair = isinstance(answer, tuple | list) and len(answer) == 2
        if not is_pair or not all(isinstance(part, Tensor) for part in answer) or answer[1].ndim != 2:
            return answer
        return answer[0], signed(answer[1])

    return _whitening_exercise(with_signs)
