"""A model of the published kind, every part tiny: Qwen2.5-VL, EVA tower, integer timesteps, guided UNet and VAE."""

from dataclasses import replace
from functools import cache

import torch

from blip3o_mini.config import PRESETS, ModelConfig
from blip3o_mini.model import Blip3oMini
from blip3o_mini.tokens import train_tokenizer

FEATURES, WIDTH = 16, 32
VISION = dict(
    depth=2, hidden_size=32, intermediate_size=48, num_heads=2, out_hidden_size=WIDTH, window_size=56,
    fullatt_block_indexes=[1], tokens_per_second=2,
)  # fmt: skip


def tiny_config(*, is_tied: bool = False) -> ModelConfig:
    """The 4b preset with everything made small; the vocabulary's special ids lie below its end."""
    large, text = PRESETS["4b"], 600
    ids = {"bos_token_id": text, "eos_token_id": text + 2, "vision_start_token_id": text + 9}
    ids |= {"vision_end_token_id": text + 10, "image_token_id": text + 12, "video_token_id": text + 13}
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1]}
    return replace(
        large, name="tiny-published", steps=3,
        vision=replace(
            large.vision, image_size=56, patch_size=14, width=FEATURES, layers=2, head_width=8, pool=2,
            feature_width=FEATURES, mlp_ratio=3.0,
        ),
        backbone=replace(
            large.backbone, width=WIDTH, layers=2, heads=4, kv_heads=2, ffn_width=64, vocabulary=640, context=4096,
            num_queries=4, is_tied=is_tied, settings=ids | {"rope_scaling": rope, "vision_config": VISION},
        ),
        dit=replace(
            large.dit, feature_width=FEATURES, width=32, layers=2, heads=2, kv_heads=2, condition_width=WIDTH,
            multiple_of=16,
        ),
        decoder=replace(
            large.decoder, image_size=32, feature_width=FEATURES, channels=(32, 64), steps=2,
            settings={
                "unet": {"norm_num_groups": 8, "attention_head_dim": [2, 4], "transformer_layers_per_block": [1, 1]},
                "vae": {
                    "block_out_channels": [8, 16], "layers_per_block": 1, "norm_num_groups": 4,
                    "down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2,
                },
            },
        ),
    )  # fmt: skip


@cache
def tiny_tokenizer():
    return train_tokenizer(560)


def tiny_published(**options) -> Blip3oMini:
    """The model with random weights, the same ones always."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Blip3oMini(tiny_config(**options), tiny_tokenizer()).eval()
