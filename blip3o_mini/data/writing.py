"""Shards on disk: WebDataset tars of KEY.png|jpg, KEY.txt and KEY.json, the layout of the published BLIP3-o data.

manifest.json holds each shard's number of samples and checksum, and those of its features.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from PIL import Image
from torch import Tensor
from tqdm import tqdm

from .features import features_path, write_features
from .mixture import objection
from .opening import Source
from .order import walk
from .records import Fault, Record
from .samples import Sample, judge, picture_of

Encode = Callable[[Sequence[Image.Image]], Tensor]
QUALITY = 95  # of pictures that have to be written anew


def write_shards(samples: Iterable[dict], out: str | Path, *, shard_size: int = 1000) -> dict:
    """Write samples ("__key__" and members by ending) as shards with a manifest; return the manifest.

    A shard appears only when it is complete. Raises ValueError when the folder holds shards already or nothing comes.
    """
    if shard_size < 1:
        raise ValueError(f"shard_size is {shard_size}; expected 1 or more")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    if any(out.glob("*.tar")):
        raise ValueError(f"{out} holds shards already; choose an empty folder")
    manifest, samples = {}, iter(samples)
    while count := _write_shard(islice(samples, shard_size), partial := out / f"{len(manifest):06d}.partial"):
        path = partial.with_suffix(".tar")
        os.replace(partial, path)
        manifest[path.name] = {"samples": count, "sha256": checksum(path)}
        write_manifest(out, manifest)
    if not manifest:
        raise ValueError("there is not a single sample to write; look at the source with blip3o-mini data inspect")
    return manifest


def _write_shard(samples: Iterator[dict], path: Path) -> int:
    import webdataset

    count = 0
    try:
        with open(path, "wb") as file, webdataset.TarWriter(file, mtime=0, user="", group="") as writer:
            for sample in samples:
                writer.write(sample)
                count += 1
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    if not count:
        path.unlink()
    return count


def write_manifest(folder: Path, manifest: dict) -> None:
    partial = folder / "manifest.partial"
    partial.write_text(json.dumps(manifest, indent=2) + "\n")
    os.replace(partial, folder / "manifest.json")


def checksum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def add_features(folder: str | Path, encode: Encode, name: str, *, progress: bool = False) -> None:
    """Write the features of every shard of a folder beside it, and their checksums into the manifest."""
    folder = Path(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    for shard in tqdm(sorted(manifest), desc="features", unit="shard", disable=not progress):
        shape = write_features(folder / shard, encode, name)
        path = features_path(folder / shard)
        manifest[shard]["features"] = {"shape": shape, "checkpoint": name, "sha256": checksum(path)}
        write_manifest(folder, manifest)


def repack(
    sources: Sequence[Source], *, report: Callable[[Fault], object], seed: int = 0, shuffle: int = 0,
    size: int | None = None, limit: float = 0.05,
) -> Iterator[dict]:  # fmt: skip
    """The sound samples of some sources as members for `write_shards`; `report` is called with every fault.

    A picture keeps its bytes unless it had to be mended or is larger than `size` on its shorter side.
    Raises ValueError when the share of faults is over the limit.
    """
    number = faults = 0
    for source in sources:
        for record, _, _ in walk(source, seed=seed, shuffle=shuffle):
            sample = judge(record)
            if isinstance(sample, Fault):
                report(sample)
                faults += 1
                if error := objection(number, faults, limit, sample):
                    raise ValueError(error)
                continue
            ending, picture = _packed(record, sample, size)
            origin = {"file": Path(record.file).name, "key": record.key}
            yield {"__key__": f"{number:08d}", ending: picture, "txt": sample.caption, "json": _told(record, origin)}
            number += 1


def _packed(record: Record, sample: Sample, size: int | None) -> tuple[str, bytes]:
    image, shorter = sample.image, min(sample.image.size)
    if not sample.mended and (size is None or shorter <= size):
        ending, _ = picture_of(record.members)
        content = record.members[ending]
        if (plain := ending.rpartition(".")[2]) in ("jpg", "jpeg", "png", "webp"):
            return plain, content.read_bytes() if isinstance(content, Path) else content
    if size and shorter > size:
        image = image.resize([max(1, round(side * size / shorter)) for side in image.size], Image.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return "jpg", buffer.getvalue()


def _told(record: Record, origin: dict) -> dict:
    """What a .json file says of the sample, and where it comes from."""
    told = record.members.get("json", b"{}")
    try:
        told = json.loads(told.read_bytes() if isinstance(told, Path) else told)
    except (ValueError, RecursionError):
        told = {}
    return {**(told if isinstance(told, dict) else {"json": told}), "origin": origin}
