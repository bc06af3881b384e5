"""The parts of the model in an `ar_checkpoint_` folder, sized by its config.json and the fixture beside it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ..checkpoint import read_tensors
from ..config import BackboneConfig, DitConfig
from ..dit import NextDit
from ..eva import EvaVision
from ..qwen_chat import QwenChat
from ..qwen_vl import QwenVlBackbone
from .fixture import Fixture
from .network import SIZES
from .tower import tower_config

# published name → part and our name; the first prefix that fits counts
PREFIXES = (
    ("model.dit.model.", "dit", ""),
    ("model.gen_vision_tower.vision_tower.model.", "vision", ""),
    ("model.latent_queries", "backbone", "queries"),
    ("visual.", "backbone", "language.model.visual."),
    ("lm_head.", "backbone", "language.lm_head."),
    ("model.", "backbone", "language.model.language_model."),
)
HEAD, EMBEDDING = "language.lm_head.weight", "language.model.language_model.embed_tokens.weight"
SETTINGS = ("rope_scaling", "vision_config", "rms_norm_eps", "hidden_act")


@dataclass
class PublishedParts:
    """What reads and draws: everything but the pixel decoder."""

    chat: QwenChat
    backbone: QwenVlBackbone
    dit: NextDit
    vision: EvaVision

    def gradients(self) -> dict[str, Tensor]:
        """Gradients of everything that has one, under published names."""
        parts = {"dit": self.dit, "backbone": self.backbone, "vision": self.vision}
        return {
            published + name.removeprefix(ours): parameter.grad
            for published, part, ours in PREFIXES
            for name, parameter in parts[part].named_parameters()
            if parameter.grad is not None and name.startswith(ours)
        }


def place_of(name: str) -> tuple[str, str]:
    """The part that a published tensor belongs to, and its name there."""
    for published, part, ours in PREFIXES:
        if name.startswith(published):
            return part, ours + name.removeprefix(published)
    raise ValueError(f"the checkpoint holds {name}, which no part of the model has")


def backbone_config(told: dict) -> BackboneConfig:
    """Our config from the original's."""
    settings = {key: value for key, value in told.items() if key.endswith("_token_id") or key in SETTINGS}
    return BackboneConfig(
        "qwen2_5_vl", width=told["hidden_size"], layers=told["num_hidden_layers"], heads=told["num_attention_heads"],
        kv_heads=told["num_key_value_heads"], ffn_width=told["intermediate_size"], vocabulary=told["vocab_size"],
        context=told["max_position_embeddings"], num_queries=told["n_query"], rope_theta=told["rope_theta"],
        is_tied=told["tie_word_embeddings"], settings=settings,
    )  # fmt: skip


def read_parts(fixture: Fixture, folder: Path) -> PublishedParts:
    """Build and fill all parts; raises ValueError naming what is missing or does not fit."""
    name = fixture.name.replace("ar_condition_", "ar_checkpoint_")
    folder = folder / fixture.setting("weights_directory", default=name)
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"{fixture.name} belongs to the folder {folder.name}, which holds no config.json")
    told = json.loads(path.read_text(encoding="utf-8"))
    config = backbone_config(told)
    chat = QwenChat(None, config)
    pool = int(told["gen_pooling"].rpartition("_")[2])
    parts = PublishedParts(
        chat, QwenVlBackbone(config, chat).eval(),
        NextDit(DitConfig(**{ours: fixture.setting("dit", theirs) for ours, theirs in SIZES.items()})),
        EvaVision(tower_config(fixture, "eva_vision_cfg", pool)).eval(),
    )  # fmt: skip
    weights: dict[str, dict[str, Tensor]] = {"backbone": {}, "dit": {}, "vision": {}}
    for shard in sorted(folder.glob("*.safetensors")):
        for published, tensor in read_tensors(shard)[0].items():
            part, ours = place_of(published)
            weights[part][ours] = tensor
    if HEAD not in weights["backbone"] and config.is_tied:
        weights["backbone"][HEAD] = weights["backbone"][EMBEDDING]
    fixture.fill(parts.backbone, weights["backbone"])
    fixture.fill(parts.dit, weights["dit"])
    fixture.fill(parts.vision.tower, weights["vision"])
    return parts
