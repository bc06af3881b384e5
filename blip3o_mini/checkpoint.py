"""Folders of safetensors: one file per part, written so that a crash leaves the old file or the new one.

    config.json   tokenizer files   vision.safetensors   backbone.safetensors   dit.safetensors   decoder.safetensors

Parts are separate because they are trained one after the other: a stage replaces only its own file.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch
from torch import Tensor, nn

PARTS = ("vision", "backbone", "dit", "decoder")
SHIPPED = Path(__file__).resolve().parent.parent / "data" / "toy"


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(text)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file atomically; it reaches the disk before the old one is replaced."""
    from safetensors.torch import save_file

    partial = path.with_name(path.name + ".partial")
    try:
        save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, partial, metadata)
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a file; raises ValueError when it is damaged, FileNotFoundError when absent."""
    from safetensors import safe_open

    check_file(path)
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118


def unique_tensors(part: nn.Module) -> dict[str, Tensor]:
    """State of a part, each shared tensor once (a tied head is its embedding)."""
    seen: set[int] = set()
    kept = {}
    for name, tensor in part.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            kept[name] = tensor.detach()
    return kept


def write_part(tensors: dict[str, Tensor], folder: Path, name: str) -> None:
    write_tensors(folder / f"{name}.safetensors", tensors, {"format": "pt", "part": name})


def save_part(part: nn.Module, folder: Path, name: str) -> None:
    write_part(unique_tensors(part), folder, name)


def load_part(part: nn.Module, folder: Path, name: str) -> None:
    """Fill a part from its file; raises ValueError listing what is missing, unexpected or misshaped."""
    path = folder / f"{name}.safetensors"
    tensors, _ = read_tensors(path)
    wanted = unique_tensors(part)
    problems = [f"{key} is missing" for key in wanted if key not in tensors]
    problems += [f"{key} is unexpected" for key in tensors if key not in wanted]
    problems += [
        f"{key} has the shape {tuple(tensors[key].shape)}, expected {tuple(wanted[key].shape)}"
        for key in wanted
        if key in tensors and tensors[key].shape != wanted[key].shape
    ]
    if problems:
        shown = "; ".join(problems[:4]) + (f"; and {len(problems) - 4} more" if len(problems) > 4 else "")
        raise ValueError(f"{path} does not fit this model's {name} (another preset?): {shown}")
    part.load_state_dict(tensors, strict=False)


def load_stage(model: nn.Module, stage: str, folder: Path = SHIPPED) -> None:
    """Put back the weights that later stages changed, as they were after `stage` of the shipped training.

    "understanding": the queries; the DiT had not been trained then, and is left alone. "generation": both.
    Raises FileNotFoundError for a stage that is not kept, ValueError when the file does not fit the model.
    """
    path = folder / "stages" / f"{stage}.safetensors"
    if not path.is_file():
        kept = ", ".join(sorted(other.stem for other in path.parent.glob("*.safetensors"))) or "none"
        raise FileNotFoundError(f"{folder} keeps no weights of the stage {stage!r}; it keeps: {kept}")
    tensors, _ = read_tensors(path)
    own = model.state_dict()
    if wrong := [name for name, t in tensors.items() if name not in own or own[name].shape != t.shape]:
        raise ValueError(f"{path} does not fit this model (another preset?): {wrong[0]}")
    model.load_state_dict(tensors, strict=False)


def find(name: str | Path) -> Path:
    """The folder of a checkpoint: "toy" is the shipped one, else a local folder, else "owner/name" on the hub.

    Raises FileNotFoundError when there is none.
    """
    folder = SHIPPED if str(name) == "toy" else Path(name)
    if not folder.exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", str(name)):
        folder = download(str(name))
    if not folder.exists():
        raise FileNotFoundError(
            f"there is no checkpoint folder {folder}; expected 'toy' (shipped), or a folder written by "
            "`blip3o-mini train` or `save_pretrained`"
        )
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} holds no config.json, so it is not a blip3o_mini checkpoint")
    return folder


def download(repository: str) -> Path:
    """The local copy of a hub repository; raises FileNotFoundError when it cannot be had."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, allow_patterns=["*.json", "*.safetensors", "*.txt"]))
    except Exception as error:  # offline, unknown, private: whatever the hub's client raises
        raise FileNotFoundError(
            f"{repository} is neither a local folder nor a hub repository that can be reached "
            f"({type(error).__name__}); give a folder, or 'toy' for the shipped checkpoint"
        ) from error


def read_text(path: Path) -> str:
    """A text file; raises ValueError when it cannot be read."""
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read ({error}); copy or train it again") from error


def check_file(path: Path) -> None:
    """Raise what `read_tensors` would raise, without reading the tensors."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; train that part or copy the whole checkpoint folder")
    try:
        with safe_open(path, "pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is damaged ({error}); copy or train it again") from error


def push(model, repository: str, **options) -> None:
    """Save into a temporary folder and upload it; needs a network and a login (`hf auth login`)."""
    import tempfile

    from huggingface_hub import HfApi

    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        api = HfApi()
        api.create_repo(repository, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, **options)


def move(module: nn.Module, device: torch.device, dtype: torch.dtype | None) -> nn.Module:
    """Move a module to a device; its weights become `dtype`, its tables stay exact.

    footgun: `.to(dtype)` would also round what a module computes when it is made and no file holds, such as the
    rotary frequencies, and with them every position.
    """
    kept = module.state_dict().keys()
    tables = {name: table for name, table in module.named_buffers() if name not in kept}
    module.to(device, dtype)
    for name, table in tables.items():
        owner, _, leaf = name.rpartition(".")
        setattr(module.get_submodule(owner), leaf, table.to(device))
    return module


def choose_dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """The type of number asked for, also by its name; raises ValueError when weights cannot be of it."""
    chosen = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if dtype is not None and chosen not in (torch.float32, torch.bfloat16, torch.float16):
        raise ValueError(f"weights cannot be {dtype}; choose float32, bfloat16 or float16")
    return chosen


def choose_device(name: str | torch.device | None = None) -> tuple[torch.device, str]:
    """The device and the reason for it: the one asked for, or the first of cuda, mps, cpu that is there.

    Raises ValueError when what was asked for is not there.
    """
    has_mps, gpus = torch.backends.mps.is_available(), torch.cuda.device_count()
    if name in (None, "auto"):
        if gpus:
            return torch.device("cuda"), torch.cuda.get_device_name(0)
        return (torch.device("mps"), "Apple GPU") if has_mps else (torch.device("cpu"), "no GPU found")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"there is no device {name!r}; choose auto, cpu, cuda or mps") from error
    if device.type == "cuda" and (device.index or 0) >= gpus:
        raise ValueError(f"there is no CUDA GPU number {device.index or 0} (torch sees {gpus}); choose cpu")
    if device.type == "mps" and not has_mps:
        raise ValueError("the device mps needs an Apple GPU, but torch sees none; choose cpu")
    return device, "as asked"
