"""Flow matching: the straight path from features to noise, and the walk back. Lesson 03.

sigma is the noise level: 0 is data, 1 is noise. On the straight line

    x(sigma) = (1 - sigma) · features + sigma · noise

the velocity dx/dsigma = noise - features is constant. A network learns to predict it from x(sigma);
sampling starts at sigma 1 and follows the predicted velocity down to sigma 0. This module knows no model:
whatever has a velocity can be trained and sampled with it. Published recipe: reference sections 1.4 and 5.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

Velocity = Callable[[Tensor, float], Tensor]  # (x, sigma) → velocity of the same shape as x
TIMESTEPS = 1000  # the published network counts noise levels in thousandths: timestep = 1000 · sigma


def interpolate(features: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """Point at noise level sigma (B,) on the straight line from features (sigma 0) to noise (sigma 1)."""
    sigma = sigma.to(features.dtype).view(-1, *[1] * (features.ndim - 1))
    return (1 - sigma) * features + sigma * noise


def velocity_target(features: Tensor, noise: Tensor) -> Tensor:
    """What the network learns to predict: the direction from features to noise, the same at every sigma."""
    return noise - features


def sigmas(steps: int) -> list[float]:
    """Noise levels of a sampling run: steps equal steps from 1 down to 0, both ends included."""
    if steps < 1:
        raise ValueError(f"cannot sample with {steps} steps; choose steps=1 or more")
    return [(steps - index) / steps for index in range(steps)] + [0.0]


def timestep(sigma: float | Tensor, *, is_integer: bool = False) -> Tensor:
    """Noise level in thousandths, float32, as the network is told: 1000 · sigma.

    is_integer drops the fraction, as the published *sampler* does (966, not 966.67); the published training
    does not (reference section 10, Q11). footgun: some products fall just short of the whole number
    (510.99997 for 0.511), so never drop the fraction in training.
    """
    value = torch.as_tensor(sigma, dtype=torch.float32) * TIMESTEPS
    return value.floor() if is_integer else value


def guide(null_velocity: Tensor, condition_velocity: Tensor, guidance: float) -> Tensor:
    """Exaggerate what the condition changes: guidance 0 ignores the condition, 1 is off, more is stronger."""
    return null_velocity + guidance * (condition_velocity - null_velocity)


def guided(predict: Callable, condition: Tensor, guidance: float, *, is_integer: bool = False) -> Velocity:
    """Turn predict(x, timestep, condition) into a guided velocity(x, sigma); the null condition is all zeros.

    One call on a batch twice as long, null half first, as in the reference, section 1.4; none is doubled when
    guidance is 1. is_integer: see `timestep`.
    """
    both = torch.cat([torch.zeros_like(condition), condition])

    def velocity(x: Tensor, sigma: float) -> Tensor:
        thousandths = timestep(sigma, is_integer=is_integer)
        if guidance == 1:
            return predict(x, thousandths, condition)
        return guide(*predict(torch.cat([x, x]), thousandths, both).chunk(2), guidance)

    return velocity


def euler(velocity: Velocity, x: Tensor, sigmas: Sequence[float]) -> Iterator[Tensor]:
    """Walk from noise to data along velocity(x, sigma); yield every state, so that it can be drawn."""
    for here, there in pairwise(sigmas):
        x = x + (there - here) * velocity(x, here)
        yield x


def sigma_from_uniform(u: Tensor) -> Tensor:
    """Noise levels of the published training from draws in [0, 1): 1, 0.999, …, 0.001, never pure data."""
    index = (u * TIMESTEPS).floor()
    return (TIMESTEPS - index) / TIMESTEPS


def sample_noise(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal noise with the shape, device and dtype of `like`, drawn on the CPU in float32."""
    return torch.randn(like.shape, generator=generator).to(like)


def sample_sigma(batch: int, generator: torch.Generator | None, *, shift: float | None = None) -> Tensor:
    """Draw noise levels (B,) to train at, on the CPU.

    shift None: uniform over the published thousandths. shift a number: sigmoid(normal + shift), which
    favours the middle of the path; shift > 0 leans towards noise, where the layout of a picture is decided.
    """
    if shift is None:
        return sigma_from_uniform(torch.rand(batch, generator=generator))
    if not math.isfinite(shift):
        raise ValueError(f"the shift of the noise levels is {shift}; choose a finite number, for example 0.5")
    return torch.sigmoid(torch.randn(batch, generator=generator) + shift)


def sample_drop(batch: int, probability: float, generator: torch.Generator | None) -> Tensor:
    """Decide which samples train without their condition (B,) bool, on the CPU; published: 0.1 of them."""
    if not 0 <= probability <= 1:
        raise ValueError(f"the probability {probability} of dropping a condition is not between 0 and 1")
    return torch.rand(batch, generator=generator) < probability


def drop_condition(condition: Tensor, drop_mask: Tensor) -> Tensor:
    """Zero the whole condition (B, Q, H) of the samples marked in drop_mask (B,); null is all zeros."""
    mask = drop_mask.to(condition.device, torch.bool).view(-1, *[1] * (condition.ndim - 1))
    return condition.masked_fill(mask, 0)


def sample_losses(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each sample (B,), computed in float32 or better."""
    if prediction.shape != target.shape:
        # footgun: (B, Q, D) - (B, 1, D) broadcasts in silence and trains towards an average
        raise ValueError(f"the prediction is {tuple(prediction.shape)}, the target {tuple(target.shape)}")
    dtype = torch.promote_types(prediction.dtype, torch.float32)
    return (prediction.to(dtype) - target.to(dtype)).square().flatten(1).mean(1)


def loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error over everything, every noise level weighted alike."""
    return sample_losses(prediction, target).mean()
