"""A mixture of sources, cut into lanes: which source gives the next sample, and what is wrong with the others."""

from __future__ import annotations

import hashlib
import json
from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .features import FeatureRows
from .opening import Source
from .order import Place, walk
from .records import Fault, Record
from .samples import Sample, judge, judge_caption

GRACE = 20  # faults that are forgiven before their share is looked at


@dataclass(frozen=True)
class Recipe:
    """What is read and in which order.

    weights: shares of the sources; lanes: parts read side by side; shuffle: samples per block of a lane, all that is
    kept in memory (0: no shuffling); passes: over every source, None for ever; size: side of the middle square that
    is cut from every picture, None for whole pictures; limit: share of faults at which reading stops;
    is_cached: give the features that lie beside the shards, without decoding a picture.
    """

    sources: tuple[Source, ...]
    weights: tuple[float, ...] = ()
    seed: int = 0
    lanes: int = 8
    shuffle: int = 256
    passes: int | None = None
    size: int | None = None
    limit: float = 0.05
    is_cached: bool = False

    def __post_init__(self):
        if not self.sources:
            raise ValueError("there is no source to read from; name at least one")
        if not self.weights:
            object.__setattr__(self, "weights", (1.0,) * len(self.sources))
        if len(self.weights) != len(self.sources):
            raise ValueError(f"{len(self.sources)} sources have {len(self.weights)} weights; give one to each")
        if not all(0 < weight < float("inf") for weight in self.weights):
            raise ValueError(f"the weights are {self.weights}; expected positive numbers")
        if self.lanes < 1 or self.shuffle < 0:
            raise ValueError(f"lanes is {self.lanes} and shuffle {self.shuffle}; expected at least 1 and 0")

    @property
    def fingerprint(self) -> str:
        """Equal for recipes that meet the same samples in the same order; folders may have moved."""
        told = [self.seed, self.lanes, self.shuffle, self.weights]
        told += [[source.kind, [Path(shard).name for shard in source.shards]] for source in self.sources]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


class Draw(NamedTuple):
    """What a lane gives when it is its turn: where it then stands, a sample (None at its end), faults on the way."""

    lane: int
    state: list[int]
    sample: Sample | None
    faults: list[Fault]
    error: str | None = None


class Lane:
    """One lane of a mixture. Its state: samples given, faults met, and its place in each source."""

    def __init__(self, recipe: Recipe, number: int, state: Sequence[int] | None = None):
        self.recipe, self.number = recipe, number
        self.given, self.faults, *rest = state or [0] * (2 + 4 * len(recipe.sources))
        self.places = [Place(*rest[k : k + 4]) for k in range(0, len(rest), 4)]
        self.walks = [
            walk(
                source, seed=recipe.seed, lane=number, lanes=recipe.lanes, shuffle=recipe.shuffle,
                passes=recipe.passes, place=place,
            )
            for source, place in zip(recipe.sources, self.places)
        ]  # fmt: skip
        self.open = list(range(len(recipe.sources)))
        self.rows = FeatureRows()

    @property
    def state(self) -> list[int]:
        return [self.given, self.faults, *(number for place in self.places for number in place)]

    def draw(self) -> Draw:
        """The next sample; the source is drawn anew for every sample, by its weight."""
        faults: list[Fault] = []
        chance = np.random.default_rng([self.recipe.seed, 13, self.number, self.given]).random()
        while self.open:
            chosen = self._choose(chance)
            try:
                record, number, self.places[chosen] = next(self.walks[chosen])
            except StopIteration:
                self.open.remove(chosen)
                continue
            found = self._judge(record, number)
            if isinstance(found, Sample):
                self.given += 1
                return Draw(self.number, self.state, found, faults)
            faults.append(found)
            self.faults += 1
            if error := objection(self.given, self.faults, self.recipe.limit, found):
                return Draw(self.number, self.state, None, faults, error)
        return Draw(self.number, self.state, None, faults)

    def _choose(self, chance: float) -> int:
        bounds = list(accumulate(self.recipe.weights[k] for k in self.open))
        return self.open[min(bisect(bounds, chance * bounds[-1]), len(self.open) - 1)]

    def _judge(self, record: Record, number: int) -> Sample | Fault:
        if self.recipe.is_cached:
            return judge_caption(record, None if record.fault else self.rows.row(record.file, number))
        return judge(record, size=self.recipe.size)


def objection(given: int, faults: int, limit: float, last: Fault) -> str | None:
    """A sentence when the share of faults is over the limit."""
    met = given + faults
    if faults <= (GRACE if limit else 0) + limit * met:
        return None
    return (
        f"{faults} of {met} samples cannot be used, more than the limit of {limit:.1%}; the last one: {last}. "
        "Mend the data (blip3o-mini data inspect lists all faults) or raise the limit"
    )
