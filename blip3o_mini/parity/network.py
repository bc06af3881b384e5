"""The Next-DiT against the original's: outputs, gradients and intermediate values of every case."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from ..config import DitConfig
from ..dit import NextDit, ffn_width, rotary_table, sinusoids
from .fixture import EXACT, GRADIENT_SUMMARY, INPUT_GRADIENT, OUTPUT, Fixture, Row, load

PUBLISHED_PREFIX = "model."  # our names are the published ones without it
SIZES = {
    "feature_width": "in_channels",
    "width": "dim",
    "layers": "n_layers",
    "heads": "n_heads",
    "kv_heads": "n_kv_heads",
    "condition_width": "latent_embedding_size",
    "multiple_of": "multiple_of",
}


def build_dit(fixture: Fixture) -> NextDit:
    """Our network with the sizes and weights of a `dit_` fixture."""
    fixed = {"patch_size": 1, "learn_sigma": False, "qk_norm": True, "norm_eps": 1e-5}
    for key, value in fixed.items():
        if fixture.setting("dit", key, default=value) != value:
            raise ValueError(f"{fixture.name}.json: only {key} = {value} exists in published models")
    sizes = {ours: fixture.setting("dit", theirs) for ours, theirs in SIZES.items()}
    for ours, value in sizes.items():
        if type(value) is not int or value < 1:
            raise ValueError(f"{fixture.name}.json: {SIZES[ours]} is {value!r}, not a whole number above 0")
    network = NextDit(DitConfig(**sizes))
    prefix = f"state_dict.{PUBLISHED_PREFIX}"
    weights = {key: fixture[f"{prefix}{key}"] for key in fixture.names(re.escape(prefix) + "(.+)")}
    fixture.fill(network, weights)
    return network


def find_dit(fixture: Fixture, folder: Path) -> NextDit:
    """The network a `flow_…_tiny_x` fixture was made with: `dit_tiny_a_x`, else the one its JSON names."""
    head, separator, rest = re.sub("^flow_[a-z]+_", "", fixture.name).partition("_")
    name = f"dit_{head}_a{separator}{rest}"
    if not (folder / f"{name}.safetensors").is_file():
        name = Path(fixture.setting("dit_weights_file", default=name)).stem
    return build_dit(load(folder, name))


def to_tokens(grid: Tensor) -> Tensor:
    return grid.flatten(2).transpose(1, 2)  # (B, D, rows, columns) → (B, Q, D)


def on_grid(network: NextDit, x: Tensor, timestep: Tensor, condition: Tensor) -> Tensor:
    """Call the network on the original's layout (B, D, rows, columns)."""
    velocity = network(to_tokens(x), timestep, condition, grid=tuple(x.shape[2:]))
    return velocity.transpose(1, 2).reshape(x.shape)


def check_dit(fixture: Fixture, folder: Path) -> Iterator[Row]:
    """Outputs, gradients and intermediate values of every case."""
    network = build_dit(fixture)
    config = network.config
    for key, ours in (
        ("num_parameters", sum(parameter.numel() for parameter in network.parameters())),
        ("ffn_inner_dim", ffn_width(config.width, config.multiple_of)),
    ):
        if key in fixture.settings:
            yield fixture.compare(key, torch.tensor(ours), torch.tensor(fixture.settings[key]), EXACT)
    if "rope.cos" in fixture.tensors:
        rows, columns, pairs = fixture["rope.cos"].shape
        table = rotary_table(rows, columns, 2 * pairs, torch.device("cpu")).view(rows, columns, pairs)
        yield from fixture.compare_keys({"rope.cos": table.real, "rope.sin": table.imag}, EXACT)
    cases = fixture.names(r"case_(\w+)\.timestep")
    if not cases:
        raise ValueError(f"{fixture.name}.safetensors holds no case_*.timestep; is it another format?")
    for case in cases:
        yield from check_dit_case(fixture, network, case)


def check_dit_case(fixture: Fixture, network: NextDit, case: str) -> Iterator[Row]:
    x = fixture.first(f"case_{case}.x", "x").clone().requires_grad_()
    condition = fixture.first(f"case_{case}.z_latents", "z_latents").clone()
    if case.startswith("null"):
        condition.zero_()
    condition.requires_grad_()
    timestep = fixture[f"case_{case}.timestep"]
    probes = fixture.names(rf"probe_{case}\.(\w+)")
    with Recorder(network, probes) as recorder:
        output = on_grid(network, x, timestep, condition)
    network.zero_grad()
    output.square().sum().backward()
    yield fixture.compare(f"case_{case}.output", output, fixture[f"case_{case}.output"], OUTPUT)
    ours = {f"case_{case}.grad_x": x.grad, f"case_{case}.grad_z_latents": condition.grad}
    yield from fixture.compare_keys(ours, INPUT_GRADIENT)
    recorder.values["timestep_sinusoid"] = sinusoids(timestep)
    ours = {f"probe_{case}.{key}": tensor for key, tensor in recorder.values.items()}
    yield from fixture.compare_keys(ours, OUTPUT)
    if summary := fixture.settings.get(f"param_grad_case_{case}"):
        yield from check_gradient_summary(fixture, network, case, summary)


class Recorder:
    """Keep what the parts of a network that a fixture probes return during one call."""

    PARTS = ("", ""), ("_self_attn", ".attn1"), ("_cross_attn", ".attn2"), ("_ffn", ".feed_forward")

    def __init__(self, network: NextDit, probes: list[str]):
        self.values: dict[str, Tensor] = {}
        modules = {"patch_embed": "patch_embedder.proj"}
        modules |= {name: name for name in ("caption_projection", "time_caption_embed")}
        for layer in range(network.config.layers):
            modules |= {f"layer_{layer}{theirs}": f"layers.{layer}{ours}" for theirs, ours in self.PARTS}
        self.modules = {name: network.get_submodule(modules[name]) for name in probes if name in modules}

    def __enter__(self) -> Recorder:
        self.hooks = [
            module.register_forward_hook(lambda *args, name=name: self.values.update({name: args[-1]}))
            for name, module in self.modules.items()
        ]
        return self

    def __exit__(self, *error: object) -> None:
        for hook in self.hooks:
            hook.remove()


def check_gradient_summary(fixture: Fixture, network: NextDit, case: str, summary: dict) -> Iterator[Row]:
    """Sum and L2 norm of every parameter's gradient, relative to that norm."""
    gradients = {PUBLISHED_PREFIX + name: parameter.grad for name, parameter in network.named_parameters()}
    if gradients.keys() != summary.keys():
        different = sorted(gradients.keys() ^ summary.keys())
        raise ValueError(f"{fixture.name}.json: parameter gradients of case {case} do not match: {different}")
    path = f"param_grad_case_{case}"
    theirs = {
        key: torch.tensor([fixture.setting(path, name, key) for name in gradients], dtype=torch.float64)
        for key in ("sum", "l2")
    }
    # the bias of the cross-attention's key norm has a gradient of exactly zero: judge it on the others' scale
    norms = theirs["l2"].clamp(min=1e-3 * theirs["l2"].max().item())
    roots = torch.tensor([math.sqrt(gradient.numel()) for gradient in gradients.values()])
    for key, ours, scale in (
        ("sum", [gradient.double().sum() for gradient in gradients.values()], norms * roots),
        ("l2", [gradient.double().norm() for gradient in gradients.values()], norms),
    ):
        quantity = f"case_{case} parameter gradients, {key}, relative ({len(gradients)})"
        yield fixture.compare(quantity, torch.stack(ours) / scale, theirs[key] / scale, GRADIENT_SUMMARY)
