"""Scenes on disk: WebDataset tars of KEY.png, KEY.txt and KEY.json, the layout of the published BLIP3-o data.

manifest.json holds each shard's number of samples and checksum: the webdataset library ends silently at a
truncated tar, so only a count taken when the shard was written can tell that something is missing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import statistics
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from .. import world


def build(out: str | Path, *, count: int, seed: int, shard_size: int = 1000, size: int = 72) -> str:
    """Write `count` scenes as shards; the same seed gives the same bytes. Returns a line that says so.

    Raises ValueError when there is nothing to write or the folder holds shards already.
    """
    out = Path(out)
    for name, value in (("count", count), ("shard_size", shard_size)):
        if value < 1:
            raise ValueError(f"{name} is {value}; expected 1 or more")
    out.mkdir(parents=True, exist_ok=True)
    if any(out.glob("*.tar")):
        raise ValueError(f"{out} holds shards already; choose an empty folder")
    manifest = {}
    for index, first in enumerate(range(0, count, shard_size)):
        samples = range(first, min(first + shard_size, count))
        data = _shard(samples, seed, size)
        path, partial = out / f"{index:06d}.tar", out / f"{index:06d}.partial"
        partial.write_bytes(data)
        os.replace(partial, path)
        manifest[path.name] = {"samples": len(samples), "sha256": hashlib.sha256(data).hexdigest()}
    (out / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    return f"{out}: {count} samples in {len(manifest)} shards of {size}×{size} px pictures"


def _shard(samples: range, seed: int, size: int) -> bytes:
    import webdataset

    buffer = io.BytesIO()
    with webdataset.TarWriter(buffer, mtime=0, user="", group="") as writer:
        for number in samples:
            rng = np.random.default_rng([seed, 3, number])
            scene = world.sample_scene(rng)
            instruction, after, kind = world.edit(scene, rng)
            told = {
                "scene": dataclasses.asdict(scene), "questions": world.questions(scene, rng)[:3],
                "edit": {"instruction": instruction, "kind": kind, "after": dataclasses.asdict(after)},
            }  # fmt: skip
            picture = io.BytesIO()
            Image.fromarray(world.render([scene], size)[0]).save(picture, "PNG")
            writer.write({
                "__key__": f"{number:08d}", "png": picture.getvalue(),
                "txt": world.short_caption(scene, rng), "json": told,
            })  # fmt: skip
    return buffer.getvalue()


def read(folder: str | Path, problems: list[str] | None = None) -> Iterator[tuple[str, Image.Image, str]]:
    """Yield (key, picture, caption) of every readable sample; name what cannot be read in `problems`."""
    import webdataset

    problems = [] if problems is None else problems
    paths = sorted(Path(folder).glob("*.tar"))
    if not paths:
        raise FileNotFoundError(f"{folder} holds no .tar shards; make some with blip3o-mini data build")
    for path in paths:
        dataset = webdataset.WebDataset(
            str(path), shardshuffle=False, handler=lambda error, p=path: problems.append(f"{p.name}: {error}") or True
        )
        for sample in dataset:
            picture = next((sample[kind] for kind in ("png", "jpg", "jpeg", "webp") if kind in sample), None)
            if picture is None or "txt" not in sample:
                problems.append(f"{path.name}: {sample['__key__']} lacks a picture or a caption")
                continue
            try:
                image = Image.open(io.BytesIO(picture)).convert("RGB")
            except (OSError, ValueError) as error:
                problems.append(f"{path.name}: {sample['__key__']} cannot be decoded ({error})")
                continue
            yield sample["__key__"], image, sample["txt"].decode("utf-8", "replace")


def inspect(folder: str | Path, *, sheet: Path | None = None) -> str:
    """A report on a folder of shards, every problem named; with `sheet`, a page of its first pictures."""
    folder, problems = Path(folder), []
    samples, shown, sizes, words = 0, [], set(), []
    for _, image, caption in read(folder, problems):
        samples += 1
        sizes.add(image.size)
        words.append(len(caption.split()))
        if len(shown) < 24:
            shown.append(image)
    problems += _compare(folder, samples)
    lines = [f"{folder}: {len(list(folder.glob('*.tar')))} shards, {samples} readable samples"]
    if samples:
        lines.append("pictures: " + ", ".join(f"{wide}×{high}" for wide, high in sorted(sizes)[:5]))
        lines.append(f"caption length in words: {min(words)} to {max(words)}, median {statistics.median(words):g}")
    if sheet and shown:
        world.contact_sheet(shown, 6).save(sheet)
        lines.append(f"contact sheet: {sheet}")
    lines += [f"problem: {text}" for text in problems] or ["no problems found"]
    return "\n".join(lines)


def _compare(folder: Path, samples: int) -> list[str]:
    """What the manifest says otherwise."""
    path = folder / "manifest.json"
    if not path.exists():
        return ["there is no manifest.json, so missing samples cannot be noticed"]
    manifest = json.loads(path.read_text())
    found = []
    for name, told in manifest.items():
        shard = folder / name
        if not shard.exists():
            found.append(f"{name} is missing")
        elif hashlib.sha256(shard.read_bytes()).hexdigest() != told["sha256"]:
            found.append(f"{name} has changed since it was written")
    wanted = sum(told["samples"] for told in manifest.values())
    return found + ([f"{wanted - samples} of {wanted} samples are missing"] if samples < wanted else [])
