"""What each stage minimises: contrastive and captioning losses, next-token loss, flow matching.

contrastive   −log softmax over the batch of the scaled cosine similarity, both ways (CLIP)
next token    −log p(id | ids before), averaged over what the assistant says
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


def next_token_loss(logits: Tensor, ids: Tensor, weight: Tensor) -> Tensor:
    """Mean cross-entropy of ids[:, 1:] under logits[:, :-1], over the places where weight[:, 1:] is 1."""
    loss = F.cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")  # (B, T − 1)
    weight = weight[:, 1:].to(loss.dtype)
    return (loss * weight).sum() / weight.sum().clamp_min(1)


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
