"""The published model from token ids to features, and its training forward, against the original's.

An `ar_condition_x` fixture goes with the checkpoint folder `ar_checkpoint_x`, which is read like any published one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from .. import flow
from ..eva import EvaVision
from ..qwen_chat import IGNORED, PAD
from ..qwen_vl import Patches
from ..tokens import pad_left
from ..vision import pool_grid
from .checkpoint import PublishedParts, read_parts
from .fixture import CONDITION, EXACT, LOSS, LOSS_GRADIENT, OUTPUT, TIMESTEP, TOWER, TRAJECTORY, Fixture, Row
from .network import on_grid, to_tokens


def check_condition(fixture: Fixture, folder: Path) -> list[Row]:
    """Every inference case from ids to features, every training case from ids to loss and gradients."""
    cases = fixture.names(r"(\w+)\.z_latents")
    if not cases:
        raise ValueError(f"{fixture.name}.safetensors holds no *.z_latents; is it another format?")
    parts, rows = read_parts(fixture, folder), []
    for case in cases:
        check = check_training if f"{case}.u" in fixture.tensors else check_inference
        rows += [*check_ids(fixture, case), *check(fixture, parts, case)]
    return rows


def check_ids(fixture: Fixture, case: str) -> Iterator[Row]:
    """The compact ids are the official ones, with the special tokens moved next to the others."""
    first = fixture.setting("token_ids", "pad", "compact", default=PAD)
    for name in ("input_ids", "labels"):
        if (key := f"{case}.{name}_official") in fixture.tensors:
            compact = fixture[f"{case}.{name}"]
            official = torch.where(compact >= first, compact - first + PAD, compact)
            yield fixture.compare(key, official, fixture[key], EXACT)


def pictures_of(fixture: Fixture, case: str) -> Patches | None:
    """The input pictures of a case as patches."""
    if f"{case}.pixel_values" in fixture.tensors:
        return Patches(fixture[f"{case}.pixel_values"], fixture[f"{case}.image_grid_thw"])
    if f"{case}.und_image" in fixture.tensors:
        return Patches(fixture[f"{case}.und_image"].flatten(0, 1), fixture[f"{case}.grid_thw"])
    return None


# ------------------------------------------------------------------ inference


@torch.no_grad()
def check_inference(fixture: Fixture, parts: PublishedParts, case: str) -> Iterator[Row]:
    backbone, pictures = parts.backbone, pictures_of(fixture, case)
    ids = fixture[f"{case}.input_ids"]
    ids = torch.cat([ids, ids.new_full((len(ids), 1), parts.chat.start_of_image)], dim=1)
    mask = torch.ones_like(ids)
    embedded = torch.cat([backbone.embed(ids, pictures), backbone.queries.expand(len(ids), -1, -1)], dim=1)
    full = embedded.new_ones(embedded.shape[:2])
    ours = {"inputs_embeds": embedded, "attention_mask": full[:, :-1]}  # the original's is one short (quirk Q1)
    if pictures is not None:
        ours["und_image_embeds"] = backbone.look(pictures)
    ours["z_latents"] = condition = backbone.condition(ids, mask, pictures)
    yield from fixture.compare_keys({f"{case}.{key}": value for key, value in ours.items()}, CONDITION)
    if f"{case}.initial_noise" not in fixture.tensors:
        return
    noise = fixture[f"{case}.initial_noise"]
    steps = int(fixture.setting(case, "num_inference_steps", default=30))
    guidance = float(fixture.setting(case, "guidance_scale", default=3.0))
    predict = lambda *inputs: on_grid(parts.dit, *inputs)  # noqa: E731
    velocity = flow.guided(predict, condition, guidance, is_integer=True)
    *_, features = flow.euler(velocity, noise, flow.sigmas(steps))
    ours = {"latents": features, "clip_features": to_tokens(features)}
    yield from fixture.compare_keys({f"{case}.{key}": value for key, value in ours.items()}, TRAJECTORY)


# ------------------------------------------------------------------ training


def check_training(fixture: Fixture, parts: PublishedParts, case: str) -> Iterator[Row]:
    def given(key: str) -> Tensor:
        return fixture[f"{case}.{key}"]

    for part in (parts.backbone.language, parts.vision):
        part.requires_grad_(False)
    features, tokens = targets(parts.vision, given("gen_image"))
    condition = read_condition(fixture, parts, case)
    sigma = flow.sigma_from_uniform(given("u"))
    timestep = flow.timestep(sigma)
    noisy = flow.interpolate(features, given("noise"), sigma)
    target = flow.velocity_target(features, given("noise"))
    prediction = on_grid(parts.dit, noisy, timestep, flow.drop_condition(condition, given("drop")))
    loss = flow.loss(prediction, target)
    parts.dit.zero_grad()
    parts.backbone.zero_grad()
    loss.backward()
    for limit, ours in (
        (TOWER, {"tower_tokens": tokens, "latents": features, "noisy_latents": noisy, "target": target}),
        (TIMESTEP, {"timesteps": timestep}),
        (EXACT, {"timestep_index": (flow.TIMESTEPS - timestep.round()).long(), "sigmas": sigma}),
        (CONDITION, {"z_latents": condition}),
        (OUTPUT, {"noise_pred": prediction}),
        (LOSS, {"per_sample_loss": flow.sample_losses(prediction, target), "loss": loss}),
    ):
        yield from fixture.compare_keys({f"{case}.{key}": value for key, value in ours.items()}, limit)
    yield from check_reading(fixture, parts, case)
    yield from check_gradients(fixture, parts, case)


@torch.no_grad()
def targets(vision: EvaVision, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """What the DiT learns (B, D, rows, columns), and the tower's tokens before pooling (B, N, D)."""
    tokens = vision.tokens(pixels)[:, 1:]
    features = pool_grid(tokens, vision.config.pool)
    side = round(features.shape[1] ** 0.5)
    return features.transpose(1, 2).unflatten(2, (side, side)), tokens


def read_condition(fixture: Fixture, parts: PublishedParts, case: str) -> Tensor:
    """The condition (B, Q, H): every row's text up to its first query, aligned at the end, as we always do it."""
    starts = fixture[f"{case}.query_start"].tolist()
    rows = [row[:start].tolist() for row, start in zip(fixture[f"{case}.input_ids"], starts)]
    ids, mask = map(torch.from_numpy, pad_left(rows, parts.chat.pad))
    return parts.backbone.condition(ids, mask, pictures_of(fixture, case))


@torch.no_grad()
def check_reading(fixture: Fixture, parts: PublishedParts, case: str) -> Iterator[Row]:
    """What else the original's forward returns: the pictures' tokens, the first row's logits, changed labels."""
    backbone, pictures = parts.backbone, pictures_of(fixture, case)
    ours = {}
    if pictures is not None:
        ours["und_image_embeds"] = backbone.look(pictures)
    ids, mask, labels = (fixture[f"{case}.{key}"] for key in ("input_ids", "attention_mask", "labels"))
    is_slot = (ids == parts.chat.query_slot) & (labels != IGNORED)
    ours["labels_after_forward"] = labels.masked_fill(is_slot, IGNORED)
    embedded = backbone.embed(ids, pictures)
    embedded = embedded.masked_scatter(is_slot.unsqueeze(-1), backbone.queries.expand(len(ids), -1, -1))
    places = torch.arange(ids.shape[1]).expand_as(ids)  # the original counts through the padding, which is behind
    ours["logits_row0"] = backbone.logits(backbone.states(embedded, mask.long(), places))[0]
    yield from fixture.compare_keys({f"{case}.{key}": value for key, value in ours.items()}, CONDITION)


def check_gradients(fixture: Fixture, parts: PublishedParts, case: str) -> Iterator[Row]:
    """All stored gradients as one row that names the worst; nothing else may have one."""
    stored = {name: f"{case}.grad.{name}" for name in fixture.names(rf"{case}\.grad\.(.+)")}
    if not stored:
        return
    gradients = parts.gradients()
    if different := sorted(stored.keys() ^ gradients.keys()):
        yield Row(fixture.name, f"{case}.grad.*: other tensors learn, {', '.join(different[:4])}", passed=False)
        return
    rows = [fixture.compare(name, gradients[name], fixture[key], LOSS_GRADIENT) for name, key in stored.items()]
    worst = max(rows, key=lambda row: (not row.passed, row.max_error / row.tolerance))
    quantity = f"{case}.grad.*, {len(rows)} tensors, worst {worst.quantity}"
    yield Row(fixture.name, quantity, worst.max_error, worst.tolerance, worst.passed)
