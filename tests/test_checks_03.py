"""Lesson 03's checks name the mistake of answers that were written apart from the slips they hold."""

from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F

from blip3o_mini import flow, objectives
from blip3o_mini.checks import nb03_flow as check

EXERCISES = (check.interpolate, check.velocity_target, check.euler, check.flow_loss, check.guide, check.heun)


def to_shape(sigma, like):
    return sigma.reshape(len(like), *[1] * (like.ndim - 1))


def stepwise(direction=1, at=0, keep_start=False, only_last=False):
    """Euler's walk written with indices, with one thing wrong at a time."""

    def walk(velocity, x, sigmas):
        states = [x]
        for k in range(len(sigmas) - 1):
            states.append(states[-1] + direction * (sigmas[k + 1] - sigmas[k]) * velocity(states[-1], sigmas[k + at]))
        return states[-1:] if only_last else states if keep_start else states[1:]

    return walk


def heunish(first=0.5, second=0.5):
    def walk(velocity, x, sigmas):
        for here, there in pairwise(sigmas):
            step = there - here
            slope = velocity(x, here)
            x = x + step * (first * slope + second * velocity(x + step * slope, there))
            yield x

    return check.collected(walk)


def wrong_loss(network, features, noise, sigma, *, sees=None, target=None, reduce=torch.mean, power=2):
    x = torch.lerp(features, noise, to_shape(sigma, features)) if sees is None else sees
    target = noise - features if target is None else target
    return reduce((network(x, sigma) - target).abs() ** power)


PLANTED = [
    (check.interpolate, lambda f, n, s: torch.lerp(n, f, to_shape(s, f)), "sigma replaced by 1 − sigma"),
    (check.interpolate, lambda f, n, s: torch.addcmul(f, to_shape(s, f), n), "features at full strength"),
    (check.interpolate, lambda f, n, s: torch.lerp(f, n, s[0]), "first sample's sigma"),
    (check.interpolate, lambda f, n, s: f * to_shape(1 - s, f) ** 0.5 + n * to_shape(s, f) ** 0.5, "square roots"),
    (check.interpolate, lambda f, n, s: f + s * (n - f), "RuntimeError"),
    (check.velocity_target, torch.sub, "from noise to features"),
    (check.velocity_target, torch.add, "this is the sum"),
    (check.velocity_target, lambda f, n: n.clone(), "the noise alone"),
    (check.velocity_target, lambda f, n: 0.5 * (n - f), "times 0.5"),
    (check.euler, stepwise(direction=-1), "goes the wrong way"),
    (check.euler, stepwise(at=1), "noise level you are going to"),
    (check.euler, stepwise(keep_start=True), "begins with the noise itself"),
    (check.euler, stepwise(only_last=True), "only the last state"),
    (check.flow_loss, lambda v, f, n, s: wrong_loss(v, f, n, s, target=f - n), "wrong sign"),
    (check.flow_loss, lambda v, f, n, s: wrong_loss(v, f, n, s, sees=f), "shown the clean features"),
    (check.flow_loss, lambda v, f, n, s: wrong_loss(v, f, n, s, target=n), "as in DDPM"),
    (check.flow_loss, lambda v, f, n, s: wrong_loss(v, f, n, s, target=f), "another parametrisation"),
    (check.flow_loss, lambda v, f, n, s: wrong_loss(v, f, n, s, reduce=torch.sum), "you sum the squares"),
    (check.flow_loss, lambda v, f, n, s: wrong_loss(v, f, n, s, power=1), "absolute values"),
    (check.flow_loss, lambda v, f, n, s: wrong_loss(v, f, n, s) / 2, "times 0.5"),
    (check.guide, lambda null, told, g: (1 + g) * told - g * null, "off by one"),
    (check.guide, lambda null, told, g: torch.lerp(told, null, g), "changed places"),
    (check.guide, lambda null, told, g: told * g, "conditional velocity alone"),
    (check.heun, heunish(1, 0), "Euler's walk"),
    (check.heun, heunish(0, 1), "only the velocity at the end"),
    (check.heun, heunish(1, 1), "added, not averaged"),
]  # fmt: skip


@pytest.mark.parametrize(("exercise", "answer", "words"), PLANTED)
def test_a_planted_mistake_is_named(exercise, answer, words):
    is_right, report = exercise.judge(answer)
    assert not is_right and words in report, report


def test_every_exercise_has_three_planted_mistakes_with_different_reports():
    for exercise in EXERCISES:
        reports = [one.judge(answer)[1] for one, answer, _ in PLANTED if one is exercise]
        assert len(reports) >= 3 and len(set(reports)) == len(reports)


RIGHT = [
    (check.interpolate, lambda f, n, s: torch.lerp(f, n, to_shape(s, f))),
    (check.velocity_target, lambda f, n: torch.sub(n, f)),
    (check.euler, stepwise()),
    (check.flow_loss, lambda v, f, n, s: F.mse_loss(v(torch.lerp(f, n, to_shape(s, f)), s), n - f)),
    (check.guide, lambda null, told, g: torch.lerp(null, told, g)),
    (check.heun, heunish()),
]


@pytest.mark.parametrize(("exercise", "answer"), RIGHT, ids=lambda value: getattr(value, "name", ""))
def test_right_answers_in_other_words_pass(exercise, answer):
    is_right, report = exercise.judge(answer)
    assert is_right, report


def test_the_loss_of_the_lesson_is_that_of_the_package():
    """Same noise, same sigma, nothing dropped: objectives.flow_loss adds only the condition and the timestep."""
    features = torch.randn(6, 5, 3, generator=torch.Generator().manual_seed(1))
    network = check._network
    theirs = objectives.flow_loss(
        lambda x, timestep, condition, source: network(x, timestep / 1000),
        features, torch.ones(6, 2, 4), torch.Generator().manual_seed(2), drop=0.0,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(2)
    noise, sigma = flow.sample_noise(features, generator), flow.sample_sigma(6, generator)
    # float32: the timestep is 1000 · sigma and back
    torch.testing.assert_close(check.flow_loss.right(network, features, noise, sigma), theirs, rtol=1e-5, atol=1e-6)
