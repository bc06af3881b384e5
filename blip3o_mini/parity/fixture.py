"""One fixture: a pair NAME.safetensors + NAME.json, and how its tensors are compared with ours.

The tolerances are absolute and hold for values up to the size seen when they were measured; for larger values
they grow in proportion, as rounding does.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

# (absolute tolerance, largest value it was measured at), from the fixtures' own documentation
EXACT = (1e-6, 4.0)
TIMESTEP = (1e-4, 1000.0)
OUTPUT = (2e-5, 5.0)
INPUT_GRADIENT = (3e-4, 35.0)
LOSS_GRADIENT = (1e-5, 0.5)
TRAJECTORY = (1e-4, 10.0)
LOSS = (1e-5, 6.0)
LATENTS = (3e-4, 40.0)
PICTURE = (1e-4, 4.4)
GREY_LEVELS = (1.0, 255.0)
TOWER = (1e-4, 12.0)
PIXELS = (1e-5, 3.0)
GREY_LEVEL, ODD_PIXELS = 0.015, 1e-3  # another build of the resampler: a grey level, on so few of the pixels
SUM_OF_PIXELS = (2e-5, 1.0)  # our own choice; a sum in float32 is that exact
CONDITION = (3e-5, 4.5)
GRADIENT_SUMMARY = (1e-4, 1.0)  # our own choice, relative to the gradient's norm; measured: 4e-7


@dataclass(frozen=True)
class Row:
    """One comparison. passed is None where nothing was compared; the quantity then says why."""

    file: str
    quantity: str
    max_error: float | None = None
    tolerance: float | None = None
    passed: bool | None = None


@dataclass
class Fixture:
    """One pair of files; remembers which tensors were read."""

    name: str
    settings: dict
    tensors: dict[str, Tensor]
    read: set[str] = field(default_factory=set)

    def __getitem__(self, key: str) -> Tensor:
        if key not in self.tensors:
            raise ValueError(f"{self.name}.safetensors holds no {key!r}; it is damaged or another format")
        self.read.add(key)
        return self.tensors[key]

    def first(self, *keys: str) -> Tensor:
        """The first of these tensors that is there: a case may bring its own inputs."""
        return self[next((key for key in keys if key in self.tensors), keys[-1])]

    def setting(self, *path: str, default: object = None):
        """Look up a value in the JSON; without a default its absence is an error."""
        value = self.settings
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if value is None and default is None:
            raise ValueError(f"{self.name}.json holds no {'.'.join(path)}; it is damaged or another format")
        return default if value is None else value

    def names(self, pattern: str) -> list[str]:
        """First groups of all keys that match the whole pattern, each once, in order."""
        found = (re.fullmatch(pattern, key) for key in sorted(self.tensors))
        return list(dict.fromkeys(match[1] for match in found if match))

    def compare(self, quantity: str, ours: Tensor, theirs: Tensor, limit: tuple[float, float]) -> Row:
        """Compare within (tolerance, largest value it holds for); whole numbers must be equal."""
        tolerance, largest = limit
        if not theirs.is_floating_point():
            tolerance = 0.0
        elif theirs.numel():
            tolerance *= max(1.0, theirs.double().abs().max().item() / largest)
        error = difference(ours, theirs)
        passed = math.isfinite(error) and error <= tolerance  # neither NaN nor infinity ever passes
        return Row(self.name, quantity, error, tolerance, passed)

    def compare_pixels(self, quantity: str, ours: Tensor, theirs: Tensor, limit: tuple[float, float]) -> Row:
        """Compare pictures: exactly, or with few values that are one grey level apart."""
        row = self.compare(quantity, ours, theirs, limit)
        if row.passed or ours.shape != theirs.shape:
            return row
        odd = ((ours - theirs).abs() > limit[0]).double().mean().item()
        passed = odd < ODD_PIXELS and row.max_error <= GREY_LEVEL
        told = f"{quantity}, {odd:.2%} of the values off by a grey level"
        return Row(self.name, told, row.max_error, GREY_LEVEL, passed)

    def fill(self, part: nn.Module, weights: dict[str, Tensor], what: str = "sizes") -> None:
        """Load weights strictly; raises ValueError where they do not fit."""
        try:
            part.load_state_dict(weights)
        except RuntimeError as error:
            problem = " ".join(str(error).split())
            raise ValueError(f"the weights in {self.name} do not fit its {what}: {problem}") from error

    def compare_keys(self, ours: dict[str, Tensor], limit: tuple[float, float]) -> Iterator[Row]:
        """One row for each of our tensors whose key the fixture has."""
        for key, tensor in ours.items():
            if key in self.tensors:
                yield self.compare(key, tensor, self[key], limit)


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Largest absolute difference; infinite where the shapes differ."""
    if ours.shape != theirs.shape:
        return math.inf
    return (ours.detach().double() - theirs.double()).abs().max().item() if theirs.numel() else 0.0


def load(folder: Path, name: str, *, has_tensors: bool = True) -> Fixture:
    """Read a pair of files, or a JSON alone; raises ValueError naming the file that is missing or damaged."""
    for suffix in (".safetensors", ".json") if has_tensors else (".json",):
        if not (folder / (name + suffix)).is_file():
            raise ValueError(f"{name + suffix} is missing in {folder}")
    try:
        settings = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{name}.json is damaged: {error}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{name}.json is damaged: it holds a {type(settings).__name__}, not named values")
    try:
        return Fixture(name, settings, load_file(folder / f"{name}.safetensors") if has_tensors else {})
    except SafetensorError as error:
        raise ValueError(f"{name}.safetensors is damaged: {error}") from error
