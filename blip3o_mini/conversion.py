"""Checkpoint folders from the original's format to ours and back, every tensor bit for bit as it was.

Tensors pass from file to file as views, so memory holds none of them for long. The new folder takes its name
only when it is complete.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from . import checkpoint
from .config import ModelConfig
from .loading import Source, open_source
from .model import Blip3oMini
from .published import DECODER, DECODER_FILES, TABLE, WEIGHTS, published_name
from .published_config import to_published
from .sdxl import settings_of
from .tensorfile import Stored, short_name

SHARD = 5_000_000_000  # bytes, as the original's library cuts them
CLASSES = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "scheduler": "EulerDiscreteScheduler"}
BESIDE = (".json", ".txt", ".jinja")  # tokenizer files and other small ones, which are copied as they are


def convert(folder: str | Path, out: str | Path, *, shard: int = SHARD) -> Source:
    """Write the checkpoint in `folder` in the other format: the original's → ours, or ours → the original's.

    shard: the most bytes of a file of the original's format. Raises ValueError when the checkpoint is damaged
    or has no published form, or when `out` holds something already.
    """
    folder, out = checkpoint.find(folder), Path(out)
    source = open_source(folder)
    if source is None:
        raise ValueError(f"the model in {folder} has no published form; only those of the 4b's and 8b's kind have one")
    if out.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{out} lies in {folder}, which is read; choose a folder beside it")
    _, parts = Blip3oMini.outline(source)
    source.check(parts)
    with new_folder(out) as partial:
        if source.is_theirs:
            write_ours(source, partial)
        else:
            write_theirs(source, partial, shard)
        copy_beside(source, partial)
    return source


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to write into that becomes `out` when everything went well, and else disappears."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is there already and not empty; choose another folder")
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        yield partial
        if out.is_dir():
            out.rmdir()
        os.replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def copy_beside(source: Source, out: Path) -> None:
    """Copy the small files that belong to neither configuration nor weights."""
    written = {"config.json", *(f"{DECODER}/{part}/{name}" for part, name in DECODER_FILES.items())}
    for path in source.folder.rglob("*"):
        place = path.relative_to(source.folder)
        is_index = ".index" in path.name
        if path.suffix in BESIDE and not is_index and place.as_posix() not in written:
            (out / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, out / place)


def write_json(path: Path, told: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.write_text(path, json.dumps(told, indent=2, sort_keys=True) + "\n")


# ------------------------------------------------------------------ ours


def write_ours(source: Source, out: Path) -> None:
    """config.json and one file per part."""
    for part in checkpoint.PARTS:
        if tensors := source.tensors.get(part):
            checkpoint.write_part({name: stored.read() for name, stored in tensors.items()}, out, part)
    checkpoint.write_text(out / "config.json", source.config.to_json())


# ------------------------------------------------------------------ theirs


def write_theirs(source: Source, out: Path, shard: int) -> None:
    """config.json, shards with their index, and the decoder's folders."""
    places: dict[str, dict[str, Stored]] = {row.folder: {} for row in TABLE}
    for part, tensors in source.tensors.items():
        for ours, stored in tensors.items():
            folder, theirs = published_name(part, ours)
            places[folder][theirs] = stored
    main = places.pop("")
    types = {short_name(stored.dtype) for stored in main.values()}
    write_json(out / "config.json", to_published(source.config, types.pop() if len(types) == 1 else None))
    write_shards(main, out, shard)
    for folder, tensors in places.items():
        if tensors:
            write_decoder(source.config, tensors, out / folder)
    if source.tensors.get("decoder"):
        write_json(out / DECODER / "scheduler" / DECODER_FILES["scheduler"], decoder_config(source.config, "scheduler"))


def split(tensors: Mapping[str, Stored], most: int) -> list[list[str]]:
    """Names in order, cut into groups of at most so many bytes; a larger tensor has a group to itself."""
    groups: list[list[str]] = [[]]
    filled = 0
    for name, stored in tensors.items():
        if groups[-1] and filled + stored.nbytes > most:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += stored.nbytes
    return groups


def write_shards(tensors: Mapping[str, Stored], out: Path, most: int) -> None:
    """model-00001-of-0000n.safetensors … and their index; a single file has none."""
    groups, files = split(tensors, most), {}
    for k, names in enumerate(groups, 1):
        file = f"model-{k:05}-of-{len(groups):05}.safetensors" if len(groups) > 1 else "model.safetensors"
        checkpoint.write_tensors(out / file, {name: tensors[name].read() for name in names}, {"format": "pt"})
        files |= dict.fromkeys(names, file)
    if len(groups) > 1:
        total = sum(stored.nbytes for stored in tensors.values())
        write_json(out / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": files})


def decoder_config(config: ModelConfig, part: str) -> dict:
    """diffusers' configuration of a part of the decoder: as it was read, or as it would be written."""
    told = config.decoder.settings.get(part, {})
    return told if "_class_name" in told else {"_class_name": CLASSES[part]} | settings_of(config.decoder)[part]


def write_decoder(config: ModelConfig, tensors: Mapping[str, Stored], out: Path) -> None:
    """Weights and configuration of UNet or autoencoder; published files say bf16 in their name."""
    write_json(out / DECODER_FILES[out.name], decoder_config(config, out.name))
    variant = ".bf16" if {short_name(stored.dtype) for stored in tensors.values()} == {"bfloat16"} else ""
    weights = {name: stored.read() for name, stored in tensors.items()}
    checkpoint.write_tensors(out / f"{WEIGHTS}{variant}.safetensors", weights, {"format": "pt"})
