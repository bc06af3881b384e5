"""The EVA-CLIP image tower and its preprocessing against the original's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..config import VisionConfig
from ..eva import NORM_EPS, EvaVision
from ..vision import MEAN, STD, pool_grid, square
from .fixture import PIXELS, SUM_OF_PIXELS, TOWER, Fixture, Row

CONFIG = "vision_cfg"
FIXED = {"postnorm": True, "qkv_bias": True, "drop_path_rate": 0}  # nothing else was published


def tower_config(fixture: Fixture, key: str, pool: int) -> VisionConfig:
    """Sizes of the tower that a fixture describes under `key`."""
    for name, value in FIXED.items():
        if fixture.setting(key, name, default=value) != value:
            raise ValueError(f"{fixture.name}.json: only {key}.{name} = {value} exists in published models")
    names = ("image_size", "patch_size", "width", "layers", "head_width", "mlp_ratio")
    sizes = {name: fixture.setting(key, name) for name in names}
    return VisionConfig(**sizes, pool=pool, feature_width=sizes["width"], is_whitened=False, kind="eva")


@torch.no_grad()
def check_tower(fixture: Fixture, folder: Path) -> list[Row]:
    """Tokens, intermediate values, pooled grids, and the pictures' way to pixels."""
    return [*check_tokens(fixture), *check_pictures(fixture)]


def check_tokens(fixture: Fixture) -> Iterator[Row]:
    if fixture.setting("layer_norm_eps", default=NORM_EPS) != NORM_EPS:
        raise ValueError(f"{fixture.name}.json: only layer_norm_eps = {NORM_EPS} exists in published models")
    vision = EvaVision(tower_config(fixture, CONFIG, pool=1)).eval()
    weights = {key: fixture[f"state_dict.{key}"] for key in fixture.names(r"state_dict\.(.+)")}
    fixture.fill(vision.tower, weights)
    with Probes(vision.tower, fixture.names(r"probe\.(\w+)")) as probes:
        everything = vision.tokens(fixture["pixel_values"])
    tokens = everything[:, 1:]
    ours = {"all_tokens": everything, "tokens": tokens}
    ours |= {f"probe.{name}": value for name, value in probes.items()}
    for stride in map(int, fixture.names(r"pooled_stride(\d+)")):
        pooled = pool_grid(tokens, stride)
        side = round(pooled.shape[1] ** 0.5)
        ours[f"pooled_stride{stride}"] = pooled.transpose(1, 2).unflatten(2, (side, side))
    yield from fixture.compare_keys(ours, TOWER)


class Probes:
    """Keep what the blocks and their branches return during one call: block_2, block_0_attn, block_0_mlp, …"""

    def __init__(self, tower: torch.nn.Module, names: list[str]):
        self.values: dict[str, Tensor] = {}
        self.modules = {"patch_embed": tower.patch_embed} if "patch_embed" in names else {}
        for layer, block in enumerate(tower.blocks):
            name = f"block_{layer}"
            parts = {name: block, f"{name}_attn": block.attn, f"{name}_mlp": block.mlp}
            self.modules |= {name: part for name, part in parts.items() if name in names}

    def __enter__(self) -> dict[str, Tensor]:
        self.hooks = [
            module.register_forward_hook(lambda *args, name=name: self.values.update({name: args[-1]}))
            for name, module in self.modules.items()
        ]
        return self.values

    def __exit__(self, *error: object) -> None:
        for hook in self.hooks:
            hook.remove()


def check_pictures(fixture: Fixture) -> Iterator[Row]:
    """Every picture's way from pixels of any size to normalised values."""
    size = int(fixture.setting("preprocess", "size", default=448))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    told = fixture.setting("preprocess", "images", default=[])
    for number in fixture.names(r"image(\d+)\.rgb"):
        picture = Image.fromarray(fixture[f"image{number}.rgb"].numpy())
        cropped = torch.from_numpy(np.array(square(picture, size)))  # (size, size, 3)
        values = (cropped.permute(2, 0, 1).float() / 255 - mean) / std
        name = f"image{number}"
        if (key := f"{name}.resized_cropped_rgb") in fixture.tensors:
            yield fixture.compare_pixels(key, cropped.float() / 255, fixture[key].float() / 255, PIXELS)
        for key, ours in (("pixel_values", values), ("pixel_values_every16", values[:, ::16, ::16])):
            if f"{name}.{key}" in fixture.tensors:
                yield fixture.compare_pixels(f"{name}.{key}", ours, fixture[f"{name}.{key}"], PIXELS)
        if int(number) < len(told):
            yield from check_sums(fixture, name, values.double(), told[int(number)])


def check_sums(fixture: Fixture, name: str, values: Tensor, told: dict) -> Iterator[Row]:
    """Sums over all values, per value: they see every pixel, also where only some are stored."""
    for key, total in (("checksum_sum", values.sum()), ("checksum_abs", values.abs().sum())):
        if key in told:
            theirs = torch.tensor(told[key], dtype=torch.float64) / values.numel()
            yield fixture.compare(f"{name} {key}, per value", total / values.numel(), theirs, SUM_OF_PIXELS)
