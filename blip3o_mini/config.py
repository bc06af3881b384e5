"""Sizes of every part, as small frozen dataclasses, and the named presets that fill them.

One class per part, the same at every scale: `toy` is trained from scratch on a laptop,
`4b` and `8b` are the published BLIP3-o models. Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: the known one that looks most like it, if any does."""
    nearest = difflib.get_close_matches(name, sorted(known), n=1)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""


@dataclass(frozen=True)
class VisionConfig:
    """Images (B, 3, image_size, image_size) → features (B, Q, feature_width), Q = pooled grid cells."""

    image_size: int
    patch_size: int
    width: int
    layers: int
    head_width: int
    pool: int  # kernel = stride of the average pooling over the patch grid
    feature_width: int  # width of the features; smaller than `width` when they are whitened
    is_whitened: bool  # toy: features are projected to decorrelated, unit-variance channels
    mlp_ratio: float = 4.0
    text_width: int = 128  # CLIP's own text tower, needed only to train the vision part
    text_layers: int = 2
    text_context: int = 48
    kind: str = "clip"  # "clip" (toy: open_clip, trained here) or "eva" (published: EVA-CLIP's image tower)

    @property
    def grid(self) -> int:
        """Rows (= columns) of the pooled feature grid."""
        return self.image_size // self.patch_size // self.pool

    @property
    def num_features(self) -> int:
        return self.grid**2


@dataclass(frozen=True)
class BackboneConfig:
    """The autoregressive transformer. `kind` names the transformers family that implements it."""

    kind: str  # "qwen2" (toy) or "qwen2_5_vl" (published)
    width: int
    layers: int
    heads: int
    kv_heads: int
    ffn_width: int
    vocabulary: int
    context: int  # longest sequence in tokens, images and queries included
    num_queries: int
    query_std: float = 1.0  # of the queries' first values
    image_positions: int = 0  # > 0: a picture's tokens get learned places, for that many cells (toy)
    rope_theta: float = 1_000_000.0
    is_tied: bool = True
    system_prompt: str = ""
    generation_prompt: str = "draw {caption}"
    editing_prompt: str = "{instruction}"  # behind the picture
    settings: dict = field(default_factory=dict)  # qwen2_5_vl: transformers' own, where not said above


@dataclass(frozen=True)
class DitConfig:
    """The Next-DiT (reference section 4). The last three options are for small models only."""

    feature_width: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    condition_width: int
    multiple_of: int = 256  # the feed-forward width is rounded up to a multiple of this
    positions: int = 0  # > 0: learned absolute positions for that many tokens (toy)
    is_aligned: bool = False  # True: query k's condition is also added to cell k (toy: as many queries as cells)
    has_source: bool = False  # True: reads the features of a source image, for editing (toy)
    is_integer: bool = False  # True: told whole thousandths of the noise level in sampling, as published (quirk Q11)


@dataclass(frozen=True)
class DecoderConfig:
    """Features → pixels by a conditional diffusion UNet from diffusers."""

    kind: str  # "pixel" (toy: flow matching on folded pixels) or "sdxl" (published: UNet + VAE)
    image_size: int
    feature_width: int
    channels: tuple[int, ...]
    layers_per_block: int
    fold: int = 1  # pixels of one fold×fold square become channels, so that the UNet sees a small image
    steps: int = 50
    guidance: float = 3.0
    negative_prompt: str | None = None  # sdxl: guidance moves away from the features of this bare prompt
    settings: dict = field(default_factory=dict)  # sdxl: diffusers' own, by part, where not as published


@dataclass(frozen=True)
class ModelConfig:
    """Everything needed to build a model; `save` and `load` keep it as config.json."""

    name: str
    vision: VisionConfig
    backbone: BackboneConfig
    dit: DitConfig
    decoder: DecoderConfig
    guidance_scale: float = 3.0
    steps: int = 30
    extra: dict = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> ModelConfig:
        """Rebuild a config from `to_json`; raises ValueError naming what is missing or unknown."""
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"config.json is damaged ({error}); copy or train it again") from error
        parts = {"vision": VisionConfig, "backbone": BackboneConfig, "dit": DitConfig, "decoder": DecoderConfig}
        try:
            for key, part in parts.items():
                data[key] = _made(part, data[key], f"config.json's {key}")
            data["decoder"] = dataclasses.replace(data["decoder"], channels=tuple(data["decoder"].channels))
            return _made(cls, data, "config.json")
        except (KeyError, TypeError) as error:
            raise ValueError(f"config.json does not describe a blip3o_mini model: {error}") from error

    @classmethod
    def load(cls, folder: str | Path) -> ModelConfig:
        return cls.from_json((Path(folder) / "config.json").read_text())


def _made(kind: type, told: dict, place: str):
    """One of the classes above from what a file says; raises ValueError on a key that it does not have."""
    known = {one.name for one in dataclasses.fields(kind)}
    for key in told:
        if key not in known:
            raise ValueError(f"{place} has the unknown key {key!r}{did_you_mean(key, known)}")
    return kind(**told)


def _toy_like(name: str, *, width: int, layers: int, vision_width: int, channels: tuple[int, ...]) -> ModelConfig:
    """A model of the toy family: 72-pixel images, 3×3 features, everything trained from scratch."""
    features = 20  # what the world has to say of a cell: 6 shapes, 8 colours, 2 sizes, 5 backgrounds, an offset
    return ModelConfig(
        name=name,
        vision=VisionConfig(
            image_size=72, patch_size=24, width=vision_width, layers=max(2, layers - 2), head_width=32,
            pool=1, feature_width=features, is_whitened=True,
        ),
        backbone=BackboneConfig(
            kind="qwen2", width=width, layers=layers, heads=4, kv_heads=2, ffn_width=3 * width,
            vocabulary=1024, context=256, num_queries=9, query_std=0.2, image_positions=9,
            rope_theta=10_000.0,
        ),
        dit=DitConfig(
            feature_width=features, width=width, layers=max(2, layers - 1), heads=4, kv_heads=4,
            condition_width=width, multiple_of=64, positions=9, is_aligned=True, has_source=True,
        ),
        decoder=DecoderConfig(
            kind="pixel", image_size=72, feature_width=features, channels=channels, layers_per_block=1,
            fold=3, steps=8, guidance=1.0,
        ),
    )  # fmt: skip


def _published(name: str, *, width: int, layers: int, heads: int, kv_heads: int, ffn: int, tied: bool) -> ModelConfig:
    """The published sizes (reference sections 1, 3, 4 and 11)."""
    return ModelConfig(
        name=name,
        vision=VisionConfig(
            image_size=448, patch_size=14, width=1792, layers=64, head_width=112, pool=4, feature_width=1792,
            is_whitened=False, mlp_ratio=15360 / 1792, kind="eva",
        ),
        backbone=BackboneConfig(
            kind="qwen2_5_vl", width=width, layers=layers, heads=heads, kv_heads=kv_heads, ffn_width=ffn,
            vocabulary=151_668, context=128_000, num_queries=64, is_tied=tied,
            system_prompt="You are a helpful assistant.",
            generation_prompt="Please generate image based on the following caption: {caption}",
            editing_prompt="\n{instruction}", settings=dict(
                rms_norm_eps=1e-6, rope_scaling={"rope_type": "default", "mrope_section": [16, 24, 24]},
                vision_config=dict(
                    depth=32, hidden_size=1280, intermediate_size=3420, num_heads=16, out_hidden_size=width,
                    fullatt_block_indexes=[7, 15, 23, 31], window_size=112, tokens_per_second=2,
                ),
            ),
        ),
        dit=DitConfig(
            feature_width=1792, width=1792, layers=24, heads=28, kv_heads=28, condition_width=width,
            is_integer=True,
        ),
        decoder=DecoderConfig(
            kind="sdxl", image_size=1024, feature_width=1792, channels=(320, 640, 1280), layers_per_block=2,
            negative_prompt=" ",
        ),
    )  # fmt: skip


PRESETS = {
    "tiny": _toy_like("tiny", width=32, layers=2, vision_width=32, channels=(32, 32)),
    "toy": _toy_like("toy", width=128, layers=6, vision_width=192, channels=(32, 64, 96)),
    "4b": _published("4b", width=2048, layers=36, heads=16, kv_heads=2, ffn=11008, tied=True),
    "8b": _published("8b", width=3584, layers=28, heads=28, kv_heads=4, ffn=18944, tied=False),
}


def preset(name: str) -> ModelConfig:
    """Look up a preset; raises ValueError listing the known names."""
    if name not in PRESETS:
        raise ValueError(f"there is no preset {name!r}; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]


@dataclass(frozen=True)
class Recipe:
    """How one stage is trained: AdamW, warm-up, cosine to a floor, clipping, averaged weights."""

    steps: int
    batch: int
    lr: float
    warmup: int = 100
    floor: float = 0.05  # of lr, reached at the last step
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = 1.0
    ema: float = 0.0  # decay of the averaged weights; 0 keeps the last ones
    accumulate: int = 1  # batches per update
    query_lr: float = 1.0  # the queries' learning rate, as a multiple of lr
    drop: float = 0.1  # share of samples that lose their condition (generation)
    draws: int = 1  # noise levels tried on every prompt of a batch, which is read only once (generation)


STAGES = ("vision", "decoder", "understanding", "generation", "instruct")
RECIPES = {
    "toy": {
        "vision": Recipe(steps=2400, batch=128, lr=1.5e-3),
        "decoder": Recipe(steps=5000, batch=32, lr=1.5e-3, ema=0.998),
        "understanding": Recipe(steps=4000, batch=64, lr=1.5e-3, weight_decay=0.1),
        "generation": Recipe(steps=4500, batch=128, lr=1.5e-3, draws=3, query_lr=0.2, ema=0.998),
        "instruct": Recipe(steps=600, batch=128, lr=8e-4, draws=3, query_lr=0.2, ema=0.995),
        "joint": Recipe(steps=3400, batch=128, lr=1e-3),
    },
    "tiny": {
        stage: Recipe(steps=20, batch=8, lr=1e-3, warmup=5, ema=0.9 if stage == "generation" else 0.0)
        for stage in (*STAGES, "joint")
    },
}
POOL = {"toy": 40_000, "tiny": 64}  # scenes whose features are cached
