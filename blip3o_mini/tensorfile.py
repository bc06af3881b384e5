"""Weights spread over safetensors files: found by their headers, checked as a whole, then read one by one.

Headers tell every tensor's name, type and shape before any weight is read, so whatever does not fit is refused
at once and with all its names. Tensors are then moved singly into a module without weights: nothing is in
memory twice, whatever the size of the files. A pickle is never opened, for opening it runs what its author wrote.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
    "BOOL": torch.bool, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
WEIGHTS = (torch.float32, torch.bfloat16, torch.float16)  # what a model can be made of
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
PICKLE_STARTS = (b"PK\x03\x04", b"\x80")  # of torch's zip files, and of pickles themselves
SHOWN = 8  # problems that are told in full


class Stored(NamedTuple):
    """A tensor in a file, known by the file's header."""

    path: Path
    name: str
    dtype: torch.dtype | None  # None: a type that torch cannot hold
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        return torch.Size(self.shape).numel()

    @property
    def nbytes(self) -> int:
        return self.numel * self.dtype.itemsize

    def read(self) -> Tensor:
        """The tensor as a view of the file: it takes no memory until it is used or copied."""
        from safetensors import safe_open

        with safe_open(self.path, "pt") as file:
            return file.get_tensor(self.name)


def short_name(dtype: torch.dtype | None) -> str:
    """torch.bfloat16 → "bfloat16"."""
    return str(dtype).removeprefix("torch.") if dtype else "of an unknown type"


def refuse_pickle(path: Path) -> None:
    """Raise ValueError when a file is a pickle, by its name or by its first bytes."""
    is_pickle = path.suffix in PICKLES
    if not is_pickle:
        with open(path, "rb") as file:
            start = file.read(9)  # safetensors: the header's length, which may begin like a pickle, then a brace
        is_pickle = start.startswith(PICKLE_STARTS) and not start.endswith(b"{")
    if is_pickle:
        raise ValueError(
            f"{path} is a pickle, not safetensors; opening a pickle runs the code in it, so it was left alone: "
            "get the safetensors files of this model"
        )


def header(path: Path) -> dict[str, Stored]:
    """All tensors of one file; raises ValueError when it is missing, cut off, damaged or a pickle."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise ValueError(f"{path} is missing; copy the whole checkpoint folder again")
    refuse_pickle(path)
    try:
        with safe_open(path, "pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return {
                name: Stored(path, name, DTYPES.get(one.get_dtype()), tuple(one.get_shape()))
                for name, one in slices.items()
            }
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is damaged or cut off ({error}); copy it again") from error


def index_of(path: Path) -> dict[str, str]:
    """An index's tensor → file map; raises ValueError when it is damaged or points out of its folder."""
    try:
        files = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        strange = next((file for file in files.values() if Path(file).name != file), None)
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise ValueError(f"{path} is damaged ({error!r}); copy it again") from error
    if strange is not None:
        raise ValueError(f"{path} names the file {strange!r}, which is no plain file name; it is damaged")
    return files


def find(folder: Path, stem: str) -> dict[str, Stored]:
    """All tensors of a folder: of the files its index lists, or of its only file; {} when it holds neither.

    A stem may be followed by a variant, as in diffusion_pytorch_model.bf16.safetensors. Raises ValueError
    naming a file that is missing, damaged or a pickle, and tensors that the index promises in vain.
    """
    indices = sorted(folder.glob(f"{stem}*.index*.json"))
    safe = [path for path in indices if ".safetensors." in path.name]
    if safe:
        return follow(safe[0])
    files = sorted(folder.glob(f"{stem}*.safetensors"))
    if len(files) > 1:
        raise ValueError(
            f"{folder} holds {len(files)} files {stem}*.safetensors and no index of them; copy the index, or keep one"
        )
    if not files:
        for path in sorted(path for path in folder.glob("*") if path.suffix in PICKLES):
            refuse_pickle(path)
    return header(files[0]) if files else {}


def follow(index: Path) -> dict[str, Stored]:
    """All tensors of the files that an index lists."""
    promised = index_of(index)
    files = [index.parent / name for name in sorted(set(promised.values()))]
    if absent := [path.name for path in files if not path.is_file()]:
        raise ValueError(f"{listed(absent)}: missing in {index.parent}, though {index.name} lists it; copy it again")
    found = {name: stored for path in files for name, stored in header(path).items()}
    if vain := sorted(promised.keys() - found.keys()):
        raise ValueError(f"{index} lists tensors that its files do not hold: {listed(vain)}")
    return found


def listed(names: list[str]) -> str:
    """The first names, and how many more there are."""
    more = f"; and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return "; ".join(names[:SHOWN]) + more


def problems(wanted: Mapping[str, Tensor], found: Mapping[str, Stored], label: Mapping[str, str]) -> Iterator[str]:
    """What keeps tensors from filling a module; `label` gives the names by which a reader knows them."""
    yield from (f"{label[name]} is missing" for name in wanted if name not in found)
    for name, stored in found.items():
        if name not in wanted:
            yield f"{label[name]} is unexpected"
        elif stored.shape != tuple(wanted[name].shape):
            yield f"{label[name]} has the shape {stored.shape}, expected {tuple(wanted[name].shape)}"
        elif stored.dtype not in WEIGHTS:
            yield f"{label[name]} is {short_name(stored.dtype)}, expected {', '.join(map(short_name, WEIGHTS))}"


def fill(part: nn.Module, tensors: Mapping[str, Stored], device: torch.device, dtype: torch.dtype | None) -> None:
    """Replace parameters by stored tensors, one after the other, file by file; without dtype as they are stored."""
    for name, stored in sorted(tensors.items(), key=lambda item: item[1].path):
        owner, _, leaf = name.rpartition(".")
        module = part.get_submodule(owner)
        tensor = stored.read().to(device, dtype, copy=True)
        setattr(module, leaf, nn.Parameter(tensor, requires_grad=getattr(module, leaf).requires_grad))
