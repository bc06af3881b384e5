"""Where a model comes from and where it goes: presets, checkpoint folders, the hub.

The part of `Blip3oMini` that has nothing to do with what it computes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

import torch
from torch import nn

from . import checkpoint
from .config import ModelConfig, preset
from .eva import EvaVision
from .tokens import load_tokenizer, train_tokenizer
from .vision import Vision

STAND_IN = 2048  # words of the tokenizer that a published preset with random weights gets


class Pretrained(nn.Module):
    """A model with `config`, `chat_tokens` and the parts vision, backbone, dit and decoder."""

    folder: Path | None = None  # where the weights came from

    @property
    def tokenizer(self):
        return self.chat_tokens.tokenizer

    @property
    def device(self) -> torch.device:
        return self.backbone.queries.device

    @property
    def vision(self) -> Vision | EvaVision:
        """The vision part, made on first use: drawing needs none, and it takes seconds to import or is large."""
        if "vision_part" not in self._modules:
            sizes, place = self.config.vision, self.device if self.device.type == "meta" else "cpu"
            with torch.random.fork_rng(devices=[]), torch.device(place):
                torch.manual_seed(0)
                part = EvaVision(sizes) if sizes.kind == "eva" else Vision(sizes, self.config.backbone.vocabulary)
            if self.folder is not None:
                checkpoint.load_part(part, self.folder, "vision")
            self.vision_part = part.to(self.device, self.backbone.queries.dtype).train(self.training)
        return self.vision_part

    # ------------------------------------------------------------------ making, loading, saving

    @classmethod
    def from_preset(
        cls, name: str, *, device: str | None = None, dtype: torch.dtype | None = None, seed: int = 0
    ) -> Self:
        """A new model with random weights, the same for the same seed.

        On the device "meta" it has shapes but no weights, and takes no memory. A published preset gets a small
        stand-in tokenizer, since the real one comes with the published weights.
        """
        config, (device, _) = preset(name), checkpoint.choose_device(device)
        tokenizer = train_tokenizer(min(config.backbone.vocabulary, STAND_IN))
        with torch.random.fork_rng(devices=[]), torch.device("meta" if device.type == "meta" else "cpu"):
            torch.manual_seed(seed)
            model = cls(config, tokenizer)
        return model.to(device, dtype).eval()

    @classmethod
    def from_pretrained(cls, name: str | Path, *, device: str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Load "toy" (shipped), a folder, or a hub repository "owner/name".

        Raises FileNotFoundError or ValueError naming the file that is missing, damaged, or of another preset.
        """
        folder = checkpoint.find(name)
        device, _ = checkpoint.choose_device(device)
        config = ModelConfig.from_json(checkpoint.read_text(folder / "config.json"))
        with torch.random.fork_rng(devices=[]):
            model = cls(config, load_tokenizer(folder))
        for part in ("backbone", "dit", "decoder"):
            checkpoint.load_part(getattr(model, part), folder, part)
        checkpoint.check_file(folder / "vision.safetensors")
        model.folder = folder
        return model.to(device, dtype).eval()

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json, the tokenizer and one safetensors file per part."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for part in checkpoint.PARTS:
            checkpoint.save_part(getattr(self, part), folder, part)
        self.tokenizer.save_pretrained(folder)
        checkpoint.write_text(folder / "config.json", self.config.to_json())

    def push_to_hub(self, repository: str, **options) -> None:
        """Upload the checkpoint to a hub repository "owner/name" (made if absent)."""
        checkpoint.push(self, repository, **options)

    def parameter_counts(self) -> dict[str, int]:
        """Number of parameters by part; the queries are counted apart from the backbone."""
        counts = {name: sum(p.numel() for p in getattr(self, name).parameters()) for name in checkpoint.PARTS}
        counts["queries"] = self.backbone.queries.numel()
        counts["backbone"] -= counts["queries"]
        return counts | {"total": sum(counts.values())}
