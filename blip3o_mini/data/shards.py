"""The little world as shards: pictures, captions, questions and edits, the same bytes from the same seed."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from .. import world
from .writing import write_shards


def build(out: str | Path, *, count: int, seed: int, shard_size: int = 1000, size: int = 72) -> str:
    """Write `count` scenes as shards; the same seed gives the same bytes. Returns a line that says so.

    Raises ValueError when there is nothing to write or the folder holds shards already.
    """
    if count < 1:
        raise ValueError(f"count is {count}; expected 1 or more")
    manifest = write_shards(scenes(count, seed, size), out, shard_size=shard_size)
    return f"{out}: {count} samples in {len(manifest)} shards of {size}×{size} px pictures"


def scenes(count: int, seed: int, size: int) -> Iterator[dict]:
    """Scenes as members of shards, each a function of the seed and its number."""
    for number in range(count):
        rng = np.random.default_rng([seed, 3, number])
        scene = world.sample_scene(rng)
        instruction, after, kind = world.edit(scene, rng)
        told = {
            "scene": dataclasses.asdict(scene), "questions": world.questions(scene, rng)[:3],
            "edit": {"instruction": instruction, "kind": kind, "after": dataclasses.asdict(after)},
        }  # fmt: skip
        picture = io.BytesIO()
        Image.fromarray(world.render([scene], size)[0]).save(picture, "PNG")
        yield {
            "__key__": f"{number:08d}", "png": picture.getvalue(), "txt": world.short_caption(scene, rng), "json": told,
        }  # fmt: skip
