"""Where a model comes from and where it goes: presets, checkpoint folders, the hub.

The part of `Blip3oMini` that has nothing to do with what it computes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

import torch
from torch import nn

from . import checkpoint, memory, placement
from .config import ModelConfig, preset
from .eva import EvaVision
from .loading import Source, open_source
from .published_config import HEAD_WIDTH
from .tokens import has_tokenizer, load_tokenizer, train_tokenizer
from .vision import Vision

STAND_IN = 2048  # words of the tokenizer that a published preset with random weights gets


class Pretrained(nn.Module):
    """A model with `config`, `chat_tokens` and the parts vision, backbone, dit and decoder."""

    folder: Path | None = None  # where the weights of a small model came from
    source: Source | None = None  # where those of a large one lie
    offloaded: tuple[str, ...] = ()  # parts of a large one that stay in main memory

    @property
    def tokenizer(self):
        return self.chat_tokens.tokenizer

    @property
    def device(self) -> torch.device:
        return self.backbone.queries.device

    @property
    def parts(self) -> list[str]:
        """The parts that are there: a large checkpoint may come without its decoder or its image tower."""
        return [part for part in checkpoint.PARTS if self.source is None or self.source.tensors.get(part)]

    @property
    def vision(self) -> Vision | EvaVision:
        """The vision part, made on first use: drawing needs none, and it takes seconds to import or is large."""
        if "vision_part" not in self._modules:
            part = self.new_vision() if self.source is None else self.read_vision(self.source)
            if "vision" in self.offloaded:
                self.vision_part = part.train(self.training)
                placement.offload(self, ["vision"], self.device)
            else:
                self.vision_part = part.to(self.device, self.backbone.queries.dtype).train(self.training)
        return self.vision_part

    def new_vision(self) -> Vision | EvaVision:
        """The vision part with random weights, or those of a small model's file."""
        sizes, place = self.config.vision, self.device if self.device.type == "meta" else "cpu"
        with torch.random.fork_rng(devices=[]), torch.device(place):
            torch.manual_seed(0)
            part = EvaVision(sizes) if sizes.kind == "eva" else Vision(sizes, self.config.backbone.vocabulary)
        if self.folder is not None:
            checkpoint.load_part(part, self.folder, "vision")
        return part

    def read_vision(self, source: Source) -> EvaVision:
        """The image tower of a large checkpoint; raises ValueError when it is absent or not described."""
        if "vision" not in self.parts:
            raise ValueError(f"{source.folder} holds no image tower, which pictures → features need; drawing does not")
        if not self.config.vision.head_width:
            key = HEAD_WIDTH if source.is_theirs else "head_width"
            raise ValueError(
                f"{source.folder}: no tensor tells how wide the heads of the image tower are; add {key} to config.json "
                "(it is 112 in the published models)"
            )
        dtype = self.backbone.queries.dtype
        place = torch.device("cpu") if "vision" in self.offloaded else self.device
        source.check_room(["vision"], place, dtype)
        with placement.without_weights():
            part = EvaVision(self.config.vision)
        source.fill("vision", part, place, dtype)
        return part

    def check_decoder(self) -> None:
        """Raise ValueError when this model came without its decoder."""
        if self.decoder is None:
            raise ValueError(f"{self.source.folder} holds no decoder, so it draws no pictures; copy the whole folder")

    # ------------------------------------------------------------------ making, loading, saving

    @classmethod
    def from_preset(
        cls, name: str, *, device: str | None = None, dtype: torch.dtype | None = None, seed: int = 0
    ) -> Self:
        """A new model with random weights, the same for the same seed.

        On the device "meta" it has shapes but no weights, and takes no memory. A published preset gets a small
        stand-in tokenizer, since the real one comes with the published weights.
        """
        config, (device, _), dtype = preset(name), checkpoint.choose_device(device), checkpoint.choose_dtype(dtype)
        tokenizer = train_tokenizer(min(config.backbone.vocabulary, STAND_IN))
        with torch.random.fork_rng(devices=[]), torch.device("meta" if device.type == "meta" else "cpu"):
            torch.manual_seed(seed)
            model = cls(config, tokenizer)
        return checkpoint.move(model, device, dtype).eval()

    @classmethod
    def from_pretrained(
        cls, name: str | Path, *, device: str | None = None, dtype: torch.dtype | None = None,
        offload: Sequence[str] | str = (),
    ) -> Self:  # fmt: skip
        """Load "toy" (shipped), a folder, or a hub repository "owner/name".

        Large models, in our format or the original's, are read tensor by tensor; without dtype as they are stored.
        offload names parts of a large model that stay in main memory and visit the device layer by layer, from
        "vision", "backbone", "dit", "decoder"; "auto" leaves as few of them behind as the device's memory allows.
        Raises FileNotFoundError or ValueError naming what is missing, damaged, of another preset, or too large.
        """
        folder, dtype = checkpoint.find(name), checkpoint.choose_dtype(dtype)
        device, _ = checkpoint.choose_device(device)
        if source := open_source(folder):
            return cls.read(source, device, dtype, offload)
        if offload:
            raise ValueError(f"the model in {folder} is small; offload is for those of the 4b's and 8b's kind")
        config = ModelConfig.from_json(checkpoint.read_text(folder / "config.json"))
        with torch.random.fork_rng(devices=[]):
            model = cls(config, load_tokenizer(folder))
        for part in ("backbone", "dit", "decoder"):
            checkpoint.load_part(getattr(model, part), folder, part)
        checkpoint.check_file(folder / "vision.safetensors")
        model.folder = folder
        return checkpoint.move(model, device, dtype).eval()

    @classmethod
    def read(
        cls, source: Source, device: torch.device, dtype: torch.dtype | None, offload: Sequence[str] | str
    ) -> Self:
        """A large model: checked as a whole, then filled tensor by tensor, so that nothing is in memory twice."""
        model, parts = cls.outline(source)
        source.check(parts)
        if dtype is None:
            source.check_types()
        parts.pop("vision", None)  # read when it is first used
        if offload == "auto":
            sizes = {name: source.bytes([name], dtype) for name in parts}
            offload = () if device.type == "cpu" else placement.choose(sizes, memory.free_memory(device))
        model.offloaded = placement.check_parts(offload)
        places = {name: torch.device("cpu") if name in model.offloaded else device for name in parts}
        for place in {*places.values()}:
            source.check_room([name for name in parts if places[name] == place], place, dtype)
        for name, part in parts.items():
            source.fill(name, part, places[name], dtype)
        if "decoder" not in parts:
            logging.getLogger(__name__).warning("%s holds no decoder: it draws features, no pictures", source.folder)
        placement.offload(model, [name for name in parts if name in model.offloaded], device)
        return model.eval()

    @classmethod
    def outline(cls, source: Source) -> tuple[Self, dict[str, nn.Module]]:
        """A large model without weights, and those of its parts that the source has."""
        sizes = source.config.vision
        with placement.without_weights():
            model = cls(source.config, load_tokenizer(source.folder) if has_tokenizer(source.folder) else None)
            vision = EvaVision(replace(sizes, head_width=sizes.head_width or sizes.width))  # shapes do not depend on it
        model.source = source
        if "decoder" not in model.parts:
            model.decoder = None
        parts = {"vision": vision, "backbone": model.backbone, "dit": model.dit, "decoder": model.decoder}
        return model, {name: part for name, part in parts.items() if name in model.parts}

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json, the tokenizer and one safetensors file per part."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for part in self.parts:
            if part == "vision" and self.source and "vision_part" not in self._modules:
                views = {name: stored.read() for name, stored in self.source.tensors[part].items()}
                checkpoint.write_part(views, folder, part)  # not used yet, so it is not in memory
            else:
                checkpoint.write_part(checkpoint.unique_tensors(getattr(self, part)), folder, part)
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(folder)
        checkpoint.write_text(folder / "config.json", self.config.to_json())

    def push_to_hub(self, repository: str, **options) -> None:
        """Upload the checkpoint to a hub repository "owner/name" (made if absent)."""
        checkpoint.push(self, repository, **options)

    def parameter_counts(self) -> dict[str, int]:
        """Number of parameters by part; the queries are counted apart from the backbone."""
        counts = {name: sum(p.numel() for p in getattr(self, name).parameters()) for name in self.parts}
        counts["queries"] = self.backbone.queries.numel()
        counts["backbone"] -= counts["queries"]
        return counts | {"total": sum(counts.values())}
