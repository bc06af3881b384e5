"""Comparisons: pairs are kept together, ties count for nothing, and a known detector's errors are undone."""

import numpy as np
import pytest
from scipy import stats

from blip3o_mini.evaluate import compare, score


def test_difference_is_taken_prompt_by_prompt():
    rng = np.random.default_rng(0)
    a = (rng.random(200) < 0.6).astype(float)
    b = np.where(rng.random(200) < 0.9, a, 1 - a)
    mean, low, high = compare.difference(a, b)
    assert mean == pytest.approx(b.mean() - a.mean()) and low <= mean <= high
    arms = [np.subtract(*score.wilson(x.mean(), 200)[::-1]) for x in (a, b)]
    assert high - low < 0.7 * np.hypot(*arms)  # two separate exams would tell less
    assert compare.difference(a, a) == (0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="same prompts"):
        compare.difference(a, b[:-1])


def test_intervals_of_differences_cover_the_truth():
    rng, covered = np.random.default_rng(0), 0
    for _ in range(300):
        level = rng.random(80)
        a, b = (level < 0.5).astype(float), (level + 0.2 * rng.standard_normal(80) < 0.6).astype(float)
        truth = np.mean([(x + 0.2 * rng.standard_normal(400) < 0.6).mean() for x in np.linspace(0, 1, 400)]) - 0.5
        _, low, high = compare.difference(a, b)
        covered += low <= truth <= high
    assert 0.9 <= covered / 300 <= 0.99


@pytest.mark.parametrize(
    ("wins", "losses", "ties"), [(0, 0, 5), (1, 0, 0), (3, 3, 2), (9, 2, 40), (2, 9, 0), (40, 60, 1)]
)
def test_sign_test_is_scipys_binomial_test(wins, losses, ties):
    a, b = [0] * wins + [1] * losses + [1] * ties, [1] * wins + [0] * losses + [1] * ties
    expected = stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert compare.sign_test(a, b) == pytest.approx(expected)
    assert compare.sign_test(b, a) == pytest.approx(expected)


@pytest.mark.parametrize("true", [0.0, 0.3, 1.0])
def test_a_known_detectors_errors_are_undone(true):
    hits, alarms = 0.9, 0.05
    assert compare.corrected(true * hits + (1 - true) * alarms, hits, alarms) == pytest.approx(true)


def test_a_corrected_score_is_a_share():
    assert compare.corrected(0.99, 0.9, 0.0) == 1.0 and compare.corrected(0.01, 0.9, 0.05) == 0.0
    with pytest.raises(ValueError, match="tells nothing"):
        compare.corrected(0.5, 0.4, 0.6)
