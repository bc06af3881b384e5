"""A pool of scenes, each with one edited version; frozen parts see every picture of it only once.

The vision tower is frozen after its stage, so the features of a picture never change: they are
computed once, kept in memory and on disk, and every later stage draws its samples from them.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from .. import world
from ..vision import to_tensor


class Pool:
    """`size` scenes without held-out combinations, drawn from a seed, with an edit of each.

    scenes[i] becomes after[i] by instructions[i]; words and after_words (size, Q, words) tell what stands in
    each cell; features and after_features are (size, Q, D) once `encode` has run.
    """

    def __init__(self, size: int, seed: int):
        rng = np.random.default_rng([seed, 1])
        self.size, self.seed = size, seed
        self.scenes = [world.sample_scene(rng) for _ in range(size)]
        edits = [world.edit(scene, rng) for scene in self.scenes]
        self.instructions = [instruction for instruction, _, _ in edits]
        self.after = [after for _, after, _ in edits]
        self.words = torch.from_numpy(world.cell_words(self.scenes))
        self.after_words = torch.from_numpy(world.cell_words(self.after))
        self.features: Tensor | None = None
        self.after_features: Tensor | None = None

    @torch.no_grad()
    def encode(self, vision, *, cache: Path | None = None, key: str = "", progress: bool = False) -> None:
        """Fill the features, from `cache` when it was written with the same key, else by the tower."""
        from safetensors import safe_open
        from safetensors.torch import save_file

        key = f"{key}/{self.seed}/{self.size}"
        if cache is not None and cache.exists():
            with safe_open(cache, "pt") as file:
                if (file.metadata() or {}).get("key") == key:
                    self.features, self.after_features = file.get_tensor("features"), file.get_tensor("after")
                    return
        device = next(vision.parameters()).device
        halves = []
        for scenes in (self.scenes, self.after):
            chunks = range(0, len(scenes), 256)
            bar = tqdm(chunks, desc="features of the pool", unit="batch", disable=not progress)
            found = [vision(to_tensor(world.render(scenes[i : i + 256])).to(device)).cpu() for i in bar]
            halves.append(torch.cat(found))
        self.features, self.after_features = halves
        if cache is not None:
            partial = cache.with_suffix(f".{os.getpid()}.partial")
            save_file({"features": halves[0], "after": halves[1]}, partial, metadata={"key": key})
            os.replace(partial, cache)
