"""Checks of lesson 10: what a prompt asserts, two intervals, a paired comparison, a detector's errors undone."""

from __future__ import annotations

from math import comb

import numpy as np

from ..evaluate import compare, score
from ..evaluate.geneval import RELATIONS, failures
from ..world.parse import Reading
from ..world.scene import Object, relation
from .exercise import Exercise, Slip

# ------------------------------------------------------------------ 10.1 passes


def _wanted(shape: str, colour: str | None = None, count: int = 1, position: tuple | None = None) -> dict:
    told = {"class": shape, "count": count}
    told |= {"color": colour} if colour else {}
    return told | ({"position": list(position)} if position else {})


def _facts(*include: dict, most: tuple[str, int] | None = None) -> dict:
    """Metadata; `most` is a shape and the number of it that is one too many."""
    facts = {"tag": "any", "include": list(include), "prompt": "…"}
    return facts | ({"exclude": [{"class": most[0], "count": most[1]}]} if most else {})


def _objects(*told: str) -> list[Object]:
    """ "red star 0 2": colour, shape, row, column."""
    words = (text.split() for text in told)
    return [Object(shape, colour, "large", int(row), int(column)) for colour, shape, row, column in words]


def _boards() -> list[tuple]:
    """(facts, objects): every kind of fact, each met and missed."""
    star, red = _facts(_wanted("star")), _facts(_wanted("star", "red"))
    both = _facts(_wanted("star", "red"), _wanted("heart", "blue"))
    two = _facts(_wanted("star", count=2), most=("star", 3))
    left = _facts(_wanted("star"), _wanted("heart", position=("left of", 0)))  # a heart left of a star
    above = _facts(_wanted("star", "red"), _wanted("heart", "blue", position=("above", 0)))
    return [
        (star, _objects("red star 0 0")),
        (star, _objects("red star 0 0", "blue star 1 1", "pink heart 2 2")),
        (star, _objects("red heart 0 0")),
        (red, _objects("blue star 0 0", "red star 2 2")),
        (red, _objects("blue star 0 0", "red heart 2 2")),
        (both, _objects("red star 0 0", "blue heart 1 0")),
        (both, _objects("blue star 0 0", "red heart 1 0")),
        (both, _objects("red star 0 0", "red heart 1 0")),
        (both, _objects("red star 0 0")),
        (two, _objects("red star 0 0", "blue star 1 0")),
        (two, _objects("red star 0 0")),
        (two, _objects("red star 0 0", "blue star 1 0", "red star 2 2")),
        (two, _objects("red star 0 0", "blue star 1 0", "red star 2 2", "pink star 0 2")),
        (left, _objects("pink heart 1 0", "red star 1 2")),
        (left, _objects("red star 1 0", "pink heart 1 2")),
        (left, _objects("pink heart 0 1", "red star 2 1")),
        (left, _objects("red star 0 0", "pink heart 1 1", "red star 2 2")),
        (above, _objects("blue heart 0 1", "red star 2 1")),
        (above, _objects("pink heart 0 1", "red star 1 1", "blue heart 2 1")),
        (above, _objects("blue heart 0 1", "pink star 2 1")),
    ]


def _passes(
    facts: dict, objects: list[Object], *, is_exact=False, is_loose=False, has_exclude=True, has_position=True,
    is_turned=False, is_first=False, more=0, has_strangers=True, has_count=True,
) -> bool:  # fmt: skip
    """The checker, with any of the usual slips."""
    fitting: list[list[Object]] = []
    for wanted in facts["include"]:
        colour = wanted.get("color")
        fits = [o for o in objects if o.shape == wanted["class"] and (is_loose or colour in (None, o.colour))]
        fitting.append(fits)
        least = wanted["count"] if has_count else 1
        if len(fits) != least if is_exact else len(fits) < least:
            return False
        if is_loose and colour and colour not in [o.colour for o in objects]:
            return False
        if "position" in wanted and has_position:
            name, target = wanted["position"]
            pairs = [(a, b) for a in fits for b in fitting[target]][: 1 if is_first else None]
            if not any(RELATIONS[name] in (relation(b, a) if is_turned else relation(a, b)) for a, b in pairs):
                return False
    asked = {wanted["class"] for wanted in facts["include"]}
    if not has_strangers and any(o.shape not in asked for o in objects):
        return False
    unwanted = facts.get("exclude", []) if has_exclude else []
    return not any(sum(o.shape == one["class"] for o in objects) >= one["count"] + more for one in unwanted)


def _by_package(facts: dict, objects: list[Object]) -> bool:
    return not failures(facts, Reading(tuple(objects), "white", 0))


passes = Exercise(
    "10.1", "passes", 20, _boards, _by_package,
    (
        Slip(
            "colour and shape are looked for apart: somewhere a star and somewhere something red is not a red star. "
            "One and the same object must have both.",
            lambda *case: _passes(*case, is_loose=True),
        ),
        Slip(
            "you ask for exactly `count` objects. An included fact says \"at least\"; `exclude` says \"not more\".",
            lambda *case: _passes(*case, is_exact=True),
        ),
        Slip(
            "you never look at `exclude`: a prompt for two stars would accept three.",
            lambda *case: _passes(*case, has_exclude=False),
        ),
        Slip(
            "`exclude` forbids its count as well: with count 3, three are already too many.",
            lambda *case: _passes(*case, more=1),
        ),
        Slip(
            "the relation is the wrong way round: the entry that has the position stands left of (or above …) the "
            "entry that the position names.",
            lambda *case: _passes(*case, is_turned=True),
        ),
        Slip(
            "you never look at `position`.",
            lambda *case: _passes(*case, has_position=False),
        ),
        Slip(
            "you compare the first pair only. If any fitting pair stands so, the fact holds.",
            lambda *case: _passes(*case, is_first=True),
        ),
        Slip(
            "one object is enough for you where the fact says how many: compare with `count`.",
            lambda *case: _passes(*case, has_count=False),
        ),
        Slip(
            "you punish objects that nobody asked for. A prompt asserts what is there, and is silent on the rest.",
            lambda *case: _passes(*case, has_strangers=False),
        ),
    ),
)  # fmt: skip


# ------------------------------------------------------------------ 10.2 wilson


def _shares() -> list[tuple]:
    return [(0.5, 100), (0.9, 50), (0.0, 10), (1.0, 20), (0.25, 400), (0.6, 5)]


def _wilson(mean: float, n: int, *, z=score.Z, is_shrunk=True, has_square=True, is_moved=True) -> tuple[float, float]:
    middle = mean + (z**2 / (2 * n) if is_moved else 0)
    arm = z * np.sqrt(mean * (1 - mean) / n + has_square * z**2 / (4 * n**2))
    whole = 1 + z**2 / n if is_shrunk else 1
    return float((middle - arm) / whole), float((middle + arm) / whole)


def _wald(mean: float, n: int, *, is_clipped=False, z=score.Z) -> tuple[float, float]:
    arm = z * (mean * (1 - mean) / n) ** 0.5
    low, high = mean - arm, mean + arm
    return (max(low, 0.0), min(high, 1.0)) if is_clipped else (low, high)


wilson = Exercise(
    "10.2", "wilson", 10, _shares, score.wilson,
    (
        Slip(
            "that is the textbook interval, mean ± z √(p(1 − p)/n). At 0 and 1 it has no width.",
            _wald,
        ),
        Slip(
            "that is the textbook interval, cut at 0 and 1. At 0 and 1 it still has no width.",
            lambda mean, n: _wald(mean, n, is_clipped=True),
        ),
        Slip(
            "you forgot to divide by 1 + z²/n.",
            lambda mean, n: _wilson(mean, n, is_shrunk=False),
        ),
        Slip(
            "the middle is not the mean: it moves towards one half, by z²/2n before the division.",
            lambda mean, n: _wilson(mean, n, is_moved=False),
        ),
        Slip(
            "the second term below the root is missing: z²/4n².",
            lambda mean, n: _wilson(mean, n, has_square=False),
        ),
        Slip(
            "that is a 90 % interval: z is 1.96 here, not 1.645.",
            lambda mean, n: _wilson(mean, n, z=1.645),
        ),
    ),
)  # fmt: skip


# ------------------------------------------------------------------ 10.3 bootstrap


def _samples() -> list[tuple]:
    """(scores (n,), drawn (R, n)); also uneven scores, whose interval leans to one side."""
    rng = np.random.default_rng(3)
    some = [rng.integers(0, 5, 12) / 4, rng.beta(5, 1, 40), rng.random(7) ** 4]
    return [(scores, rng.integers(len(scores), size=(500, len(scores)))) for scores in some]


def _means(scores: np.ndarray, drawn: np.ndarray, axis: int = 1) -> np.ndarray:
    return np.asarray(scores)[drawn].mean(axis)


def _between(values: np.ndarray, low: float = 0.025, high: float = 0.975) -> tuple[float, float]:
    found = np.quantile(values, [low, high])
    return float(found[0]), float(found[1])


def _around(middle: float, arm: float) -> tuple[float, float]:
    return float(middle - arm), float(middle + arm)


bootstrap = Exercise(
    "10.3", "bootstrap", 10, _samples, lambda scores, drawn: _between(_means(scores, drawn)),
    (
        Slip(
            "that is where 95 % of the single scores lie. The question is where the mean lies: one per drawn exam.",
            lambda scores, drawn: _between(scores),
        ),
        Slip(
            "the mean runs over the wrong axis. Each row of `drawn` is one exam.",
            lambda scores, drawn: _between(_means(scores, drawn, 0)),
        ),
        Slip(
            "you cut off 5 % at each end, which leaves 90 %. Take the quantiles 0.025 and 0.975.",
            lambda scores, drawn: _between(_means(scores, drawn), 0.05, 0.95),
        ),
        Slip(
            "that is symmetric: mean ± 1.96 standard deviations of the drawn means. Quantiles may lean to one side.",
            lambda scores, drawn: _around(np.mean(scores), 1.96 * _means(scores, drawn).std()),
        ),
        Slip(
            "1.96 standard deviations of the scores tell where single scores lie, not where their mean does.",
            lambda scores, drawn: _around(np.mean(scores), 1.96 * np.std(scores)),
        ),
        Slip(
            "high and low have changed places.",
            lambda scores, drawn: _between(_means(scores, drawn))[::-1],
        ),
    ),
)  # fmt: skip


# ------------------------------------------------------------------ 10.4 sign_test


def _marks() -> list[tuple]:
    """(a, b): marks of the same prompts; wins and losses of b, and many ties."""
    counts = ((9, 2, 20), (2, 9, 20), (3, 3, 4), (5, 0, 1), (0, 0, 6), (14, 6, 60))
    return [
        ([0.0] * wins + [1.0] * losses + [1.0] * ties, [1.0] * wins + [0.0] * losses + [1.0] * ties)
        for wins, losses, ties in counts
    ]


def _split(a, b, *, has_ties=False, sides=2, is_one_outcome=False, is_signed=False, is_beyond=False) -> float:
    """The sign test, with any of the usual slips."""
    wins, losses = sum(y > x for x, y in zip(a, b)), sum(y < x for x, y in zip(a, b))
    n = len(a) if has_ties else wins + losses
    most = wins if is_signed else max(wins, losses)
    tail = sum(comb(n, k) for k in range(most + is_beyond, most + 1 if is_one_outcome else n + 1)) / 2**n
    return min(1.0, sides * tail)


sign_test = Exercise(
    "10.4", "sign_test", 15, _marks, compare.sign_test,
    (
        Slip(
            "you count the prompts on which both do the same as coins. They say nothing about which is better: leave "
            "them out.",
            lambda a, b: _split(a, b, has_ties=True),
        ),
        Slip(
            "that is one side only. Before you looked, either of the two could have been better: twice the tail.",
            lambda a, b: _split(a, b, sides=1),
        ),
        Slip(
            "that is the chance of exactly this split. Ask for a split at least as uneven: sum the whole tail.",
            lambda a, b: _split(a, b, is_one_outcome=True),
        ),
        Slip(
            "your tail begins behind the split that was observed. It belongs to the tail.",
            lambda a, b: _split(a, b, is_beyond=True),
        ),
        Slip(
            "your tail always begins at the wins of b. When b loses more often, begin at its losses.",
            lambda a, b: _split(a, b, is_signed=True),
        ),
    ),
)  # fmt: skip


# ------------------------------------------------------------------ 10.5 corrected


def _readings() -> list[tuple]:
    """(observed, hits, alarms); the last two would leave 0…1 without a limit."""
    return [(0.5, 0.9, 0.1), (0.62, 0.83, 0.0), (0.3, 0.95, 0.2), (0.99, 0.9, 0.02), (0.01, 0.9, 0.05)]


corrected = Exercise(
    "10.5", "corrected", 10, _readings, compare.corrected,
    (
        Slip(
            "that is the way there: what a true score looks like through the detector. You need the way back.",
            lambda observed, hits, alarms: observed * hits + (1 - observed) * alarms,
        ),
        Slip(
            "you divided by the hits only. Wrong pictures that pass are in the observed score, too.",
            lambda observed, hits, alarms: min(observed / hits, 1.0),
        ),
        Slip(
            "you took the false alarms away, but then divided by the hits. Between a score of 0 and of 1 the observed "
            "one moves by hits − alarms.",
            lambda observed, hits, alarms: min(max((observed - alarms) / hits, 0.0), 1.0),
        ),
        Slip(
            "you swapped hits and false alarms below the line.",
            lambda observed, hits, alarms: (observed - alarms) / (alarms - hits),
        ),
        Slip(
            "a share lies between 0 and 1. Chance can carry an observed score outside of what is possible; cut it off.",
            lambda observed, hits, alarms: (observed - alarms) / (hits - alarms),
        ),
    ),
)  # fmt: skip
