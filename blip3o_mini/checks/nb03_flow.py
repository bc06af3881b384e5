"""Checks of lesson 03: the straight path, its velocity, the walk back, the loss, and guidance."""

from __future__ import annotations

from itertools import pairwise

import torch

from .. import flow
from .exercise import Exercise, Slip


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _pairs() -> list[tuple]:
    shapes = ((4, 2), (3, 3), (2, 5, 3), (1, 4), (3, 2, 2, 2))  # (3, 3): a sigma laid along the wrong axis fits too
    return [(_random(*s, seed=k), _random(*s, seed=k + 50)) for k, s in enumerate(shapes)]


def _points() -> list[tuple]:
    return [(*pair, torch.linspace(0.1, 0.8, len(pair[0]), dtype=torch.float64)) for pair in _pairs()]


def _spread(sigma, like):
    return sigma.view(-1, *[1] * (like.ndim - 1))


interpolate = Exercise(
    "3.1", "interpolate", 10, _points, flow.interpolate,
    (
        Slip(
            "your result equals the right one with sigma replaced by 1 − sigma. In this course sigma = 1 is noise.",
            lambda f, n, s: flow.interpolate(f, n, 1 - s),
        ),
        Slip(
            "you add the noise but keep the features at full strength. On the straight line what one gains, the "
            "other loses: the features are scaled by 1 − sigma.",
            lambda f, n, s: f + _spread(s, f) * n,
        ),
        Slip(
            "you use square roots, as diffusion models with a fixed variance do. Here the path is a straight line: "
            "weights 1 − sigma and sigma.",
            lambda f, n, s: (1 - _spread(s, f)).sqrt() * f + _spread(s, f).sqrt() * n,
        ),
        Slip(
            "every sample got the first sample's sigma. Reshape sigma to (B, 1, …), so that each has its own.",
            lambda f, n, s: (1 - s[0]) * f + s[0] * n,
        ),
    ),
)  # fmt: skip

velocity_target = Exercise(
    "3.2", "velocity_target", 5, _pairs, flow.velocity_target,
    (
        Slip(
            "your velocity points from noise to features. sigma grows towards noise, so dx/dsigma = noise − features.",
            lambda f, n: f - n,
        ),
        Slip("this is the noise alone: the part of the path that moves the features away is missing.", lambda f, n: n),
        Slip("this is the sum; the derivative of (1 − sigma)·features has a minus sign.", lambda f, n: f + n),
    ),
)  # fmt: skip


def _walks() -> list[tuple]:
    def bent(x, sigma):
        return x * sigma - 1.0

    return [(bent, _random(3, 2, seed=7), flow.sigmas(steps)) for steps in (1, 4, 9)]


def _walk(velocity, x, sigmas, *, sign=1.0, late=False, is_first_kept=False, is_last_only=False):
    states = [x] if is_first_kept else []
    for here, there in pairwise(sigmas):
        x = x + sign * (there - here) * velocity(x, there if late else here)
        states.append(x)
    return states[-1:] if is_last_only else states


euler = Exercise(
    "3.3", "euler", 15, _walks, lambda *case: list(flow.euler(*case)),
    (
        Slip(
            "every step goes the wrong way. From here to there sigma changes by there − here, which is negative.",
            lambda *case: _walk(*case, sign=-1.0),
        ),
        Slip(
            "you ask for the velocity at the noise level you are going to. Euler uses the one where you stand.",
            lambda *case: _walk(*case, late=True),
        ),
        Slip(
            "the list begins with the noise itself. Yield a state after each step: as many states as steps.",
            lambda *case: _walk(*case, is_first_kept=True),
        ),
        Slip("only the last state is there. Yield every state, so that the walk can be drawn.",
             lambda *case: _walk(*case, is_last_only=True)),
    ),
)  # fmt: skip


def collected(learner):
    """The learner's generator (or function that returns states) as a function that returns a list."""
    return lambda *case: None if (states := learner(*case)) is None else list(states)


def _network(x, sigma):
    """Any function of x and sigma will do; this one notices when sigma or x is another."""
    return x.tanh() * (1 + _spread(sigma, x)) - 0.3 * _spread(sigma, x)


def _lessons() -> list[tuple]:
    return [(_network, *point) for point in _points()]


def _flow_loss(network, features, noise, sigma):
    return flow.loss(network(flow.interpolate(features, noise, sigma), sigma), flow.velocity_target(features, noise))


def _error(network, features, noise, sigma, target=None):
    target = noise - features if target is None else target
    return network(flow.interpolate(features, noise, sigma), sigma) - target


flow_loss = Exercise(
    "3.4", "flow_loss", 15, _lessons, _flow_loss,
    (
        Slip(
            "the target has the wrong sign. The network learns noise − features; a sampler that goes from sigma 1 "
            "down to 0 would otherwise walk away from the data.",
            lambda v, f, n, s: _error(v, f, n, s, f - n).square().mean(),
        ),
        Slip(
            "the network was shown the clean features. It must see the noisy point x(sigma), as when it samples.",
            lambda v, f, n, s: (v(f, s) - (n - f)).square().mean(),
        ),
        Slip(
            "the target is the noise, as in DDPM. Here the network predicts the velocity, noise − features.",
            lambda v, f, n, s: _error(v, f, n, s, n).square().mean(),
        ),
        Slip(
            "the target is the clean features. That is another parametrisation; here it is noise − features.",
            lambda v, f, n, s: _error(v, f, n, s, f).square().mean(),
        ),
        Slip(
            "you sum the squares. Take their mean, or the loss grows with the size of the batch.",
            lambda v, f, n, s: _error(v, f, n, s).square().sum(),
        ),
        Slip(
            "you take the mean of absolute values. Its best answer is the median, not the mean: the square is needed.",
            lambda v, f, n, s: _error(v, f, n, s).abs().mean(),
        ),
    ),
)  # fmt: skip


def _guesses() -> list[tuple]:
    return [(_random(3, 2, seed=k), _random(3, 2, seed=k + 9), strength) for k, strength in enumerate((0.0, 1.0, 3.0))]


guide = Exercise(
    "3.5", "guide", 10, _guesses, flow.guide,
    (
        Slip(
            "your guidance is off by one: here 1 means off. (Papers that write (1 + w)·c − w·n call that w = 0.)",
            lambda null, told, g: told + g * (told - null),
        ),
        Slip(
            "null and condition have changed places: guidance 0 must ignore the condition.",
            lambda null, told, g: told + g * (null - told),
        ),
        Slip("you scale the conditional velocity alone. What is exaggerated is its difference from the null one.",
             lambda null, told, g: g * told),
    ),
)  # fmt: skip


def heun_walk(velocity, x, sigmas):
    """Heun's method: the mean of the velocities at both ends of each step; yields every state."""
    for here, there in pairwise(sigmas):
        first = velocity(x, here)
        guess = x + (there - here) * first
        x = x + (there - here) * (first + velocity(guess, there)) / 2
        yield x


heun = Exercise(
    "3.6", "heun", 15, _walks, lambda *case: list(heun_walk(*case)),
    (
        Slip("this is Euler's walk: the second look, at the end of the step, has no effect.",
             lambda *case: list(flow.euler(*case))),
        Slip("only the velocity at the end of the step is used; average it with the one at the beginning.",
             lambda v, x, s: _ends(v, x, s)),
        Slip("the two velocities are added, not averaged: every step is twice as long as it should be.",
             lambda v, x, s: _doubled(v, x, s)),
    ),
)  # fmt: skip


def _ends(velocity, x, sigmas):
    states = []
    for here, there in pairwise(sigmas):
        x = x + (there - here) * velocity(x + (there - here) * velocity(x, here), there)
        states.append(x)
    return states


def _doubled(velocity, x, sigmas):
    states = []
    for here, there in pairwise(sigmas):
        first = velocity(x, here)
        x = x + (there - here) * (first + velocity(x + (there - here) * first, there))
        states.append(x)
    return states
