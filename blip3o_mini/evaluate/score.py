"""Scores with intervals: what a suite found out, as the numbers that are reported.

A yes-or-no score over n prompts gets Wilson's interval, which stays honest at 0 and 1:

    (p + z²/2n ± z √(p(1 − p)/n + z²/4n²)) / (1 + z²/n),  z = 1.96.

A mean of fractions gets a bootstrap interval over prompts. A mean of category means combines the categories'
intervals by adding the squares of their arms (Newcombe's method). Lesson 10.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Z = 1.96
BOOTSTRAPS = 2000
DIGITS = 4  # as many as n = 10,000 prompts could resolve


@dataclass(frozen=True)
class Marks:
    """What one suite found on one split: scores from 0 to 1, one per prompt, by category.

    `overall` replaces the pooled categories where these count something else than prompts;
    `is_mean_of_categories` makes every category weigh the same, however many prompts it has.
    """

    categories: dict[str, list[float]]
    baseline: float
    overall: list[float] | None = None
    is_mean_of_categories: bool = False

    def summary(self) -> dict:
        """{"mean", "low", "high", "n", "baseline", "categories": {name: {"mean", "low", "high", "n"}}}."""
        categories = {name: summarise(scores) for name, scores in self.categories.items() if scores}
        if self.is_mean_of_categories:
            total = mean_of_means([interval(scores) for scores in self.categories.values() if scores])
            total["n"] = sum(category["n"] for category in categories.values())
        else:
            pooled = [score for scores in self.categories.values() for score in scores]
            total = summarise(self.overall if self.overall is not None else pooled)
        return {**total, "baseline": round(float(self.baseline), DIGITS), "categories": categories}


def wilson(mean: float, n: int) -> tuple[float, float]:
    """95 % interval of a proportion `mean` observed over n trials."""
    middle = mean + Z**2 / (2 * n)
    arm = Z * np.sqrt(mean * (1 - mean) / n + Z**2 / (4 * n**2))
    low, high = (middle - arm) / (1 + Z**2 / n), (middle + arm) / (1 + Z**2 / n)
    return float(min(max(low, 0.0), mean)), float(max(min(high, 1.0), mean))


def bootstrap(scores: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean of `scores`: the middle of the means of many resampled sets."""
    scores = np.asarray(scores, float)
    rng = np.random.default_rng(0)
    means = scores[rng.integers(len(scores), size=(BOOTSTRAPS, len(scores)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def interval(scores: Sequence[float]) -> tuple[float, float, float]:
    """(mean, low, high) of scores, most of them between 0 and 1 (a share of variance may lie below)."""
    mean = float(np.mean(scores))
    # Scores that are all the same tell nothing to a bootstrap; Wilson's interval is on the safe side there.
    is_plain = set(scores) <= {0.0, 1.0} or (len(set(scores)) == 1 and 0 <= mean <= 1)
    return mean, *(wilson(mean, len(scores)) if is_plain else bootstrap(scores))


def summarise(scores: Sequence[float]) -> dict:
    """{"mean", "low", "high", "n"} of scores between 0 and 1."""
    return {**_rounded(*interval(scores)), "n": len(scores)}


def mean_of_means(intervals: Sequence[tuple[float, float, float]]) -> dict:
    """{"mean", "low", "high"} of the plain mean of independent (mean, low, high)."""
    means, lows, highs = np.array(intervals).T
    mean = means.mean()
    low = mean - np.sqrt(((means - lows) ** 2).sum()) / len(means)
    high = mean + np.sqrt(((highs - means) ** 2).sum()) / len(means)
    return _rounded(mean, max(low, 0.0), min(high, 1.0))


def _rounded(mean: float, low: float, high: float) -> dict:
    return {"mean": round(float(mean), DIGITS), "low": round(float(low), DIGITS), "high": round(float(high), DIGITS)}
