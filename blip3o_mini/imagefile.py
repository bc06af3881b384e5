"""Pictures from users and pictures to users: everything that can be wrong with a file, said in one sentence.

`read_image` looks at the header before it decodes a pixel, so that a small file which unpacks to
gigabytes is refused at no cost. `write_images` shows all pictures of a run or none: each is written
under a temporary name first, and only when all are safely on the disk are they renamed.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

LARGEST_PIXELS = 64_000_000  # 64 megapixels: 192 MB as RGB, more than any preset looks at
SMALLEST_SIDE = 8
MOST_IMAGES = 10_000  # names have four digits
# Few formats on purpose: Pillow also knows some that start other programs (EPS) or read other files.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
EXPECTED = "a PNG, JPEG, WebP, BMP, GIF, TIFF or PPM picture"
SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")


class PictureError(ValueError):
    """One sentence on a picture that cannot be used; `kind` is the same in two words, for counting."""

    def __init__(self, kind: str, sentence: str):
        super().__init__(sentence)
        self.kind = kind


class Decoded(NamedTuple):
    """A picture as 8-bit RGB, the format it was stored in, and what had to be mended to get there."""

    image: Image.Image
    format: str
    mended: tuple[str, ...]


def read_image(path: str | Path) -> Image.Image:
    """Read a still picture as 8-bit RGB, upright, transparency laid over white.

    Raises FileNotFoundError or ValueError, each one sentence that names the file and the remedy.
    """
    _check_file(Path(path))
    return decode(Path(path), str(path)).image


def decode(source: Path | bytes, name: str) -> Decoded:
    """The picture in a file or in its bytes; `name` stands for it in errors. Raises PictureError."""
    if source == b"":
        raise PictureError("empty", f"{name} is empty (0 bytes); give {EXPECTED}")
    with warnings.catch_warnings():
        # Pillow warns from 89 megapixels on; the limit below is stricter and refuses.
        warnings.simplefilter("ignore")
        try:
            image = Image.open(BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)
        except Image.DecompressionBombError as error:
            raise _too_large(name) from error
        except UnidentifiedImageError as error:
            sentence = f"{name} is not a picture that can be read here; give {EXPECTED}"
            raise PictureError("not a picture", sentence) from error
        except PermissionError as error:
            sentence = f"{name} cannot be read: permission denied; change its access rights"
            raise PictureError("no permission", sentence) from error
        except Exception as error:  # plugins raise many kinds (struct.error, SyntaxError, zlib.error …)
            raise _damaged(name) from error
        with image:
            _check_header(image, name)
            try:
                image.load()
            except Exception as error:
                raise _damaged(name) from error
            upright = _upright(image)
            return Decoded(_to_rgb(upright, name), image.format, _mended(image, upright))


def _mended(image: Image.Image, upright: Image.Image) -> tuple[str, ...]:
    found = {
        "rotated by its camera": upright is not image,
        "CMYK": image.mode == "CMYK",
        "transparency": image.has_transparency_data,
        "16-bit gray": image.mode in SIXTEEN_BIT or image.mode == "I",
    }
    return tuple(name for name, is_so in found.items() if is_so)


def _check_file(path: Path) -> None:
    try:
        if not path.exists():
            raise FileNotFoundError(f"there is no file {path}; check the path of the image")
        if path.is_dir():
            raise ValueError(f"{path} is a folder, not an image; name one picture inside it")
        if not path.is_file():
            raise ValueError(f"{path} is not an ordinary file; give {EXPECTED}")
        if path.stat().st_size == 0:
            raise ValueError(f"{path} is an empty file (0 bytes); give {EXPECTED}")
    except PermissionError as error:
        raise ValueError(f"{path} cannot be reached: permission denied; change its access rights") from error


def _check_header(image: Image.Image, name: str) -> None:
    width, height = image.size
    if width * height > LARGEST_PIXELS:
        raise _too_large(name, f"{width}×{height}, ")
    if min(width, height) < SMALLEST_SIDE:
        sentence = f"{name} is {width}×{height} pixels; both sides must have at least {SMALLEST_SIDE}"
        raise PictureError("too small", sentence)
    # MPO is what many phones write: a JPEG whose further "frames" are a preview or a depth map.
    if image.format == "MPO":
        return
    try:
        frames = getattr(image, "n_frames", 1)
        image.seek(0)
    except Exception as error:
        raise _damaged(name) from error
    if frames > 1:
        sentence = f"{name} holds {frames} frames, but only still pictures are read; save one as PNG"
        raise PictureError("animated", sentence)


def _upright(image: Image.Image) -> Image.Image:
    """Apply the camera's EXIF rotation; a broken EXIF block counts as none. The same object when nothing is to do."""
    try:
        is_turned = image.getexif().get(0x0112, 1) in range(2, 9)
        return ImageOps.exif_transpose(image) if is_turned else image
    except Exception:
        return image


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode in SIXTEEN_BIT or image.mode == "I":
        return _from_deep_gray(image, name)
    if image.mode == "F":
        sentence = f"{name} holds floating-point pixels of unknown scale; save it as 8-bit PNG"
        raise PictureError("unknown colours", sentence)
    try:
        if image.has_transparency_data:
            layer = image.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
        return image.convert("RGB")
    except ValueError as error:
        sentence = f"{name} has colours of the kind {image.mode}; save it as RGB PNG"
        raise PictureError("unknown colours", sentence) from error


def _from_deep_gray(image: Image.Image, name: str) -> Image.Image:
    """16-bit gray → 8-bit: 65535 becomes 255 (Pillow's own conversion would clip at 255)."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        sentence = f"{name} holds 32-bit pixels of unknown scale; save it as 8-bit PNG"
        raise PictureError("unknown colours", sentence)
    return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")


def _too_large(name: str, size: str = "") -> PictureError:
    limit = LARGEST_PIXELS // 1_000_000
    return PictureError("too large", f"{name} is too large ({size}limit {limit} megapixels); shrink it first")


def _damaged(name: str) -> PictureError:
    return PictureError("damaged", f"{name} is damaged or cut off and cannot be decoded; copy or download it again")


def prepare_folder(folder: str | Path) -> Path:
    """Prove that files can be written into a folder, before minutes are spent; leaves no trace.

    Raises ValueError with the reason: not a folder, read-only, or a full disk.
    """
    folder = Path(folder)
    made = _make_folder(folder)
    try:
        handle, probe = tempfile.mkstemp(prefix=".blip3o-", dir=folder)
        try:
            os.write(handle, bytes(4096))
        finally:
            os.close(handle)
            os.unlink(probe)
    except OSError as error:
        raise ValueError(_not_writable(folder, error)) from error
    finally:
        _remove_folders(made)
    return folder


def write_images(images: Sequence[Image.Image], folder: str | Path) -> list[Path]:
    """Write 0000.png, 0001.png … into a folder: all of them, or none when anything fails."""
    folder = Path(folder)
    if len(images) > MOST_IMAGES:
        raise ValueError(f"{len(images)} images are more than the {MOST_IMAGES} of four-digit names")
    return write_files({f"{index:04d}.png": png(image) for index, image in enumerate(images)}, folder)


def png(image: Image.Image) -> bytes:
    """The bytes of a PNG file; equal pictures give equal bytes."""
    buffer = BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def write_files(contents: dict[str, bytes], folder: str | Path) -> list[Path]:
    """Write named files into a folder, all or none. Raises ValueError when the disk refuses."""
    folder = Path(folder)
    made = _make_folder(folder)
    parts: list[str] = []  # grows while parts are written, so that a failure knows what to remove
    done: list[Path] = []
    try:
        parts.extend(_write_part(content, folder) for content in contents.values())
        for part, name in zip(parts, contents):
            os.replace(part, folder / name)
            done.append(folder / name)
    except BaseException as error:
        for leftover in (*parts, *done):
            Path(leftover).unlink(missing_ok=True)
        _remove_folders(made)
        if isinstance(error, OSError):
            raise ValueError(_not_writable(folder, error)) from error
        raise
    return done


def _write_part(content: bytes, folder: Path) -> str:
    """Write to a temporary name in the same folder, so that the later rename is atomic."""
    handle, part = tempfile.mkstemp(prefix=".blip3o-", suffix=".part", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # a full disk is sometimes noticed only here
        os.chmod(part, 0o644)  # mkstemp makes files that only the owner can read
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
    return part


def _make_folder(folder: Path) -> list[Path]:
    """Create a folder and its parents; return those that were missing, innermost first."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file, but a folder is needed to write into; choose another name")
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _remove_folders(made)
        raise ValueError(_not_writable(folder, error)) from error
    return made


def _remove_folders(folders: Sequence[Path]) -> None:
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:  # never created, or not empty: somebody else uses it
            return


def _not_writable(folder: Path, error: OSError) -> str:
    reason = (error.strerror or str(error)).lower()
    return f"cannot write into {folder}: {reason}; free space, mend its access rights or name another folder"
