"""Samples without end from any mixture of sources, for any number of processes, continued where they stopped.

Sample s of the whole run comes from lane s mod `lanes`. Process r of n reads the lanes r, r + n, …, its DataLoader
workers share these, and everybody takes turns: where `lanes` is a multiple of processes × workers, the batches of
a run are the same on any number of them. A place in the stream is a handful of integers for every lane.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from .mixture import Draw, Lane, Recipe
from .records import Fault
from .samples import Sample

AHEAD = 8  # samples that a worker prepares before they are asked for


class _Turns(IterableDataset):
    """Lanes that take turns, in this process or shared among the workers of a DataLoader."""

    def __init__(self, recipe: Recipe, states: list[tuple[int, list[int] | None]]):
        self.recipe, self.states = recipe, states

    def __iter__(self) -> Iterator[Draw]:
        worker = get_worker_info()
        states = self.states[worker.id :: worker.num_workers] if worker else self.states
        lanes = [Lane(self.recipe, number, state) for number, state in states]
        while lanes:
            for lane in list(lanes):
                try:
                    drawn = lane.draw()
                except ValueError as error:  # from a worker it would come back wrapped in a traceback
                    drawn = Draw(lane.number, lane.state, None, [], str(error))
                yield drawn
                if drawn.sample is None:
                    lanes.remove(lane)


class Stream:
    """Iterate over the samples of one process; `report` is called with every fault, `counts` adds everything up.

    Iterating again, or after `load_state_dict`, goes on behind the last sample that was given.
    Raises ValueError when more than the limit cannot be used.
    """

    def __init__(
        self, recipe: Recipe, *, report: Callable[[Fault], object], rank: int = 0, world: int = 1, workers: int = 0
    ):
        own = len(range(rank, recipe.lanes, world))
        if not 0 <= rank < world or not own:
            raise ValueError(f"rank {rank} of {world} has none of {recipe.lanes} lanes; choose lanes={world} or more")
        if workers and own % workers:
            raise ValueError(
                f"rank {rank} of {world} has {own} of {recipe.lanes} lanes, which {workers} workers cannot share "
                f"evenly; choose lanes={world * workers} or a multiple of it"
            )
        self.recipe, self.report, self.workers = recipe, report, workers
        self.states: dict[int, list[int] | None] = dict.fromkeys(range(rank, recipe.lanes, world))
        self.counts: Counter[str] = Counter()  # "samples", then kinds of faults and of mending
        self.faults = 0

    def __iter__(self) -> Iterator[Sample]:
        for drawn in self._draws():
            self.states[drawn.lane] = drawn.state
            for fault in drawn.faults:
                self.counts[fault.kind] += 1
                self.faults += 1
                self.report(fault)
            if drawn.error:
                raise ValueError(drawn.error)
            if drawn.sample:
                self.counts.update(("samples", *drawn.sample.mended))
                yield drawn.sample

    def _draws(self) -> Iterator[Draw]:
        """Draws of the own lanes, beginning with the one whose turn it is: it has given the least so far."""
        states = sorted(self.states.items(), key=lambda item: (item[1][0] if item[1] else 0, item[0]))
        turns = _Turns(self.recipe, states)
        if not self.workers:
            return iter(turns)
        # A generator of its own, or each loader would take a number from the global one.
        own = torch.Generator().manual_seed(self.recipe.seed)
        options = {"num_workers": self.workers, "prefetch_factor": AHEAD, "generator": own}
        return iter(DataLoader(turns, batch_size=None, collate_fn=_same, **options))

    def state_dict(self) -> dict:
        """Where this process stands, fit for JSON; the states of several processes are merged by `merge_states`."""
        return {"data": self.recipe.fingerprint, "lanes": {str(n): list(s) for n, s in self.states.items() if s}}

    def load_state_dict(self, state: dict) -> None:
        """Go on from there. Raises ValueError when the state belongs to other data or another recipe."""
        if state["data"] != self.recipe.fingerprint:
            raise ValueError(
                "the saved place in the data belongs to other shards or to another seed, weights, lanes or shuffle; "
                "restore them, or begin in an empty folder"
            )
        self.states = {number: state["lanes"].get(str(number)) for number in self.states}


def _same(drawn: Draw) -> Draw:
    return drawn


def merge_states(states: Sequence[dict]) -> dict:
    """The states of all processes as one, from which any number of processes can go on."""
    if len({state["data"] for state in states}) != 1:
        raise ValueError("the states to merge belong to different data")
    return {**states[0], "lanes": {number: place for state in states for number, place in state["lanes"].items()}}


class Captioned(NamedTuple):
    """A batch: pictures with their captions, or features (B, Q, D) in place of the pictures."""

    captions: list[str]
    images: list
    features: Tensor | None


class Batches:
    """The batch of every step, in the order of steps: what a training stage asks for in its `losses_at(step)`.

    A pure function of recipe and step that cannot jump: saved at a step, it continues with the next one.
    """

    def __init__(self, stream: Stream, size: int):
        self.stream, self.size, self.step = stream, size, 0
        self._samples: Iterator[Sample] | None = None

    def at(self, step: int) -> Captioned:
        """The batch of a step. Raises ValueError when it is not the next one or the data ends."""
        if step != self.step:
            raise ValueError(f"step {step} was asked for, but the data stands before step {self.step}; load its state")
        self._samples = self._samples or iter(self.stream)
        samples = list(islice(self._samples, self.size))
        if len(samples) < self.size:
            raise ValueError(f"the data ended before step {step}; choose passes=None to go on for ever")
        self.step += 1
        features = torch.stack([s.features for s in samples]) if self.stream.recipe.is_cached else None
        return Captioned([s.caption for s in samples], [s.image for s in samples], features)

    def state_dict(self) -> dict:
        return {"step": self.step, **self.stream.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        self.stream.load_state_dict(state)
        self.step, self._samples = int(state["step"]), None


def fault_log(path: Path) -> Callable[[Fault], None]:
    """A `report` that appends every fault to a file, one JSON object per line."""
    path.parent.mkdir(parents=True, exist_ok=True)

    def report(fault: Fault) -> None:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(fault._asdict(), ensure_ascii=True) + "\n")

    return report
