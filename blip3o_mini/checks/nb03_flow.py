"""Checks of lesson 03: the straight path, its velocity, the walk back, and guidance."""

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
    "3.4", "heun", 15, _walks, lambda *case: list(heun_walk(*case)),
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
