"""Large checkpoints, in our format or the original's: known by their headers, checked, and only then streamed.

    open_source(folder)        config and every tensor's place: nothing is read yet
    source.check(parts)        what is missing, unexpected, misshaped or no weight, as one list
    source.fill(part, module)  weights, tensor by tensor, into a module that was made without any
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from . import checkpoint, memory, published, tensorfile
from .config import ModelConfig
from .published_config import dtype_name, is_published
from .tensorfile import Stored

NEEDED = ("backbone", "dit")  # the decoder and the image tower may be absent: features can be drawn without


@dataclass(frozen=True)
class Source:
    """A checkpoint folder whose tensors are known but not read."""

    folder: Path
    config: ModelConfig
    tensors: Mapping[str, Mapping[str, Stored]]  # by part and our name
    is_theirs: bool  # in the original's format

    def label(self, part: str, name: str) -> str:
        """The name by which a tensor is known in this folder."""
        if not self.is_theirs or not part:
            return f"{part}: {name}" if part else name
        return "/".join(filter(None, published.published_name(part, name)))

    def wanted(self, module: nn.Module, part: str) -> dict[str, torch.Tensor]:
        """The tensors that a part takes from files; a tied head is its embedding."""
        state = module.state_dict()
        if part == "backbone" and self.config.backbone.is_tied:
            del state[published.HEAD]
        return state

    def check(self, parts: Mapping[str, nn.Module]) -> None:
        """Raise ValueError listing what is missing, unexpected, misshaped or of a type that no weight has."""
        found = [f"{name} is unexpected" for name in self.tensors.get("", {})]
        for part, module in parts.items():
            label = {name: self.label(part, name) for name in {**module.state_dict(), **self.tensors[part]}}
            found += tensorfile.problems(self.wanted(module, part), self.tensors[part], label)
        if found:
            raise ValueError(f"{self.folder} does not fit its config.json: {tensorfile.listed(found)}")

    def check_types(self) -> None:
        """Raise ValueError where a tensor is not of the type that the original's config.json names."""
        if not self.is_theirs:
            return
        told = dtype_name(self.config)
        odd = [
            f"{stored.name} is {tensorfile.short_name(stored.dtype)}"
            for part, tensors in self.tensors.items() if part != "decoder"  # which has no word on it
            for stored in tensors.values() if tensorfile.short_name(stored.dtype) != told
        ]  # fmt: skip
        if odd:
            raise ValueError(
                f"{self.folder}: config.json says {told}, but {tensorfile.listed(odd)}; "
                f"choose a dtype, such as {told}, to convert them"
            )

    def bytes(self, parts: Iterable[str], dtype: torch.dtype | None) -> int:
        """Memory that some parts take as dtype, or as they are stored."""
        every = [stored for part in parts for stored in self.tensors[part].values()]
        return sum(one.numel * (dtype or one.dtype).itemsize for one in every)

    def check_room(self, parts: Iterable[str], device: torch.device, dtype: torch.dtype | None) -> None:
        """Raise ValueError when there is no room for these parts."""
        memory.check_room(lambda kind: self.bytes(parts, kind), device, dtype)

    def fill(self, part: str, module: nn.Module, device: torch.device, dtype: torch.dtype | None) -> None:
        """Give a part that was made without weights its own."""
        tensorfile.fill(module, self.tensors[part], device, dtype)
        if part == "backbone":
            module.language.tie_weights()


def open_source(folder: Path) -> Source | None:
    """A large checkpoint's config and tensors; None for a small model, which is read as a whole.

    Raises ValueError naming what is missing, damaged or of another kind.
    """
    text = checkpoint.read_text(folder / "config.json")
    try:
        told = json.loads(text)
    except json.JSONDecodeError:
        told = None
    if is_theirs := isinstance(told, dict) and is_published(told):
        tensors = published.find(folder)
        check_needed(folder, tensors)
        config = published.read_config(folder, tensors)
    else:
        config = ModelConfig.from_json(text)
        if config.backbone.kind != "qwen2_5_vl":
            return None
        files = {part: folder / f"{part}.safetensors" for part in checkpoint.PARTS}
        tensors = {part: tensorfile.header(path) for part, path in files.items() if path.is_file() or part in NEEDED}
    if config.backbone.is_tied:
        tensors["backbone"].pop(published.HEAD, None)  # some store a copy
    return Source(folder, config, tensors, is_theirs)


def check_needed(folder: Path, tensors: Mapping[str, Mapping[str, Stored]]) -> None:
    """Raise ValueError when a folder lacks a part that no model can do without."""
    if absent := [part for part in NEEDED if not tensors.get(part)]:
        raise ValueError(f"{folder} holds no weights of the {' and '.join(absent)}; copy the whole folder again")
