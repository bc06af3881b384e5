"""Features of pictures beside their shards: 000000.tar ↔ 000000.safetensors, row by row. Lesson 11.

The vision part is frozen after its stage, so its features of a picture never change: computed once, they spare
every later stage the decoding and the tower.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from .records import read
from .samples import Sample, judge

BATCH = 32


def features_path(shard: str | Path) -> Path:
    return Path(shard).with_suffix(".safetensors")


@torch.no_grad()
def write_features(shard: str | Path, encode: Callable[[Sequence[Image.Image]], Tensor], name: str) -> tuple[int, ...]:
    """Write the features (n, Q, D) of a shard whose n samples are all sound; return their shape.

    `name` of the checkpoint is kept in the file. Raises ValueError when a sample cannot be used.
    """
    from safetensors.torch import save_file

    found, images = [], []

    def flush() -> None:
        found.append(encode(images).cpu())
        images.clear()

    for record in read(str(shard), "tar"):
        sample = judge(record)
        if not isinstance(sample, Sample):
            raise ValueError(f"{sample}; features are computed of sound shards only: rebuild them from this folder")
        images.append(sample.image)
        if len(images) == BATCH:
            flush()
    if images:
        flush()
    features = torch.cat(found)
    save_file({"features": features.contiguous()}, features_path(shard), metadata={"checkpoint": name})
    return tuple(features.shape)


class FeatureRows:
    """Rows of feature files; the newest few files stay open, a row is read when it is asked for."""

    def __init__(self, most: int = 4):
        self.most, self.files = most, {}

    def row(self, shard: str, number: int) -> Tensor:
        """Features (Q, D) of a sample. Raises ValueError when the shard has none."""
        if shard not in self.files:
            self.files[shard] = _open(shard)
            while len(self.files) > self.most:
                self.files.pop(next(iter(self.files)))
        rows = self.files[shard]
        if number >= rows.get_shape()[0]:
            found = rows.get_shape()[0]
            raise ValueError(f"{features_path(shard)} has {found} rows, fewer than its shard; build it anew")
        return rows[number]


def _open(shard: str):
    from safetensors import safe_open

    path = features_path(shard)
    if not path.is_file():
        raise ValueError(f"there are no features beside {shard}; make them with blip3o-mini data build --features")
    return safe_open(path, "pt").get_slice("features")
