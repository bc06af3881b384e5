"""Two models on the same prompts, and scores read by a detector that errs.

Marks of the same prompts go up and down together, so the difference is taken prompt by prompt:

    difference = mean(b − a),  interval by resampling prompts;  p-value of the sign test over the prompts that differ.

A detector that passes a share `hits` of right pictures and `alarms` of wrong ones reports, instead of p,
observed = p · hits + (1 − p) · alarms; `corrected` solves this for p (Rogan and Gladen's estimate). Lesson 10.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

import numpy as np

from .score import bootstrap


def difference(a: Sequence[float], b: Sequence[float]) -> tuple[float, float, float]:
    """(mean, low, high) of b − a, prompt by prompt, with a 95 % interval; ValueError when the lengths differ."""
    if len(a) != len(b):
        raise ValueError(f"{len(a)} marks cannot be paired with {len(b)}; score both models on the same prompts")
    gain = np.asarray(b, float) - np.asarray(a, float)
    return float(gain.mean()), *bootstrap(gain)


def sign_test(a: Sequence[float], b: Sequence[float]) -> float:
    """p-value, two-sided: how often fair coins would split the prompts that differ as unevenly as a and b do."""
    wins = sum(y > x for x, y in zip(a, b, strict=True))
    losses = sum(y < x for x, y in zip(a, b, strict=True))
    n = wins + losses
    tail = sum(comb(n, k) for k in range(max(wins, losses), n + 1)) / 2**n
    return min(1.0, 2 * tail)


def corrected(observed: float, hits: float, alarms: float) -> float:
    """The share of right pictures behind an observed score; ValueError for a detector that tells nothing."""
    if hits <= alarms:
        raise ValueError(f"a detector that passes {hits} of the right and {alarms} of the wrong pictures tells nothing")
    return min(max((observed - alarms) / (hits - alarms), 0.0), 1.0)
