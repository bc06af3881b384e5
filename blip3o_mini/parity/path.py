"""Sampling and training along the path against the original's: every step, the loss, all gradients."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from .. import flow
from ..dit import NextDit
from .fixture import EXACT, LOSS, LOSS_GRADIENT, OUTPUT, TIMESTEP, TRAJECTORY, Fixture, Row
from .network import PUBLISHED_PREFIX, find_dit, on_grid

# the run with several images per prompt has no entry in the JSON; its documentation says 4 steps, guidance 3
STEPS, GUIDANCE = 4, 3.0


@torch.no_grad()
def check_sampling(fixture: Fixture, folder: Path) -> list[Row]:
    """Every run's schedule, guided velocities and states; runs with only a final state as well."""
    network, rows = find_dit(fixture, folder), []
    runs = fixture.names(r"(\w+)\.(?:trajectory|final)")
    if not runs:
        raise ValueError(f"{fixture.name}.safetensors holds no *.trajectory or *.final; it is damaged")
    for run in runs:
        rows += check_run(fixture, network, run)
    return rows


def check_run(fixture: Fixture, network: NextDit, run: str) -> Iterator[Row]:
    noise = fixture.first(f"{run}.initial_noise", "initial_noise")
    condition = fixture.first(f"{run}.z_latents", "z_latents")
    condition = condition.repeat_interleave(len(noise) // len(condition), dim=0)  # prompt by prompt
    if f"{run}.z_in" in fixture.tensors:  # a corner of what the network is given: null half, then condition
        theirs = fixture[f"{run}.z_in"]
        both = torch.cat([torch.zeros_like(condition), condition])
        yield fixture.compare(f"{run}.z_in", both[:, : theirs.shape[1], : theirs.shape[2]], theirs, EXACT)
    steps = int(fixture.setting("steps", run, default=STEPS))
    guidance = float(fixture.setting("guidance_scale", run, default=GUIDANCE))
    sigmas, timesteps, outputs, velocities = flow.sigmas(steps), [], [], []

    def predict(x: torch.Tensor, timestep: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        timesteps.append(timestep)
        outputs.append(on_grid(network, x, timestep, condition))
        return outputs[-1]

    guided = flow.guided(predict, condition, guidance, is_integer=True)

    def velocity(x: torch.Tensor, sigma: float) -> torch.Tensor:
        velocities.append(guided(x, sigma))
        return velocities[-1]

    states = [noise, *flow.euler(velocity, noise, sigmas)]
    schedule = torch.tensor(sigmas)
    for limit, ours in (
        (EXACT, {"sigmas": schedule}),
        (TIMESTEP, {"timesteps_schedule": flow.timestep(schedule[:-1])}),
        (EXACT, {"timesteps_passed_to_dit": torch.stack(timesteps)}),
        (TRAJECTORY, {"guided_velocity": torch.stack(velocities), "trajectory": torch.stack(states)}),
        (TRAJECTORY, {"final": states[-1]}),
    ):
        yield from fixture.compare_keys({f"{run}.{key}": tensor for key, tensor in ours.items()}, limit)
    if (key := f"{run}.dit_output") in fixture.tensors:
        ours = torch.stack(outputs)
        # the null rows come first; at guidance 1 we do not compute them
        yield fixture.compare(key, ours, fixture[key][:, -ours.shape[1] :], TRAJECTORY)


def check_loss(fixture: Fixture, folder: Path) -> Iterator[Row]:
    """From the uniform draws to the gradients of one training step."""
    network = find_dit(fixture, folder)
    features, noise = fixture["latents"], fixture["noise"]
    condition = fixture["z_latents"].clone().requires_grad_()
    sigma = flow.sigma_from_uniform(fixture["u"])
    timestep = flow.timestep(sigma)
    noisy = flow.interpolate(features, noise, sigma)
    dropped = flow.drop_condition(condition, fixture["drop_mask"])
    target = flow.velocity_target(features, noise)
    prediction = on_grid(network, noisy, timestep, dropped)
    loss = flow.loss(prediction, target)
    loss.backward()
    yield from check_schedule(fixture)
    index = flow.TIMESTEPS - timestep.round()
    for limit, ours in (
        (TIMESTEP, {"timesteps": timestep}),
        (EXACT, {"timestep_index": index, "sigmas": sigma, "noisy_latents": noisy, "target": target}),
        (EXACT, {"z_latents_after_drop": dropped}),
        (OUTPUT, {"prediction": prediction}),
        (LOSS, {"per_sample_loss": flow.sample_losses(prediction, target), "loss": loss}),
        (LOSS_GRADIENT, {"grad_z_latents": condition.grad}),
    ):
        yield from fixture.compare_keys(ours, limit)
    yield check_parameter_gradients(fixture, network)


def check_schedule(fixture: Fixture) -> Iterator[Row]:
    """The table of all noise levels, most noise first: what draws from the middle of each interval give."""
    sigma = flow.sigma_from_uniform((torch.arange(flow.TIMESTEPS) + 0.5) / flow.TIMESTEPS)
    yield from fixture.compare_keys({"schedule.sigmas": sigma}, EXACT)
    yield from fixture.compare_keys({"schedule.timesteps": flow.timestep(sigma)}, TIMESTEP)


def check_parameter_gradients(fixture: Fixture, network: NextDit) -> Row:
    """All parameters' gradients as one row that names the worst."""
    prefix = f"grad_dit.{PUBLISHED_PREFIX}"
    rows = [
        fixture.compare(name, parameter.grad, fixture[prefix + name], LOSS_GRADIENT)
        for name, parameter in network.named_parameters()
    ]
    # the one furthest over its own tolerance; a NaN counts as furthest of all
    worst = max(rows, key=lambda row: (not row.passed, row.max_error / row.tolerance))
    quantity = f"grad_dit.*, {len(rows)} parameters, worst {worst.quantity}"
    return Row(fixture.name, quantity, worst.max_error, worst.tolerance, worst.passed)
