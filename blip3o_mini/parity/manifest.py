"""Names, shapes, types and counts of all tensors of a model of any size against ours, built without weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ..config import DitConfig, ModelConfig
from ..dit import NextDit, ffn_width
from ..eva import EvaVision
from ..published import EMBEDDING, HEAD, our_name, published_name
from ..published_config import decoder_of, dtype_name, from_published, to_published
from ..qwen_chat import QwenChat
from ..qwen_vl import QwenVlBackbone
from ..sdxl import SdxlDecoder
from ..tensorfile import listed, short_name
from .fixture import Fixture, Row
from .network import SIZES
from .tower import tower_config

# components as a manifest counts them, and how the names of their tensors begin
COMPONENTS = {
    "visual": "visual.", "language_model": ("model.layers.", "model.norm."), "embed_tokens": "model.embed_tokens.",
    "lm_head": "lm_head.", "latent_queries": "model.latent_queries", "gen_vision_tower": "model.gen_vision_tower.",
    "dit": "model.dit.", "down_projector": "model.down_projector.",
}  # fmt: skip
LEARNED = ("model.dit.", "model.latent_queries")


def check_manifest(fixture: Fixture, folder: Path) -> Iterator[Row]:
    """Every list of tensors in a manifest: of the whole model, or of the pixel decoder's two networks."""
    try:
        yield from check_model(fixture) if "parameters" in fixture.settings else check_decoder(fixture)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{fixture.name}.json is damaged or another format: {error!r}") from error


def row(fixture: Fixture, quantity: str, ours: float, theirs: float) -> Row:
    """Numbers that are equal or not."""
    return Row(fixture.name, quantity, float(abs(ours - theirs)), 0.0, ours == theirs)


def compare_tensors(fixture: Fixture, quantity: str, ours: dict[str, Tensor]) -> Iterator[Row]:
    """Names, shapes and types of the tensors that the manifest lists under `quantity`; an error is how many differ."""
    theirs = fixture.setting(quantity)
    both = [name for name in ours if name in theirs]
    for what, different in (
        ("names", ours.keys() ^ theirs.keys()),
        ("shapes", [name for name in both if list(ours[name].shape) != theirs[name]["shape"]]),
        ("types", [name for name in both if short_name(ours[name].dtype) != theirs[name]["dtype"]]),
    ):
        told = f": {listed(sorted(different))}" if different else ""
        yield row(fixture, f"{quantity}, {what} of {len(theirs)} tensors{told}", len(different), 0)


def numel(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors)


# ------------------------------------------------------------------ the whole model


def model_config(fixture: Fixture) -> ModelConfig:
    """Our config: the language model from the manifest's config.json, other parts by the sizes it tells."""
    shapes: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, told in fixture.setting("parameters").items():
        part, ours = our_name("", name)
        shapes.setdefault(part, {})[ours] = tuple(told["shape"])
    config = from_published(fixture.setting("config"), shapes)
    dit = DitConfig(**{ours: fixture.setting("dit_config", theirs) for ours, theirs in SIZES.items()}, is_integer=True)
    return replace(config, dit=dit, vision=tower_config(fixture, "gen_vision_tower_config", config.vision.pool))


def published_tensors(config: ModelConfig) -> dict[str, Tensor]:
    """All tensors of the model but for its decoder, without weights, by their published names."""
    with torch.device("meta"):
        parts: dict[str, nn.Module] = {
            "backbone": QwenVlBackbone(config.backbone, QwenChat(None, config.backbone)),
            "vision": EvaVision(config.vision), "dit": NextDit(config.dit),
        }  # fmt: skip
    dtype = getattr(torch, dtype_name(config))
    return {
        published_name(part, name)[1]: tensor.to(dtype)
        for part, module in parts.items()
        for name, tensor in module.state_dict().items()
    }


def check_model(fixture: Fixture) -> Iterator[Row]:
    """Every tensor, the configuration there and back, and the counts by component and in all."""
    config = model_config(fixture)
    tensors = published_tensors(config)
    embedding, head = (published_name("backbone", name)[1] for name in (EMBEDDING, HEAD))
    if config.backbone.is_tied and head not in fixture.setting("parameters"):
        del tensors[head]  # whether a tied head is stored is not known
    yield from compare_tensors(fixture, "parameters", tensors)
    told, back = fixture.setting("config"), to_published(config)
    different = sorted(key for key in told.keys() | back.keys() if told.get(key) != back.get(key))
    yield row(fixture, f"config.json there and back{': ' * bool(different)}{listed(different)}", len(different), 0)
    for name, prefix in COMPONENTS.items():
        own = [tensor for key, tensor in tensors.items() if key.startswith(prefix)]
        yield from compare_counts(fixture, {"parameter_totals": numel(own), "tensor_counts": len(own)}, name)
    tied = [[head, embedding]] if config.backbone.is_tied else []
    shared = numel(tensors[pair[0]] for pair in tied if pair[0] in tensors)
    unique = numel(tensors.values()) - shared
    yield from compare_counts(fixture, {
        "total_parameters_all_names": unique + shared, "total_parameters_unique": unique,
        "bytes_bfloat16_unique": 2 * unique, "dit_ffn_inner_dim": ffn_width(config.dit.width, config.dit.multiple_of),
        "trainable_parameters": numel(tensor for key, tensor in tensors.items() if key.startswith(LEARNED)),
    })  # fmt: skip
    yield row(fixture, "tied", float(fixture.setting("tied", default=tied) != tied), 0)


def compare_counts(fixture: Fixture, ours: dict[str, int], *inside: str) -> Iterator[Row]:
    """One row for each of our numbers that the manifest has, at the top or in a group by name."""
    for key, number in ours.items():
        theirs = fixture.setting(key, *inside, default=-1)
        if theirs != -1:
            yield row(fixture, ".".join((key, *inside)), number, theirs)


# ------------------------------------------------------------------ the pixel decoder


def check_decoder(fixture: Fixture) -> Iterator[Row]:
    """Every tensor of UNet and autoencoder, and their counts."""
    configs = {part: fixture.setting(f"{part}_config") for part in ("unet", "vae", "scheduler")}
    with torch.device("meta"):
        decoder = SdxlDecoder(decoder_of(configs))
    for part, module in (("unet", decoder.unet), ("vae", decoder.vae)):
        types = {told["dtype"] for told in fixture.setting(part).values()}
        dtype = getattr(torch, types.pop()) if len(types) == 1 else torch.float32
        tensors = {name: tensor.to(dtype) for name, tensor in module.state_dict().items()}
        yield from compare_tensors(fixture, part, tensors)
        yield from compare_counts(fixture, {"totals": numel(tensors.values()), "tensor_counts": len(tensors)}, part)
