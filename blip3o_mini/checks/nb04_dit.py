"""Checks of lesson 04: the noise level's code, places on the board, two attentions, the feed-forward, a branch."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import dit
from .exercise import Exercise, Slip


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ------------------------------------------------------------------ 4.1 sinusoids


def _clocks() -> list[tuple]:
    return [(torch.tensor(times),) for times in ([0.0, 1.0, 500.0], [1000.0, 966.67], [33.0])]


def _code(timestep: Tensor, *, last: int = 0, unit: float = 1.0, is_sine_first: bool = False) -> Tensor:
    """Sinusoids with any of the usual slips."""
    half = dit.SINUSOIDS // 2
    exponents = torch.arange(half, dtype=torch.float64) / (half - last)
    speeds = 10_000.0**-exponents
    angles = unit * timestep.double()[:, None] * speeds
    parts = (angles.sin(), angles.cos()) if is_sine_first else (angles.cos(), angles.sin())
    return torch.cat(parts, -1).float()


sinusoids = Exercise(
    "4.1", "sinusoids", 10, _clocks, dit.sinusoids,
    (
        Slip(
            "the sines come first. The published weights expect all cosines, then all sines.",
            lambda t: _code(t, is_sine_first=True),
        ),
        Slip(
            "cosines and sines alternate. Here all 128 cosines stand together, then all sines: one `torch.cat`.",
            lambda t: torch.stack(_code(t).chunk(2, -1), -1).flatten(1),
        ),
        Slip(
            "you divided the index by 127, so that the slowest hand has speed 1/10000 exactly. Divide by 128.",
            lambda t: _code(t, last=1),
        ),
        Slip(
            "the angles hold a factor 2π. The hands turn in radians: timestep times speed, nothing else.",
            lambda t: _code(t, unit=2 * math.pi),
        ),
        Slip(
            "you went back to sigma. The timestep in 0…1000 enters as it is: in 0…1 most hands would hardly move.",
            lambda t: _code(t, unit=1e-3),
        ),
    ),
    rtol=0.0, atol=5e-4,  # float32: an angle of 1000 is known to 6e-5
)  # fmt: skip


# ------------------------------------------------------------------ 4.2 angles


def _grids() -> list[tuple]:
    """Wider than high, too: on a square board rows and columns can be confused unnoticed."""
    return [(2, 3, 8), (3, 3, 32), (4, 2, 12), (1, 5, 4)]


def _angles(
    rows: int, columns: int, head_width: int, *, is_swapped: bool = False, is_split: bool = False, slow: int = 1,
    is_down: bool = False,
) -> Tensor:  # fmt: skip
    """Angles of every cell with any of the usual slips."""
    pairs = head_width // 4
    speeds = 10_000.0 ** -(torch.arange(pairs, dtype=torch.float64) / (slow * pairs))
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    if is_down:
        row, column = row.T, column.T
    row, column = row.flatten().double(), column.flatten().double()
    if is_swapped:
        row, column = column, row
    turned = [place[:, None] * speeds for place in (row, column)]  # each (Q, pairs)
    return torch.cat(turned, -1) if is_split else torch.stack(turned, -1).flatten(1)


def _in_one_line(rows: int, columns: int, head_width: int) -> Tensor:
    half = head_width // 2
    speeds = 10_000.0 ** -(torch.arange(half, dtype=torch.float64) / half)
    return torch.arange(rows * columns)[:, None] * speeds


def _unshared(rows: int, columns: int, head_width: int) -> Tensor:
    """Neighbouring pairs for row and column, each with a speed of its own."""
    half = head_width // 2
    speeds = 10_000.0 ** -(torch.arange(half, dtype=torch.float64) / half)
    cells = torch.arange(rows * columns)
    return torch.where(torch.arange(half) % 2 == 0, cells[:, None] // columns, cells[:, None] % columns) * speeds


angles = Exercise(
    "4.2", "angles", 15, _grids, _angles,
    (
        Slip(
            "rows and columns have changed places. The pairs 0, 2, 4, … turn with the row, 1, 3, 5, … with the column.",
            lambda *case: _angles(*case, is_swapped=True),
        ),
        Slip(
            "all row pairs come first, then all column pairs. They take turns: row, column, row, column, …",
            lambda *case: _angles(*case, is_split=True),
        ),
        Slip(
            "you counted the cells in one line, as words are counted. A cell has a row and a column; it needs both.",
            _in_one_line,
        ),
        Slip(
            "row and column have different speeds. Both use the same ones: row·f0, column·f0, row·f1, column·f1, …",
            _unshared,
        ),
        Slip(
            "your speeds fall too slowly. There are head_width / 4 of them, so the exponent is i / (head_width / 4).",
            lambda *case: _angles(*case, slow=2),
        ),
        Slip(
            "the cells are listed column by column. They stand in reading order, row by row.",
            lambda *case: _angles(*case, is_down=True),
        ),
    ),
)  # fmt: skip


# ------------------------------------------------------------------ 4.3 two_attentions


def _talks() -> list[tuple]:
    """(own, told, rotary, gate): q, k, v of both attentions; as many condition vectors as cells, so that all fit."""
    found = []
    for k, (batch, rows, columns, heads, kv_heads, wide) in enumerate(
        ((2, 2, 3, 4, 2, 8), (1, 3, 3, 4, 4, 4), (2, 2, 2, 4, 2, 12))
    ):
        cells, parts = rows * columns, []
        for seed in range(6):
            count = heads if seed % 3 == 0 else kv_heads
            parts.append(_random(batch, cells, count, wide, seed=10 * k + seed))
        turns = _angles(rows, columns, wide)
        found.append((tuple(parts[:3]), tuple(parts[3:]), torch.polar(torch.ones_like(turns), turns),
                      1.5 * _random(heads, seed=10 * k + 7)))  # fmt: skip
    return found


def _attend(q: Tensor, k: Tensor, v: Tensor, *, is_tiled: bool = False) -> Tensor:
    """q (B, Q, heads, d), k and v (B, K, kv_heads, d) → (B, Q, heads, d)."""
    group = q.shape[2] // k.shape[2]
    k, v = (x.repeat(1, 1, group, 1) if is_tiled else x.repeat_interleave(group, 2) for x in (k, v))
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


def _both(
    own, told, rotary, gate, *, turns=(True, True, True, False), weigh=torch.tanh, is_share=False, is_tiled=False
) -> Tensor:  # fmt: skip
    """Both attentions with any of the usual slips; turns: of the own q and k, then of the told q and k."""
    (q1, k1, v1), (q2, k2, v2) = own, told
    q1, k1, q2, k2 = (dit.rotate(x, rotary) if is_on else x for x, is_on in zip((q1, k1, q2, k2), turns))
    opened = weigh(gate)[:, None]
    seen, heard = _attend(q1, k1, v1, is_tiled=is_tiled), _attend(q2, k2, v2, is_tiled=is_tiled)
    return ((1 - opened if is_share else 1) * seen + opened * heard).flatten(2)


two_attentions = Exercise(
    "4.3", "two_attentions", 20, _talks, _both,
    (
        Slip(
            "the condition's keys were turned, too. Only the cells have places on the board: of the cross-attention, "
            "turn q alone.",
            lambda *case: _both(*case, turns=(True,) * 4),
        ),
        Slip(
            "the queries of the cross-attention were not turned. In this network they are, and their keys are not.",
            lambda *case: _both(*case, turns=(True, True, False, False)),
        ),
        Slip(
            "the self-attention does not know the places: turn its q and its k.",
            lambda *case: _both(*case, turns=(False, False, True, False)),
        ),
        Slip("nothing was turned: `rotate` q and k of the cells' own attention, and q of the other.",
             lambda *case: _both(*case, turns=(False,) * 4)),
        Slip(
            "the gate lacks its tanh. The parameter can be any number, the gate stays between −1 and 1.",
            lambda *case: _both(*case, weigh=lambda gate: gate),
        ),
        Slip(
            "you took a sigmoid for the gate. At 0 it is half open; tanh starts closed.",
            lambda *case: _both(*case, weigh=torch.sigmoid),
        ),
        Slip("the gate has no effect: what is heard counts in full.",
             lambda *case: _both(*case, weigh=torch.ones_like)),
        Slip(
            "opening the gate closed the self-attention. What is heard is added; the rest stays as it is.",
            lambda *case: _both(*case, is_share=True),
        ),
        Slip(
            "heads and key heads are matched the wrong way round. Each key head serves neighbouring heads: "
            "`repeat_interleave`, not `repeat`.",
            lambda *case: _both(*case, is_tiled=True),
        ),
    ),
)  # fmt: skip


# ------------------------------------------------------------------ 4.4 feed_forward


def _layers() -> list[tuple]:
    """(x (B, Q, W), w1 (inner, W), w2 (W, inner), w3 (inner, W))."""
    sizes = ((2, 4, 6, 16), (1, 9, 4, 8), (3, 2, 8, 12))
    return [
        (_random(b, q, w, seed=k), _random(i, w, seed=k + 10), _random(w, i, seed=k + 20), _random(i, w, seed=k + 30))
        for k, (b, q, w, i) in enumerate(sizes)
    ]


def _gated(x: Tensor, w1: Tensor, w2: Tensor, w3: Tensor, *, curve=F.silu) -> Tensor:
    return (curve(x @ w1.T) * (x @ w3.T)) @ w2.T


feed_forward = Exercise(
    "4.4", "feed_forward", 10, _layers, _gated,
    (
        Slip(
            "the two ways in have changed places: W1 passes through SiLU, W3 stays as it is.",
            lambda x, w1, w2, w3: _gated(x, w3, w2, w1),
        ),
        Slip(
            "SiLU was put on the product. Bend W1·x alone, then multiply.",
            lambda x, w1, w2, w3: F.silu((x @ w1.T) * (x @ w3.T)) @ w2.T,
        ),
        Slip(
            "the two ways in are added. One *gates* the other: multiply them, number by number.",
            lambda x, w1, w2, w3: (F.silu(x @ w1.T) + x @ w3.T) @ w2.T,
        ),
        Slip("the curve is a GELU; this network was trained with SiLU.", lambda *case: _gated(*case, curve=F.gelu)),
        Slip("the curve is a sigmoid. SiLU is x · sigmoid(x).", lambda *case: _gated(*case, curve=torch.sigmoid)),
        Slip(
            "W3 has no say: that is a plain feed-forward layer.",
            lambda x, w1, w2, w3: F.silu(x @ w1.T) @ w2.T,
        ),
    ),
)  # fmt: skip


# ------------------------------------------------------------------ 4.5 sandwich


def _bend(x: Tensor) -> Tensor:
    """Stands in for attention or feed-forward: mixes cells and channels, and makes large numbers."""
    return 5 * torch.tanh(x + x.mean(1, keepdim=True)) + x.flip(-1) ** 2


def _branches() -> list[tuple]:
    """(h (B, Q, W), branch, before (W,), after (W,), scale (B, W), gate (B, W))."""
    sizes = ((2, 4, 6), (1, 9, 8), (3, 5, 4))
    return [
        (3 * _random(b, q, w, seed=k) + 1, _bend, 1 + 0.3 * _random(w, seed=k + 10), 1 + 0.3 * _random(w, seed=k + 20),
         _random(b, w, seed=k + 30), _random(b, w, seed=k + 40))
        for k, (b, q, w) in enumerate(sizes)
    ]  # fmt: skip


def _rms(x: Tensor, weight: Tensor) -> Tensor:
    return F.rms_norm(x, weight.shape, weight, dit.EPS)


def _layer(x: Tensor, weight: Tensor) -> Tensor:
    return F.layer_norm(x, weight.shape, weight, None, dit.EPS)


def _same(x: Tensor, weight: Tensor) -> Tensor:
    return x


def _sandwich(h, branch, before, after, scale, gate, *, first=_rms, last=_rms, one=1.0, weigh=torch.tanh, kept=1.0):
    """One branch with any of the usual slips."""
    scale, gate = scale[:, None], gate[:, None]  # (B, 1, W)
    return kept * h + weigh(gate) * last(branch(first(h, before) * (one + scale)), after)


def _after_the_sum(h, branch, before, after, scale, gate):
    return _rms(_sandwich(h, branch, before, after, scale, gate, last=_same), after)


sandwich = Exercise(
    "4.5", "sandwich", 15, _branches, _sandwich,
    (
        Slip(
            "you multiply by scale, not by 1 + scale: with a scale of zero the branch would see nothing.",
            lambda *case: _sandwich(*case, one=0.0),
        ),
        Slip(
            "the gate lacks its tanh: it must stay between −1 and 1.",
            lambda *case: _sandwich(*case, weigh=lambda gate: gate),
        ),
        Slip(
            "the norm after the branch is missing: the sandwich has a slice below and one on top.",
            lambda *case: _sandwich(*case, last=_same),
        ),
        Slip("the norm before the branch is missing.", lambda *case: _sandwich(*case, first=_same)),
        Slip(
            "your norms take the mean away. An RMS norm divides by the root of the mean square, and nothing else.",
            lambda *case: _sandwich(*case, first=_layer, last=_layer),
        ),
        Slip(
            "the way past the branch is missing: add what comes out of it to h.",
            lambda *case: _sandwich(*case, kept=0.0),
        ),
        Slip(
            "you normed the sum. The second norm belongs to what the branch says, before gate and sum.",
            _after_the_sum,
        ),
        Slip(
            "the two norms have each other's weights: `before` first, `after` last.",
            lambda h, branch, before, after, scale, gate: _sandwich(h, branch, after, before, scale, gate),
        ),
    ),
)  # fmt: skip
