"""Where data lies: folders, patterns and addresses become a list of shards, and any shard a stream of bytes."""

from __future__ import annotations

import glob
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

ENDINGS = {
    ".tar": "tar", ".jsonl": "lines", ".csv": "lines", ".parquet": "table", ".json": "table",
}  # fmt: skip
METADATA = ("metadata.jsonl", "metadata.csv")
SECONDS = 60  # without a byte from the network
MAGIC = "*?["


class Source(NamedTuple):
    """Shards of one kind: "tar", "table" (parquet, json), "lines" (jsonl, csv) or "folder" (of pictures)."""

    name: str
    kind: str
    shards: tuple[str, ...]


def is_remote(place: str) -> bool:
    return "://" in place


def find(place: str | Path) -> Source:
    """The shards that a folder, file, pattern ("a/{000..031}.tar", "a/*.parquet") or address stands for.

    Raises FileNotFoundError or ValueError in one sentence when there are none, or of several kinds.
    """
    import braceexpand

    place = str(place)
    parts = [place] if Path(place).exists() else list(braceexpand.braceexpand(place))
    shards = tuple(shard for part in parts for shard in _expand(part))
    kinds = {_kind(shard) for shard in shards}
    if len(kinds) != 1:
        raise ValueError(f"{place} mixes {' and '.join(sorted(kinds))}; name each kind of its own")
    return Source(place, kinds.pop(), shards)


def _expand(place: str) -> list[str]:
    if place.startswith(("http://", "https://")):
        return [place]  # these servers cannot list their files
    if is_remote(place):
        return _expand_remote(place)
    path = Path(place)
    if path.is_dir():
        return _look_into(path)
    found = [place] if path.is_file() else sorted(glob.glob(place)) if any(c in place for c in MAGIC) else []
    if not found:
        raise FileNotFoundError(f"there is nothing at {place}; check the path or the pattern")
    return found


def _expand_remote(place: str) -> list[str]:
    import fsspec

    if not any(c in place for c in MAGIC):
        return [place]
    try:
        system, pattern = fsspec.core.url_to_fs(place)
        found = sorted(system.unstrip_protocol(name) for name in system.glob(pattern))
    except (ImportError, OSError, RuntimeError) as error:
        raise ValueError(f"{place} cannot be listed ({error}); check the address and the network") from error
    if not found:
        raise FileNotFoundError(f"there is nothing at {place}; check the address")
    return found


def _look_into(folder: Path) -> list[str]:
    """The shards in a folder; without any, the folder itself, as pictures with captions beside them."""
    if tars := sorted(folder.glob("*.tar")):
        return [str(path) for path in tars]
    for name in METADATA:
        if (folder / name).is_file():
            return [str(folder / name)]
    if tables := sorted(folder.glob("*.parquet")):
        return [str(path) for path in tables]
    return [str(folder)]


def _kind(shard: str) -> str:
    if not is_remote(shard) and Path(shard).is_dir():
        return "folder"
    kind = ENDINGS.get(Path(shard.partition("?")[0]).suffix.lower())
    if kind is None:
        raise ValueError(f"{shard} is no shard; expected a folder or a file that ends in {', '.join(ENDINGS)}")
    return kind


@contextmanager
def stream(shard: str) -> Iterator[BinaryIO]:
    """The bytes of a shard, from the first to the last."""
    if shard.startswith(("http://", "https://")):
        from urllib.request import urlopen

        with urlopen(shard, timeout=SECONDS) as file:
            yield file
    elif is_remote(shard):
        import fsspec

        with fsspec.open(shard, "rb") as file:
            yield file
    else:
        with open(shard, "rb") as file:
            yield file


@contextmanager
def local_copy(shard: str) -> Iterator[str]:
    """A file with the bytes of a shard, for libraries that jump to and fro in it."""
    if not is_remote(shard):
        yield shard
        return
    with tempfile.NamedTemporaryFile(suffix=Path(shard.partition("?")[0]).suffix) as copy:
        with stream(shard) as file:
            shutil.copyfileobj(file, copy)
        copy.flush()
        yield copy.name
