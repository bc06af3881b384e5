"""The parts of the model in an `ar_checkpoint_` folder, sized by its config.json and the fixture beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from .. import published
from ..config import DitConfig
from ..dit import NextDit
from ..eva import EvaVision
from ..qwen_chat import QwenChat
from ..qwen_vl import QwenVlBackbone
from .fixture import Fixture
from .network import SIZES
from .tower import tower_config


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
            published.published_name(part, name)[1]: parameter.grad
            for part, module in parts.items()
            for name, parameter in module.named_parameters()
            if parameter.grad is not None
        }


def read_parts(fixture: Fixture, folder: Path) -> PublishedParts:
    """Build and fill all parts; raises ValueError naming what is missing or does not fit."""
    name = fixture.name.replace("ar_condition_", "ar_checkpoint_")
    folder = folder / fixture.setting("weights_directory", default=name)
    if not (folder / "config.json").is_file():
        raise ValueError(f"{fixture.name} belongs to the folder {folder.name}, which holds no config.json")
    found = published.find(folder)
    config = published.read_config(folder, found)
    chat = QwenChat(None, config.backbone)
    parts = PublishedParts(
        chat, QwenVlBackbone(config.backbone, chat).eval(),
        NextDit(DitConfig(**{ours: fixture.setting("dit", theirs) for ours, theirs in SIZES.items()})),
        EvaVision(tower_config(fixture, "eva_vision_cfg", config.vision.pool)).eval(),
    )  # fmt: skip
    weights = {part: {name: stored.read() for name, stored in tensors.items()} for part, tensors in found.items()}
    if config.backbone.is_tied:
        weights["backbone"][published.HEAD] = weights["backbone"][published.EMBEDDING]
    for part in ("backbone", "dit", "vision"):
        fixture.fill(getattr(parts, part), weights.get(part, {}))
    return parts
