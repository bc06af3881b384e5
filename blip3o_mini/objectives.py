"""What each stage minimises besides the next-token cross-entropy of the backbone.

contrastive   −log softmax over the batch of the scaled cosine similarity, both ways (CLIP)
words         binary cross-entropy of the words that describe each cell
offset        ‖ guess − offset of the object inside its cell ‖²
flow          ‖ dit(x_sigma, sigma, condition) − (noise − features) ‖², condition dropped for some samples
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from . import flow


def contrastive_loss(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """CLIP's symmetric cross-entropy for embeddings (B, C); the k-th picture belongs to the k-th text."""
    logits = scale * F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T  # (B, B)
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def word_loss(logits: Tensor, words: Tensor, judged: Tensor | float = 1.0) -> Tensor:
    """Binary cross-entropy of the words of every cell (B, Q, words), summed over words, mean over cells.

    `judged` (B, 1, words) is 0 for words that a picture cannot tell, such as colours when it has none.
    """
    loss = F.binary_cross_entropy_with_logits(logits, words, reduction="none")
    return (loss * judged).sum(-1).mean()


def offset_loss(guess: Tensor, offsets: Tensor) -> Tensor:
    """Mean squared error of (x, y) offsets (B, Q, 2) inside the cells; empty cells hold NaN and do not count."""
    return (guess - offsets)[~offsets.isnan()].square().mean()


def flow_loss(
    dit, features: Tensor, condition: Tensor, generator: torch.Generator, *, source: Tensor | None = None,
    drop: float = 0.1, shift: float | None = None,
) -> Tensor:  # fmt: skip
    """Flow-matching loss of the DiT on features (B, Q, D) given condition (B, Q, H) (paper, CLIP + flow matching).

    A sample's whole condition becomes zero with probability `drop`, which teaches the null branch of
    guidance. `shift` is that of `flow.sample_sigma`. `generator` lives on the CPU.
    """
    noise = flow.sample_noise(features, generator)
    sigma = flow.sample_sigma(len(features), generator, shift=shift).to(features)
    condition = flow.drop_condition(condition, flow.sample_drop(len(features), drop, generator))
    velocity = dit(flow.interpolate(features, noise, sigma), flow.timestep(sigma), condition, source=source)
    return flow.loss(velocity, flow.velocity_target(features, noise))
