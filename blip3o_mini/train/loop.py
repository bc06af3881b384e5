"""The training loop: a generator that takes a step and yields a record; whoever consumes it logs or stops.

AdamW with warm-up, a cosine to a floor, clipping, and averaged weights (EMA). Every batch and every random
number is a function of (seed, stage, step), so an interrupted run continues to the same weights, bit for
bit on one machine. Lesson 07.
"""

from __future__ import annotations

import ctypes
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from ..config import Recipe

Losses = dict[str, Tensor]  # "loss" is minimised, the others are only reported


def learning_rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up, then a cosine from lr down to floor · lr at the last step."""
    if step < recipe.warmup:
        return recipe.lr * (step + 1) / recipe.warmup
    share = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.lr * (recipe.floor + (1 - recipe.floor) * 0.5 * (1 + math.cos(math.pi * share)))


def random_for(seed: int, stage: str, step: int) -> tuple[np.random.Generator, torch.Generator]:
    """The random numbers of one step, the same whenever it is run."""
    key = [seed, *stage.encode(), step]
    rng = np.random.default_rng(key)
    return rng, torch_generator(rng)


def torch_generator(rng: np.random.Generator) -> torch.Generator:
    """A torch generator seeded by the next number of a numpy one."""
    return torch.Generator().manual_seed(int(rng.integers(2**62)))


class State:
    """All that a stage must remember to continue: weights, AdamW's moments, averaged weights, step."""

    def __init__(self, parameters: dict[str, nn.Parameter], recipe: Recipe):
        self.parameters, self.recipe, self.step = parameters, recipe, 0
        # The queries learn to read in the understanding stage. While the DiT is still random, its gradients say
        # nothing, but Adam makes steps of full size out of them: small steps keep what the queries know.
        queries = [p for name, p in parameters.items() if name.endswith("queries")]
        matrices = [p for name, p in parameters.items() if p.ndim >= 2 and not name.endswith("queries")]
        vectors = [p for name, p in parameters.items() if p.ndim < 2]
        groups = [
            {"params": matrices, "weight_decay": recipe.weight_decay, "share": 1.0},
            {"params": vectors, "weight_decay": 0.0, "share": 1.0},
            {"params": queries, "weight_decay": 0.0, "share": recipe.query_lr},
        ]
        groups = [group for group in groups if group["params"]]
        self.optimizer = torch.optim.AdamW(groups, lr=recipe.lr, betas=recipe.betas)
        self.average = {n: p.detach().clone() for n, p in parameters.items()} if recipe.ema else {}

    def tensors(self) -> dict[str, Tensor]:
        """Everything as one flat dictionary for a safetensors file."""
        found = {f"weight.{name}": p for name, p in self.parameters.items()}
        found |= {f"average.{name}": t for name, t in self.average.items()}
        for name, p in self.parameters.items():
            found |= {f"adam.{name}.{key}": t for key, t in self.optimizer.state.get(p, {}).items()}
        return found

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor], step: int) -> None:
        """Continue from a saved state; raises ValueError when it belongs to another model or recipe."""
        expected = {f"weight.{n}" for n in self.parameters} | {f"average.{n}" for n in self.average}
        if missing := expected - tensors.keys():
            raise ValueError(f"the saved training state lacks {sorted(missing)[0]}; start in an empty folder")
        for name, p in self.parameters.items():
            p.copy_(tensors[f"weight.{name}"])
            moments = {key.rsplit(".", 1)[1]: t for key, t in tensors.items() if key.startswith(f"adam.{name}.")}
            if moments:
                self.optimizer.state[p] = {k: t.to(p.device) if k != "step" else t for k, t in moments.items()}
            if name in self.average:
                self.average[name].copy_(tensors[f"average.{name}"])
        self.step = step

    @torch.no_grad()
    def finish(self) -> None:
        """Put the averaged weights in place of the last ones."""
        for name, average in self.average.items():
            self.parameters[name].copy_(average)


def train(state: State, losses_at: Callable[[int], Losses]) -> Iterator[dict]:
    """Take every remaining step and yield its record; `losses_at(step)` builds the batch and the losses.

    Raises FloatingPointError before the weights are touched when a loss or a gradient is not finite.
    """
    recipe, parameters = state.recipe, list(state.parameters.values())
    decay = recipe.ema
    while state.step < recipe.steps:
        step, start = state.step, time.perf_counter()
        lr = learning_rate(recipe, step)
        for group in state.optimizer.param_groups:
            group["lr"] = lr * group["share"]
        reported: dict[str, float] = {}
        for part in range(recipe.accumulate):
            losses = losses_at(step * recipe.accumulate + part)
            (losses["loss"] / recipe.accumulate).backward()
            for name, value in losses.items():
                reported[name] = reported.get(name, 0.0) + float(value.detach()) / recipe.accumulate
        norm = float(nn.utils.clip_grad_norm_(parameters, recipe.clip))
        if not math.isfinite(reported["loss"] + norm):
            raise FloatingPointError(
                f"step {step}: the loss is {reported['loss']} and the gradient norm {norm}; the weights of the "
                "step before are kept. Lower the learning rate or look at this batch"
            )
        state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)
        state.step += 1
        if decay:
            warm = min(decay, (1 + step) / (10 + step))  # a short memory while the weights still run
            with torch.no_grad():
                for name, average in state.average.items():
                    average.lerp_(state.parameters[name], 1 - warm)
        yield {"step": step, "lr": lr, "norm": norm, "seconds": time.perf_counter() - start, **reported}


@contextmanager
def fast_cpu() -> Iterator[None]:
    """Make small CPU training fast inside the block; this changes speed and matrix products' rounding only.

    Freed memory stays with the process, because page faults cost much beside the arithmetic of a small model;
    float32 matrix products round their inputs to bfloat16 where the processor can. footgun: the fused attention
    kernel turns many times slower under that setting, so attention runs as plain products.
    """
    if sys.platform == "linux":
        try:
            libc = ctypes.CDLL("libc.so.6")
            for option, value in ((-3, 1 << 30), (-1, (1 << 31) - 1), (-2, 1 << 28)):
                libc.mallopt(option, value)  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, M_TOP_PAD
        except OSError:
            pass  # another C library: slower, nothing else
    precision, is_fused = torch.backends.mkldnn.matmul.fp32_precision, torch.backends.cuda.flash_sdp_enabled()
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    torch.backends.cuda.enable_flash_sdp(False)  # despite its name, the CPU's fused kernel too
    try:
        yield
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = precision
        torch.backends.cuda.enable_flash_sdp(is_fused)
