"""The order in which samples are met: a pure function of (seed, lane, pass), so that a few integers say where one is.

A stream is cut into lanes. Every pass deals all shards, in a new order, to the lanes (a shard is shared by
several lanes when there are too few); a lane reads its shards one after another and shuffles within blocks.
A reservoir would mix a little further, but what it holds depends on everything read before; a block can be
read again. Lesson 11.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np

from .opening import Source
from .records import Record, read

BLOCK_BYTES = 64 * 2**20  # a block ends here too: memory stays bounded whatever the pictures weigh
BARREN_PASSES = 100


class Place(NamedTuple):
    """Where a lane stands: pass, shard of this pass, record of this shard where a block begins, sample of the block."""

    turn: int = 0
    shard: int = 0
    record: int = 0
    sample: int = 0


START = Place()


class Piece(NamedTuple):
    """Every `of`-th record of a shard, from number `part` on."""

    shard: str
    part: int
    of: int


def deal(source: Source, *, seed: int, turn: int, lane: int, lanes: int, shuffle: int) -> list[Piece]:
    """The pieces that a lane reads in a pass: over all lanes every record once."""
    of = -(-lanes // len(source.shards))
    pieces = [Piece(shard, part, of) for shard in source.shards for part in range(of)]
    order = np.random.default_rng([seed, 11, turn]).permutation(len(pieces)) if shuffle else range(len(pieces))
    return [pieces[k] for k in order[lane::lanes]]


def blocks(pieces: list[Piece], kind: str, place: Place, most: int) -> Iterator[tuple[list, Place, Place]]:
    """Blocks of at most `most` (record, number in its shard), from `place` on, each with where it begins and ends."""
    block, weight = [], 0
    begin = end = place._replace(sample=0)
    for index in range(place.shard, len(pieces)):
        shard, part, of = pieces[index]
        first = place.record if index == place.shard else 0
        numbered = islice(enumerate(read(shard, kind)), part + first * of, None, of)
        for record, (number, found) in enumerate(numbered, first + 1):
            block.append((found, number))
            weight += found.size
            end = Place(place.turn, index, record)
            if len(block) == most or weight >= BLOCK_BYTES:
                yield block, begin, end
                block, weight, begin = [], 0, end
    if block:
        yield block, begin, Place(place.turn, len(pieces))


def walk(
    source: Source, *, seed: int = 0, lane: int = 0, lanes: int = 1, shuffle: int = 0, passes: int | None = 1,
    place: Place = START,
) -> Iterator[tuple[Record, int, Place]]:  # fmt: skip
    """Yield every record of a lane, its number in its shard, and the place from which to go on behind it.

    `shuffle` is the size of a block, 0 keeps the order; `passes` None goes on for ever.
    Raises ValueError when a lane finds nothing in many passes.
    """
    barren = 0  # passes: a lane may get an empty part of a small shard now and then
    while passes is None or place.turn < passes:
        pieces = deal(source, seed=seed, turn=place.turn, lane=lane, lanes=lanes, shuffle=shuffle)
        for block, begin, end in blocks(pieces, source.kind, place, max(1, shuffle)):
            barren = -1
            key = [seed, 12, lane, *begin[:3]]
            order = np.random.default_rng(key).permutation(len(block)) if shuffle else range(len(block))
            for sample in range(place.sample, len(block)):
                here = begin._replace(sample=sample + 1)
                yield *block[order[sample]], here if sample + 1 < len(block) else end
            place = end
        place, barren = Place(place.turn + 1), barren + 1
        if barren == BARREN_PASSES:
            raise ValueError(
                f"{source.name} has nothing for lane {lane} of {lanes} in {barren} passes; "
                "choose fewer lanes or give more data"
            )
