"""Records → samples: the picture decoded, the caption found, what had to be mended named; or the fault."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from torch import Tensor

from ..imagefile import PictureError, decode
from ..vision import square
from .records import CAPTION_COLUMNS, LARGEST_FILE, PICTURES, UNNAMED, Fault, Record, caption_text


class Sample(NamedTuple):
    """A picture with its caption; `image` is None where cached `features` (Q, D) stand for it."""

    key: str
    file: str
    caption: str
    image: Image.Image | None = None
    features: Tensor | None = None
    mended: tuple[str, ...] = ()


class _Unusable(ValueError):
    def __init__(self, kind: str, why: str):
        super().__init__(why)
        self.kind = kind


def judge(record: Record, *, size: int | None = None) -> Sample | Fault:
    """The sample in a record, or what is wrong with it; with `size`, the middle square of the picture."""
    if record.fault:
        return record.fault
    try:
        ending, is_one_of_many = picture_of(record.members)
        caption, remarks = _caption(record.members)  # before the picture, which costs more
        image, mended = _picture(record.members[ending], ending)
        image = image if size is None else square(image, size)
    except (_Unusable, PictureError) as error:
        return Fault(error.kind, record.file, record.key, str(error))
    except OSError as error:
        why = f"cannot be read: {error.strerror or error}"
        return Fault("file cut off or unreadable", record.file, record.key, why)
    beside = ("more pictures beside it",) if is_one_of_many else ()
    return Sample(record.key, record.file, caption, image, mended=(*mended, *remarks, *beside))


def judge_caption(record: Record, features: Tensor) -> Sample | Fault:
    """The same where the features of the picture are known: nothing is decoded."""
    if record.fault:
        return record.fault
    try:
        caption, remarks = _caption(record.members)
    except _Unusable as error:
        return Fault(error.kind, record.file, record.key, str(error))
    return Sample(record.key, record.file, caption, features=features, mended=remarks)


def picture_of(members: dict) -> tuple[str, bool]:
    """The ending of the member that is the picture, and whether others lie beside it ("007.jpg", "007.mask.png")."""
    found = [ending for ending in members if ending.rpartition(".")[2] in PICTURES or ending == UNNAMED]
    plain = [ending for ending in found if "." not in ending] or found
    if not plain:
        raise _Unusable("no picture", f"has no picture among its files ({_list(members)})")
    if len(plain) > 1:
        raise _Unusable("several pictures", f"has several pictures ({_list(plain)}); which one belongs to the text?")
    return plain[0], len(found) > 1


def _picture(source: bytes | Path, ending: str) -> tuple[Image.Image, tuple[str, ...]]:
    decoded = decode(_content(source), f"its .{ending} file")
    told, found = PICTURES.get(ending.rpartition(".")[2]), decoded.format.replace("MPO", "JPEG")
    return decoded.image, decoded.mended if told in (None, found) else (*decoded.mended, "wrong extension")


def _caption(members: dict) -> tuple[str, tuple[str, ...]]:
    """The text of the .txt file, else of a field of the .json file; and whether its letters had to be mended."""
    text, is_sound, endings = None, True, [e for e in members if e == "txt" or e.endswith(".txt")]
    if len(endings) > 1 and "txt" not in endings:
        raise _Unusable("several captions", f"has several captions ({_list(endings)})")
    if endings:
        text, is_sound = _text(members["txt" if "txt" in endings else endings[0]])
    elif "json" in members:
        text, is_sound = _text(members["json"])
        text = _field(text)
    if text is None:
        raise _Unusable("no caption", f"has no caption among its files ({_list(members)})")
    if not text.strip():
        raise _Unusable("empty caption", "has an empty caption")
    return text.replace("\0", " ").strip(), () if is_sound else ("caption not in UTF-8",)


def _field(text: str) -> str | None:
    try:
        told = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _Unusable("no caption", "has a .json file that cannot be read") from error
    if not isinstance(told, dict):
        return None
    return next((caption_text(told[name]) for name in CAPTION_COLUMNS if told.get(name)), None)


def _text(value: bytes | str | Path) -> tuple[str, bool]:
    """A text, and whether it was written in UTF-8; letters that were not become question marks."""
    if isinstance(value, str):
        return value, True
    content = _content(value)
    try:
        return content.decode("utf-8-sig"), True
    except UnicodeDecodeError:
        return content.decode("utf-8-sig", "replace"), False


def _content(value: bytes | Path) -> bytes:
    if isinstance(value, bytes):
        return value
    if (size := value.stat().st_size) > LARGEST_FILE:
        raise _Unusable("bad member", f"has a {value.suffix} file of {size:,} bytes (limit {LARGEST_FILE:,})")
    return value.read_bytes()


def _list(endings) -> str:
    return ", ".join(f".{ending}" for ending in endings) or "none"
