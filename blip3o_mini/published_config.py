"""The original's configuration files ↔ ours. Everything they say is kept, so that the way back is exact.

    config.json                                 sizes of the language model, its settings, names of other parts
    diffusion-decoder/{unet,vae,scheduler}/     diffusers' own configurations
The DiT's and the image tower's sizes stand in neither: the original has them in its code. For its own tower they
are those of the presets, for any other they are read off the shapes of the tensors (reference sections 3.1, 4.1).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace

from .config import PRESETS, BackboneConfig, DecoderConfig, DitConfig, ModelConfig, VisionConfig, did_you_mean

Shapes = Mapping[str, tuple[int, ...]]  # of a part's tensors, by our names

MODEL_TYPES = ("blip3o_qwen", "blip3o_qwen_inference")
TOWER = "eva-clip-E-14-plus"
LIKE = PRESETS["8b"]

# key of config.json, part, our field
FIELDS = (
    ("hidden_size", "backbone", "width"),
    ("num_hidden_layers", "backbone", "layers"),
    ("num_attention_heads", "backbone", "heads"),
    ("num_key_value_heads", "backbone", "kv_heads"),
    ("intermediate_size", "backbone", "ffn_width"),
    ("vocab_size", "backbone", "vocabulary"),
    ("max_position_embeddings", "backbone", "context"),
    ("n_query", "backbone", "num_queries"),
    ("rope_theta", "backbone", "rope_theta"),
    ("tie_word_embeddings", "backbone", "is_tied"),
    ("gen_hidden_size", "vision", "feature_width"),
)
POOLING, HEAD_WIDTH = "gen_pooling", "gen_vision_head_width"  # the second is ours: no tensor's shape tells it
# what a published config.json says beside sizes: the language model's own settings …
SETTINGS = {
    "attention_dropout": 0.0, "bos_token_id": 151643, "eos_token_id": 151645, "hidden_act": "silu",
    "image_token_id": 151655, "initializer_range": 0.02, "max_window_layers": 28, "pad_token_id": 151643,
    "rms_norm_eps": 1e-6, "rope_scaling": {"mrope_section": [16, 24, 24], "rope_type": "default", "type": "default"},
    "sliding_window": 32768, "use_sliding_window": False, "video_token_id": 151656, "vision_end_token_id": 151653,
    "vision_start_token_id": 151652, "vision_token_id": 151654,
    "vision_config": {
        "depth": 32, "fullatt_block_indexes": [7, 15, 23, 31], "hidden_act": "silu", "hidden_size": 1280,
        "in_channels": 3, "in_chans": 3, "intermediate_size": 3420, "model_type": "qwen2_5_vl", "num_heads": 16,
        "out_hidden_size": 3584, "patch_size": 14, "spatial_merge_size": 2, "spatial_patch_size": 14,
        "temporal_patch_size": 2, "tokens_per_second": 2, "torch_dtype": "bfloat16", "window_size": 112,
    },
}  # fmt: skip
# … and what concerns training or is said for other programs
REST = {
    "architectures": ["blip3oQwenForCausalLM"], "freeze_mm_mlp_adapter": False, "gen_vision_tower": TOWER,
    "image_aspect_ratio": "square", "mm_patch_merge_type": "flat", "mm_projector_lr": None,
    "mm_projector_type": "mlp2x_gelu", "mm_use_im_patch_token": False, "mm_use_im_start_end": False,
    "mm_vision_select_feature": "patch", "mm_vision_select_layer": -2, "model_type": "blip3o_qwen",
    "tokenizer_model_max_length": 512, "tokenizer_padding_side": "right", "torch_dtype": "bfloat16",
    "transformers_version": "4.51.3", "tune_mm_mlp_adapter": False, "use_cache": True, "use_mm_proj": True,
    "vision_tower_pretrained": None,
}  # fmt: skip
SELDOM = {
    "_attn_implementation_autoset", "_name_or_path", "dtype", "gen_projector_type", "is_train", "mm_hidden_size",
    "mm_vision_tower", "n_und_query", "unfreeze_mm_vision_tower", HEAD_WIDTH,
}  # fmt: skip
KNOWN = {key for key, _, _ in FIELDS} | {POOLING, *SETTINGS, *REST, *SELDOM}
FIRST_ID = "bos_token_id"  # the special tokens follow each other; a small vocabulary moves them all
DTYPES = ("float32", "bfloat16", "float16")
KNOWN_INSIDE = {"rope_scaling": {*SETTINGS["rope_scaling"]}}
KNOWN_INSIDE["vision_config"] = {*SETTINGS["vision_config"], "initializer_range", "_name_or_path", "dtype"}


def is_published(told: dict) -> bool:
    """Whether a config.json is the original's; raises ValueError when it is of some other model."""
    kind = told.get("model_type")
    if kind is not None and kind not in MODEL_TYPES:
        raise ValueError(f"config.json is of a {kind!r} model; expected one of blip3o_mini, or {MODEL_TYPES[0]!r}")
    return kind is not None


def check_keys(told: dict) -> None:
    """Raise ValueError on a key that no published config.json has, naming the one it looks like, or on a lost one."""
    groups = [("config.json", told, KNOWN)]
    groups += [(f"config.json's {key}", told.get(key), known) for key, known in KNOWN_INSIDE.items()]
    for place, group, known in groups:
        if not isinstance(group, dict):
            raise ValueError(f"{place} holds {group!r}, not named values")
        for key in group:
            if key not in known:
                raise ValueError(f"{place} has the unknown key {key!r}{did_you_mean(key, known)}")
    for key, part, field in FIELDS:
        kind, value = type(getattr(getattr(LIKE, part), field)), told.get(key)
        fits = isinstance(value, (int, float)) if kind is float else type(value) is kind
        if not fits or value < (kind is not bool):
            expected = "true or false" if kind is bool else "a number above 0"
            raise ValueError(f"config.json says {key} = {json.dumps(value)}; expected {expected}")
    for key in told:
        if key.endswith("_token_id") and type(told[key]) is int and told[key] >= told["vocab_size"]:
            raise ValueError(f"config.json says {key} = {told[key]}, but the vocabulary has {told['vocab_size']} words")
    dtype = told.get("torch_dtype", told.get("dtype"))
    if dtype not in DTYPES:
        raise ValueError(f"config.json says torch_dtype = {json.dumps(dtype)}; expected {' or '.join(DTYPES)}")


# ------------------------------------------------------------------ theirs → ours


def from_published(told: dict, shapes: Mapping[str, Shapes], decoder: Mapping[str, dict] | None = None) -> ModelConfig:
    """Our config from the original's: its config.json, the shapes of all tensors by part, the decoder's own files.

    Raises ValueError on unknown keys, impossible values, and sizes that can be found nowhere.
    """
    check_keys(told)
    backbone = replace(
        LIKE.backbone, **{field: told[key] for key, part, field in FIELDS if part == "backbone"},
        settings={key: told[key] for key in told if key in SETTINGS},
    )  # fmt: skip
    rest = {key: told[key] for key in told if key in REST | dict.fromkeys(SELDOM - {HEAD_WIDTH})}
    width = told["gen_hidden_size"]
    is_theirs = told.get("gen_vision_tower") == TOWER and width == LIKE.vision.width
    dit = replace(LIKE.dit, condition_width=backbone.width) if is_theirs else dit_of(shapes.get("dit", {}), backbone)
    vision = LIKE.vision if is_theirs else vision_of(shapes.get("vision", {}), told)
    return ModelConfig(
        name=name_of(backbone), backbone=backbone, extra={"published": rest},
        vision=replace(vision, pool=pool_of(told)), dit=replace(dit, feature_width=width),
        decoder=replace(LIKE.decoder, feature_width=width) if decoder is None else decoder_of(decoder),
    )  # fmt: skip


def dtype_name(config: ModelConfig) -> str:
    """The type of a published model's weights."""
    told = config.extra.get("published", REST)
    return told.get("torch_dtype") or told["dtype"]


def name_of(backbone: BackboneConfig) -> str:
    """The preset that has these sizes."""
    sizes = (backbone.kind, backbone.width, backbone.layers)
    presets = ((p.name, (p.backbone.kind, p.backbone.width, p.backbone.layers)) for p in PRESETS.values())
    return next((name for name, known in presets if known == sizes), "published")


def pool_of(told: dict) -> int:
    """Cells per side that are averaged, from "early_pool2d_4"."""
    found = re.fullmatch(r"early_pool2d_([1-9]\d*)", str(told.get(POOLING)))
    if not found:
        raise ValueError(f"config.json says {POOLING} = {told.get(POOLING)!r}; expected early_pool2d_4 or the like")
    return int(found[1])


def shape(shapes: Shapes, name: str, part: str) -> tuple[int, ...]:
    """A tensor's shape, from which a size is read."""
    if name not in shapes:
        raise ValueError(f"the {part} holds no {name}, from which its sizes are read")
    return shapes[name]


def count(shapes: Shapes, prefix: str) -> int:
    """Number of layers named prefix.0, prefix.1, …"""
    found = (re.match(rf"{prefix}\.(\d+)\.", name) for name in shapes)
    return 1 + max((int(match[1]) for match in found if match), default=-1)


def dit_of(shapes: Shapes, backbone: BackboneConfig) -> DitConfig:
    """The DiT's sizes from its tensors' shapes."""
    width, features = shape(shapes, "patch_embedder.proj.weight", "DiT")
    heads = shape(shapes, "layers.0.gate", "DiT")[0]
    key_width = shape(shapes, "layers.0.attn1.to_k.weight", "DiT")[0]
    inner = shape(shapes, "layers.0.feed_forward.linear_1.weight", "DiT")[0]
    return replace(
        LIKE.dit, feature_width=features, width=width, layers=count(shapes, "layers"), heads=heads,
        kv_heads=max(1, key_width * heads // width), condition_width=backbone.width,
        multiple_of=rounding_of(width, inner),
    )  # fmt: skip


def rounding_of(width: int, inner: int) -> int:
    """What the feed-forward width is a multiple of: 256 as published, or the largest number that gives it."""
    least = int(2 * (4 * width) / 3)
    for multiple in (LIKE.dit.multiple_of, *range(inner, 0, -1)):
        if math.ceil(least / multiple) * multiple == inner:
            return multiple
    raise ValueError(f"the DiT is {width} wide, but no rounding makes its feed-forward part {inner} wide")


def vision_of(shapes: Shapes, told: dict) -> VisionConfig:
    """The image tower's sizes from its tensors' shapes; its head width stands in config.json or is unknown (0)."""
    if not shapes:
        raise ValueError(
            f"config.json names the image tower {told.get('gen_vision_tower')!r}, whose sizes are not known, and "
            f"the checkpoint does not hold it; the published one is {TOWER!r}"
        )
    patch = shape(shapes, "tower.patch_embed.proj.weight", "image tower")[-1]
    tokens, width = shape(shapes, "tower.pos_embed", "image tower")[1:]
    inner = shape(shapes, "tower.blocks.0.mlp.fc1.weight", "image tower")[0]
    ratio = inner / width
    return replace(
        LIKE.vision, image_size=math.isqrt(tokens - 1) * patch, patch_size=patch, width=width, feature_width=width,
        layers=count(shapes, r"tower\.blocks"), head_width=told.get(HEAD_WIDTH, 0),
        mlp_ratio=ratio if int(width * ratio) == inner else math.nextafter(ratio, math.inf),
    )  # fmt: skip


def decoder_of(told: Mapping[str, dict]) -> DecoderConfig:
    """The decoder from diffusers' configurations of its UNet, autoencoder and scheduler, which are kept whole."""
    unet, vae = told["unet"], told["vae"]
    try:
        return replace(
            LIKE.decoder, image_size=unet["sample_size"] * 2 ** (len(vae["block_out_channels"]) - 1),
            feature_width=unet["cross_attention_dim"], channels=tuple(unet["block_out_channels"]),
            layers_per_block=unet["layers_per_block"], settings=dict(told),
        )  # fmt: skip
    except (KeyError, TypeError) as error:
        raise ValueError(f"the decoder's configuration lacks a size or says it wrongly: {error}") from error


# ------------------------------------------------------------------ ours → theirs


def to_published(config: ModelConfig, dtype: str | None = None) -> dict:
    """The original's config.json for one of ours; raises ValueError when the original has no such model.

    dtype: the type of the weights, where it is not the one that was read.
    """
    check_kind(config)
    vision, backbone = config.vision, config.backbone
    told = {key: getattr(getattr(config, part), field) for key, part, field in FIELDS}
    told[POOLING] = f"early_pool2d_{vision.pool}"
    if "published" in config.extra:
        told |= backbone.settings | config.extra["published"]
    else:
        inside = {key: value | backbone.settings.get(key, {}) for key, value in SETTINGS.items() if key in KNOWN_INSIDE}
        moved = backbone.settings.get(FIRST_ID, SETTINGS[FIRST_ID]) - SETTINGS[FIRST_ID]
        ids = {key: value + moved for key, value in SETTINGS.items() if key.endswith("_token_id")}
        told |= REST | SETTINGS | ids | backbone.settings | inside
        if (vision.width, vision.layers) != (LIKE.vision.width, LIKE.vision.layers):
            told["gen_vision_tower"] = f"eva-clip-{config.name}"
    if told["gen_vision_tower"] != TOWER and vision.head_width:
        told[HEAD_WIDTH] = vision.head_width
    return told | ({"dtype" if "dtype" in told else "torch_dtype": dtype} if dtype else {})


def check_kind(config: ModelConfig) -> None:
    """Raise ValueError when a config has options that no published model has."""
    dit, plain = config.dit, replace(config.dit, positions=0, is_aligned=False, has_source=False, is_integer=True)
    kinds = (config.backbone.kind, config.vision.kind, config.decoder.kind)
    if kinds != ("qwen2_5_vl", "eva", "sdxl") or dit != plain:
        raise ValueError(
            f"the model {config.name!r} has no published form: only models with a Qwen2.5-VL backbone, an EVA-CLIP "
            "tower, the plain DiT and an SDXL-size decoder have one (presets 4b and 8b)"
        )
