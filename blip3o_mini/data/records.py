"""Shards → records: samples as they lie in their files, nothing decoded; what is wrong is a record too.

So every sample and every fault has its place in the order of a shard, and whoever continues in the
middle meets each of them exactly once.
"""

from __future__ import annotations

import csv
import io
import json
import os
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .opening import is_remote, local_copy, stream

PICTURES = {
    "jpg": "JPEG", "jpeg": "JPEG", "png": "PNG", "webp": "WEBP", "bmp": "BMP", "gif": "GIF", "tif": "TIFF",
    "tiff": "TIFF", "ppm": "PPM",
}  # fmt: skip
UNNAMED = "image"  # ending of a picture that a table holds without a name
TEXTS = ("txt", "json")
PICTURE_COLUMNS = ("image", *PICTURES, "picture", "file_name", "image_path", "img_path", "path")
CAPTION_COLUMNS = ("caption", "text", "txt", "prompt")
LARGEST_FILE = 64 * 2**20  # bytes of one picture or text
LARGEST_LINE = 2**20
ATTEMPTS, PAUSE = 4, 2.0  # for shards on the network; seconds before the second attempt, doubled each time


class Fault(NamedTuple):
    """Something that cannot be used: what kind, in which file, under which key, why."""

    kind: str
    file: str
    key: str
    why: str

    def __str__(self) -> str:
        text = f"{Path(self.file).name}: {self.key + ' ' if self.key else ''}{self.why}"
        return "".join(letter if letter.isprintable() else "?" for letter in text)  # names come from strangers


class Record(NamedTuple):
    """One sample: its members by the ending of their names, as bytes, text, or the path of a file; or a fault."""

    file: str
    key: str
    members: dict[str, bytes | str | Path]
    fault: Fault | None = None

    @property
    def size(self) -> int:
        """Bytes that it keeps in memory."""
        return sum(len(value) for value in self.members.values() if not isinstance(value, Path))


def faulty(kind: str, file: str, key: str, why: str) -> Record:
    return Record(file, key, {}, Fault(kind, file, key, why))


def read(shard: str, kind: str) -> Iterator[Record]:
    """Every record of a shard in order; when it cannot be read to its end, the last record says so."""
    readers = {"tar": read_tar, "table": read_table, "lines": read_lines, "folder": read_folder}
    count, problem = 0, None
    for attempt in range(ATTEMPTS if is_remote(shard) else 1):
        if attempt:
            time.sleep(PAUSE * 2 ** (attempt - 1))
        try:
            for number, record in enumerate(readers[kind](shard)):
                if number >= count:  # what an earlier attempt has given is not given again
                    count += 1
                    yield record
            problem = None
            break
        except Exception as error:  # libraries raise many kinds on damaged files; GeneratorExit is none of them
            problem = " ".join(str(error).split()) or type(error).__name__
    yield from _ending(shard, count, problem)


def _ending(shard: str, count: int, problem: str | None) -> Iterator[Record]:
    told = told_samples(shard)
    missing = f"{told - count} of {told} samples are missing" if told is not None and told > count else None
    if problem:
        why = f"ends too early, after {count} samples ({problem})" + (f"; {missing}" if missing else "")
        yield faulty("file cut off or unreadable", shard, "", why)
    elif missing:
        yield faulty("samples missing", shard, "", missing)


def told_samples(shard: str) -> int | None:
    """How many samples the manifest beside a shard promises."""
    manifest = Path(shard).parent / "manifest.json"
    if is_remote(shard) or not manifest.is_file():
        return None
    try:
        return int(json.loads(manifest.read_text())[Path(shard).name]["samples"])
    except (ValueError, KeyError, TypeError):
        return None


# ------------------------------------------------------------------ tar


class _Header(tarfile.TarInfo):
    """footgun: tarfile, and webdataset and datasets on top of it, takes a missing or damaged header for the
    end of the archive, so that a truncated shard is only a shorter one. Only the true end mark may end it."""

    @classmethod
    def frombuf(cls, buf, encoding, errors):
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error


def read_tar(shard: str) -> Iterator[Record]:
    """Neighbouring files of one key make a record, as in WebDataset: "a/007.jpg" and "a/007.txt" are "a/007".

    webdataset's own reader is not used: beside cut tars it also passes over names without an ending and links.
    """
    key, members, fault = None, {}, None
    with stream(shard) as file, tarfile.open(fileobj=file, mode="r|", tarinfo=_Header) as archive:
        for member in archive:
            archive.members = []  # tarfile remembers every header otherwise
            folder, _, name = member.name.rpartition("/")
            if member.isdir() or name.startswith((".", "__")):
                continue
            stem, _, ending = name.partition(".")
            if (here := f"{folder}/{stem}".lstrip("/")) != key:
                if key is not None:
                    yield Record(shard, key, members, fault)
                key, members, fault = here, {}, None
            ending = ending.lower()
            why = _objection(member, ending, members)
            members[ending] = b""
            if why:
                fault = fault or Fault("bad member", shard, key, why)
            elif is_wanted(ending):
                members[ending] = archive.extractfile(member).read()
        if key is not None:
            yield Record(shard, key, members, fault)


def _objection(member: tarfile.TarInfo, ending: str, members: dict) -> str | None:
    if not member.isreg():
        return f"has a link or a device in place of its .{ending} file"
    if ending in members:
        return f"has two .{ending} files"
    if member.size > LARGEST_FILE and is_wanted(ending):
        return f"has a .{ending} file of {member.size:,} bytes (limit {LARGEST_FILE:,})"
    return None


def is_wanted(ending: str) -> bool:
    return ending.rpartition(".")[2] in (*PICTURES, *TEXTS)


# ------------------------------------------------------------------ tables and lists


def read_table(shard: str) -> Iterator[Record]:
    """Rows of a parquet or json file with a picture column and a caption column."""
    import datasets

    with local_copy(shard) as path:
        if path.lower().endswith(".json"):
            rows = datasets.IterableDataset.from_json(path)
        else:  # footgun: a damaged picture that datasets decodes itself crashes it, and the row stays unnamed
            rows = datasets.IterableDataset.from_parquet(path).decode(False)
        for number, row in enumerate(rows):
            yield _from_row(shard, f"row {number}", row)


def read_lines(shard: str) -> Iterator[Record]:
    """Rows of a .jsonl or .csv file; line by line, because datasets drops a whole file for one broken line."""
    with stream(shard) as file:
        text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="replace", newline="")
        if shard.partition("?")[0].lower().endswith(".csv"):
            for number, row in enumerate(csv.DictReader(text), 2):
                yield _from_row(shard, f"line {number}", row)
            return
        number = 0
        while line := text.readline(LARGEST_LINE):
            number += 1
            if line.strip():
                yield _from_line(shard, f"line {number}", line)


def _from_line(shard: str, key: str, line: str) -> Record:
    try:
        row = json.loads(line)
        if isinstance(row, dict):
            return _from_row(shard, key, row)
    except (ValueError, RecursionError):
        pass
    return faulty("bad line", shard, key, f"is no JSON object: {line[:60]!r}")


def _from_row(shard: str, key: str, row: dict) -> Record:
    picture = next((row[name] for name in PICTURE_COLUMNS if row.get(name)), None)
    caption = next((row[name] for name in CAPTION_COLUMNS if row.get(name)), None)
    members: dict[str, bytes | str | Path] = {} if caption is None else {"txt": caption_text(caption)}
    if isinstance(picture, dict):  # how datasets stores pictures
        picture = picture.get("bytes") or picture.get("path")
    if isinstance(picture, bytes):
        members[UNNAMED] = picture
    elif isinstance(picture, str):
        path = _inside(shard, picture)
        if path is None:
            return faulty("outside", shard, key, f"names {picture[:100]!r}, which does not lie in its folder")
        members[path.suffix[1:].lower()] = path
    return Record(shard, key, members)


def caption_text(value) -> str:
    """A caption as text; of several, the first."""
    if isinstance(value, (list, tuple)):
        value = value[0] if value else ""
    return value if isinstance(value, str) else ""


def _inside(shard: str, name: str) -> Path | None:
    """The picture that a row names, beside or below the file that names it; nothing else on this machine is read."""
    folder = os.path.abspath(os.path.dirname(shard))
    path = os.path.normpath(os.path.join(folder, name))
    is_inside = path.startswith(os.path.join(folder, ""))
    return Path(path) if is_inside and not is_remote(shard) and not is_remote(name) and "\0" not in name else None


# ------------------------------------------------------------------ folders of pictures


def read_folder(shard: str) -> Iterator[Record]:
    """Pictures in a folder and below, each with a .txt or .json of the same name beside it."""

    def refuse(error: OSError) -> None:
        raise error

    for place, folders, names in os.walk(shard, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        records: dict[str, dict[str, Path]] = {}
        for name in sorted(names):
            if not name.startswith("."):
                stem, _, ending = name.rpartition(".") if "." in name else (name, "", "")
                members, ending = records.setdefault(stem, {}), ending.lower()
                members[f"2.{ending}" if ending in members else ending] = Path(place, name)  # a.jpg and a.JPG
        for stem, members in records.items():
            yield Record(shard, os.path.relpath(os.path.join(place, stem), shard), members)
