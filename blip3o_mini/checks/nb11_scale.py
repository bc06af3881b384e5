"""Checks of lesson 11: parameters of a block, operations of a layer, bytes on a GPU, days of training."""

from __future__ import annotations

from .exercise import Exercise, Slip

DAY = 86_400  # seconds

# ------------------------------------------------------------------ 11.1 block_parameters


def _sizes() -> list[tuple]:
    """(width, inner, embed, heads): the published block, the toy's, and two that share no number."""
    return [(1792, 4864, 1024, 28), (128, 384, 128, 4), (48, 256, 40, 6), (10, 7, 3, 2)]


def _block(
    width: int, inner: int, embed: int, heads: int, *, squares: int = 7, ffn: int = 3, bias: int = 1, norms: int = 13
) -> int:
    modulation = 4 * width * (embed + bias)
    return squares * width**2 + ffn * width * inner + modulation + norms * width + heads


block_parameters = Exercise(
    "11.1", "block_parameters", 15, _sizes, _block,
    (
        Slip(
            "you count eight square matrices. Self- and cross-attention share one output projection: q, k, v twice, "
            "and one output make seven.",
            lambda *sizes: _block(*sizes, squares=8),
        ),
        Slip(
            "the feed-forward part is counted with two matrices. A gated one has three.",
            lambda *sizes: _block(*sizes, ffn=2),
        ),
        Slip(
            "4 · width numbers are missing: the modulation has a bias, and so have the four layer norms of q and k.",
            lambda *sizes: _block(*sizes, bias=0),
        ),
        Slip(
            "the norms are missing: four layer norms (weight and bias) and five RMS norms make 13 · width.",
            lambda *sizes: _block(*sizes, norms=0),
        ),
        Slip(
            "the gates of cross-attention are missing: one number per head.",
            lambda width, inner, embed, heads: _block(width, inner, embed, 0),
        ),
    ),
)  # fmt: skip


# ------------------------------------------------------------------ 11.2 layer_flops


def _layers() -> list[tuple]:
    """(weights, tokens, keys, width)"""
    return [(56_000_000, 64, 64, 1792), (1000, 7, 20, 16), (12_345, 1, 500, 64), (10, 3, 2, 5)]


def _flops(weights: int, tokens: int, keys: int, width: int, *, each: int = 2, looks: int = 4) -> int:
    return each * weights * tokens + looks * tokens * keys * width


layer_flops = Exercise(
    "11.2", "layer_flops", 10, _layers, _flops,
    (
        Slip(
            "a multiplication and an addition count as two operations: each weight makes 2 per token.",
            lambda *case: _flops(*case, each=1),
        ),
        Slip(
            "attention does its product twice: scores from queries and keys, then the sum of values. 4 · tokens · "
            "keys · width in all.",
            lambda *case: _flops(*case, looks=2),
        ),
        Slip("attention is missing: it has no weights, but operations.", lambda *case: _flops(*case, looks=0)),
        Slip(
            "every token looks at `keys` tokens, which need not be as many as `tokens`.",
            lambda weights, tokens, keys, width: _flops(weights, tokens, tokens, width),
        ),
        Slip(
            "the weights work once for every token, not once in all.",
            lambda weights, tokens, keys, width: 2 * weights + 4 * tokens * keys * width,
        ),
    ),
)  # fmt: skip


# ------------------------------------------------------------------ 11.3 bytes_per_gpu


def _trainings() -> list[tuple]:
    """(frozen, learned, gpus, sharded)"""
    return [
        (8e9, 1.4e9, 8, "nothing"),
        (8e9, 1.4e9, 8, "states"),
        (7e8, 3e8, 4, "everything"),
        (0.0, 5e6, 32, "states"),
    ]


def _bytes(
    frozen: float, learned: float, gpus: int, sharded: str, *, moments: int = 8, gradients: int = 4, weight: int = 4
) -> float:
    states, rest = moments * learned, (weight + gradients) * learned + 2 * frozen
    if sharded == "everything":
        return (states + rest) / gpus
    return states / gpus + rest if sharded == "states" else states + rest


bytes_per_gpu = Exercise(
    "11.3", "bytes_per_gpu", 15, _trainings, _bytes,
    (
        Slip(
            "AdamW keeps two moments per weight that learns, 4 bytes each: 8 bytes are missing.",
            lambda *case: _bytes(*case, moments=0),
        ),
        Slip("the gradients are missing: 4 bytes per weight that learns.", lambda *case: _bytes(*case, gradients=0)),
        Slip(
            "frozen weights have neither gradient nor moments: 2 bytes each, and nothing else.",
            lambda frozen, learned, gpus, sharded: _bytes(0, learned + frozen, gpus, sharded),
        ),
        Slip(
            "\"states\" shares the moments only; weights and gradients stay whole on every GPU.",
            lambda frozen, learned, gpus, sharded: _bytes(
                frozen, learned, gpus, "everything" if sharded == "states" else sharded
            ),
        ),
        Slip(
            "what learns is kept in float32: 4 bytes per weight, not 2.",
            lambda *case: _bytes(*case, weight=2),
        ),
    ),
)  # fmt: skip


# ------------------------------------------------------------------ 11.4 days


def _bills() -> list[tuple]:
    """(samples, flops per sample, GPUs, peak, share of it)"""
    return [(36e6, 2.7e12, 32, 989e12, 0.4), (1e6, 1e9, 1, 1e12, 1.0), (5e5, 3e10, 8, 3e14, 0.25)]


def _days(samples: float, flops: float, gpus: int, peak: float, share: float) -> float:
    return samples * flops / (gpus * peak * share) / DAY


days = Exercise(
    "11.4", "days", 10, _bills, _days,
    (
        Slip("these are hours: a day has 86,400 seconds.", lambda *bill: 24 * _days(*bill)),
        Slip("these are seconds: a day has 86,400 of them.", lambda *bill: DAY * _days(*bill)),
        Slip(
            "no program reaches the peak: only `share` of it does useful work.",
            lambda samples, flops, gpus, peak, share: _days(samples, flops, gpus, peak, 1),
        ),
        Slip(
            "the GPUs share the work: more of them take less time.",
            lambda samples, flops, gpus, peak, share: _days(samples, flops, 1, peak, share) * gpus,
        ),
        Slip(
            "all samples on one GPU: the number of GPUs is left out.",
            lambda samples, flops, gpus, peak, share: _days(samples, flops, 1, peak, share),
        ),
    ),
)  # fmt: skip
