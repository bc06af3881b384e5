"""What every picture starts from: its own random generator, and noise drawn on the CPU so that devices agree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

Generators = torch.Generator | Sequence[torch.Generator] | None


def generators(total: int, num_images: int, seed: int | None, generator: Generators) -> list[torch.Generator]:
    """One random generator per picture: the given ones, or seed, seed + 1, … for each prompt anew."""
    if isinstance(generator, torch.Generator):
        return [generator] * total
    if generator is not None:
        if len(generator) != total:
            raise ValueError(f"{len(generator)} generators were given for {total} pictures; give one for each")
        return list(generator)
    first = torch.seed() % 2**31 if seed is None else seed
    return [torch.Generator().manual_seed(first + k % num_images) for k in range(total)]


def noise(shape: tuple[int, ...], generators: Sequence[torch.Generator], like: Tensor) -> Tensor:
    """Standard normal noise (B, *shape), one generator per sample, drawn on the CPU and moved."""
    return torch.stack([torch.randn(shape, generator=g) for g in generators]).to(like)


def check_sampling(num_images: int, steps: int, guidance_scale: float, decoder_steps: int | None) -> None:
    """Raise ValueError on options that no sampler can follow."""
    for name, value in (("num_images", num_images), ("steps", steps), ("decoder_steps", decoder_steps or 1)):
        if value < 1:
            raise ValueError(f"{name} is {value}; expected 1 or more")
    if not np.isfinite(guidance_scale):
        raise ValueError(f"guidance_scale is {guidance_scale}; expected a finite number such as 3.0 (1 is off)")
