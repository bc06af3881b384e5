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

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

LARGEST_PIXELS = 64_000_000  # 64 megapixels: 192 MB as RGB, more than any preset looks at
SMALLEST_SIDE = 8
MOST_IMAGES = 10_000  # names have four digits
# Few formats on purpose: Pillow also knows some that start other programs (EPS) or read other files.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
EXPECTED = "a PNG, JPEG, WebP, BMP, GIF, TIFF or PPM picture"
SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")


def read_image(path: str | Path) -> Image.Image:
    """Read a still picture as 8-bit RGB, upright, transparency laid over white.

    Raises FileNotFoundError or ValueError, each one sentence that names the file and the remedy.
    """
    path = Path(path)
    _check_file(path)
    with warnings.catch_warnings():
        # Pillow warns from 89 megapixels on; the limit below is stricter and refuses.
        warnings.simplefilter("ignore")
        try:
            image = Image.open(path, formats=FORMATS)
        except Image.DecompressionBombError as error:
            raise ValueError(_too_large(path)) from error
        except UnidentifiedImageError as error:
            raise ValueError(f"{path} is not a picture that can be read here; give {EXPECTED}") from error
        except PermissionError as error:
            raise ValueError(f"{path} cannot be read: permission denied; change its access rights") from error
        except Exception as error:  # plugins raise many kinds (struct.error, SyntaxError, zlib.error …)
            raise ValueError(_damaged(path)) from error
        with image:
            _check_header(image, path)
            try:
                image.load()
            except Exception as error:
                raise ValueError(_damaged(path)) from error
            return _to_rgb(_upright(image), path)


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


def _check_header(image: Image.Image, path: Path) -> None:
    width, height = image.size
    if width * height > LARGEST_PIXELS:
        raise ValueError(_too_large(path, f"{width}×{height}, "))
    if min(width, height) < SMALLEST_SIDE:
        raise ValueError(f"{path} is {width}×{height} pixels; both sides must have at least {SMALLEST_SIDE}")
    # MPO is what many phones write: a JPEG whose further "frames" are a preview or a depth map.
    if image.format == "MPO":
        return
    try:
        frames = getattr(image, "n_frames", 1)
        image.seek(0)
    except Exception as error:
        raise ValueError(_damaged(path)) from error
    if frames > 1:
        raise ValueError(f"{path} holds {frames} frames, but only still pictures are read; save one as PNG")


def _upright(image: Image.Image) -> Image.Image:
    """Apply the camera's EXIF rotation; a broken EXIF block counts as none."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:
        return image


def _to_rgb(image: Image.Image, path: Path) -> Image.Image:
    if image.mode in SIXTEEN_BIT or image.mode == "I":
        return _from_deep_gray(image, path)
    if image.mode == "F":
        raise ValueError(f"{path} holds floating-point pixels of unknown scale; save it as 8-bit PNG")
    try:
        if image.has_transparency_data:
            layer = image.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
        return image.convert("RGB")
    except ValueError as error:
        raise ValueError(f"{path} has colours of the kind {image.mode}; save it as RGB PNG") from error


def _from_deep_gray(image: Image.Image, path: Path) -> Image.Image:
    """16-bit gray → 8-bit: 65535 becomes 255 (Pillow's own conversion would clip at 255)."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError(f"{path} holds 32-bit pixels of unknown scale; save it as 8-bit PNG")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")


def _too_large(path: Path, size: str = "") -> str:
    limit = LARGEST_PIXELS // 1_000_000
    return f"{path} is too large ({size}limit {limit} megapixels); shrink it first"


def _damaged(path: Path) -> str:
    return f"{path} is damaged or cut off and cannot be decoded; copy or download it again"


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
