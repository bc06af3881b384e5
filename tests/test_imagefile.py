"""Reading pictures of every odd kind, refusing the impossible ones, and writing all or nothing."""

import errno
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from blip3o_mini import imagefile
from blip3o_mini.imagefile import prepare_folder, read_image, write_files, write_images

RED, HALF_RED = (255, 0, 0), (255, 0, 0, 128)


def solid(mode, colour, size=(16, 12)):
    return Image.new(mode, size, colour)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_claiming(width: int, height: int) -> bytes:
    """A tiny PNG file whose header promises any size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


# Pictures that are read: name, what is saved, and the colour expected (within 2 of 255).
READABLE = {
    "rgb.png": (solid("RGB", RED), RED),
    "gray.png": (solid("L", 100), (100, 100, 100)),
    "bilevel.png": (solid("1", 1), (255, 255, 255)),
    "rgba.png": (solid("RGBA", HALF_RED), (255, 127, 127)),
    "clear.png": (solid("RGBA", (0, 0, 0, 0)), (255, 255, 255)),
    "la.png": (solid("LA", (0, 128)), (127, 127, 127)),
    "palette.png": (solid("RGB", RED).convert("P"), RED),
    "palette.gif": (solid("RGB", RED).convert("P"), RED),
    "cmyk.jpg": (solid("CMYK", (0, 255, 255, 0)), RED),
    "photo.webp": (solid("RGB", RED), RED),
    "old.bmp": (solid("RGB", RED), RED),
    "scan.tiff": (solid("CMYK", (0, 255, 255, 0)), RED),
    "map.ppm": (solid("RGB", RED), RED),
}


@pytest.mark.parametrize("name", READABLE)
def test_every_kind_of_still_picture_becomes_rgb(tmp_path, name):
    image, expected = READABLE[name]
    image.save(tmp_path / name)
    found = read_image(tmp_path / name)
    assert found.mode == "RGB" and found.size == image.size
    # JPEG and WebP are lossy.
    np.testing.assert_allclose(np.asarray(found)[6, 8].astype(int), expected, atol=3)


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (65535, 255), (32768, 128), (257 * 60, 60)])
def test_sixteen_bit_gray_is_scaled_not_clipped(tmp_path, value, expected):
    Image.fromarray(np.full((12, 16), value, np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(np.full((12, 16), value, np.uint16)).save(tmp_path / "deep.tiff")
    for name in ("deep.png", "deep.tiff"):
        assert read_image(tmp_path / name).getpixel((3, 3)) == (expected,) * 3


def test_transparent_colour_of_a_palette_becomes_white(tmp_path):
    image = solid("P", 0)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.save(tmp_path / "hole.png", transparency=0)
    assert read_image(tmp_path / "hole.png").getpixel((3, 3)) == (255, 255, 255)


def test_camera_rotation_is_applied(tmp_path):
    image = solid("RGB", RED)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    image.save(tmp_path / "phone.jpg", exif=exif)
    assert read_image(tmp_path / "phone.jpg").size == (12, 16)


def test_broken_exif_counts_as_none(tmp_path):
    solid("RGB", RED).save(tmp_path / "odd.jpg", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\x7f")
    assert read_image(tmp_path / "odd.jpg").size == (16, 12)


def test_a_phone_picture_with_a_preview_inside_is_still(tmp_path):
    solid("RGB", RED).save(
        tmp_path / "phone.jpg", format="MPO", save_all=True, append_images=[solid("RGB", "blue")]
    )
    assert read_image(tmp_path / "phone.jpg").getpixel((3, 3))[0] > 200


def make_unreadable(kind: str, folder):
    """A file that must be refused, and a word its refusal must contain."""
    path = folder / f"{kind}.png"
    good = folder / "good.png"
    Image.effect_noise((64, 64), 90).convert("RGB").save(good)
    if kind == "missing":
        return path, "no file"
    if kind == "folder":
        path.mkdir()
        return path, "folder"
    if kind == "animated":
        path = folder / "moving.gif"
        frames = [solid("RGB", colour) for colour in ("red", "blue", "green")]
        frames[0].save(path, save_all=True, append_images=frames[1:])
        return path, "3 frames"
    if kind == "pages":
        path = folder / "pages.tiff"
        solid("RGB", RED).save(path, save_all=True, append_images=[solid("RGB", "blue")])
        return path, "2 frames"
    if kind == "float":
        path = folder / "float.tiff"
        Image.fromarray(np.ones((12, 16), np.float32)).save(path)
        return path, "floating-point"
    if kind == "truncated_jpeg":
        path = folder / "cut.jpg"
        Image.open(good).save(path)
        path.write_bytes(path.read_bytes()[:-600])
        return path, "damaged"
    content, word = {
        "empty": (b"", "0 bytes"),
        "text": (b"hello, this is no image at all", "not a picture"),
        "truncated": (good.read_bytes()[:2000], "damaged"),
        "header_only": (good.read_bytes()[:40], ""),
        "gigantic": (png_claiming(10_000, 8_000), "too large"),
        "bomb": (png_claiming(100_000, 100_000), "too large"),
        "zero_size": (png_claiming(0, 0), ""),
        "zero_width": (png_claiming(0, 20), ""),
        "tiny": (png_claiming(3, 3), "3×3"),
        "narrow": (png_claiming(2, 500), "2×500"),
        "noise": (good.read_bytes()[:300] + os.urandom(500) + good.read_bytes()[800:], "damaged"),
    }[kind]
    path.write_bytes(content)
    return path, word


UNREADABLE = (
    "missing", "folder", "animated", "pages", "float", "truncated_jpeg", "empty", "text", "truncated",
    "header_only", "gigantic", "bomb", "zero_size", "zero_width", "tiny", "narrow", "noise",
)  # fmt: skip


@pytest.mark.parametrize("kind", UNREADABLE)
def test_unreadable_files_are_refused_in_one_sentence(tmp_path, kind):
    path, word = make_unreadable(kind, tmp_path)
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        read_image(path)
    message = str(caught.value)
    assert str(path) in message and word in message and "\n" not in message


def test_a_gigantic_picture_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    path, _ = make_unreadable("gigantic", tmp_path)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(ValueError, match="10000×8000"):
        read_image(path)


def test_write_images_names_them_in_order_and_repeats_exactly(tmp_path):
    images = [solid("RGB", colour) for colour in ("red", "green", "blue")]
    files = write_images(images, tmp_path / "a" / "b")
    assert [file.name for file in files] == ["0000.png", "0001.png", "0002.png"]
    assert sorted(os.listdir(tmp_path / "a" / "b")) == ["0000.png", "0001.png", "0002.png"]
    again = write_images(images, tmp_path / "c")
    assert [f.read_bytes() for f in files] == [f.read_bytes() for f in again]
    assert read_image(files[2]).getpixel((0, 0)) == (0, 0, 255)


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", ["replace", "fsync"])
@pytest.mark.parametrize("allowed", [0, 1, 2])
def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch, call, allowed):
    original, calls = getattr(os, call), []

    def fails_later(*args):
        calls.append(args)
        return original(*args) if len(calls) <= allowed else full_disk()

    monkeypatch.setattr(os, call, fails_later)
    out = tmp_path / "new" / "out"
    with pytest.raises(ValueError, match="no space left on device"):
        write_images([solid("RGB", RED)] * 3, out)
    assert os.listdir(tmp_path) == []


def test_other_files_survive_a_full_disk(tmp_path, monkeypatch):
    (tmp_path / "mine.txt").write_text("keep")
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(ValueError):
        write_images([solid("RGB", RED)], tmp_path)
    assert os.listdir(tmp_path) == ["mine.txt"]


def test_prepare_folder_leaves_no_trace(tmp_path):
    assert prepare_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("path", ["file.txt", "file.txt/below"])
def test_a_file_is_no_folder(tmp_path, path):
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(ValueError, match=r"file\.txt"):
        prepare_folder(tmp_path / path)


def test_prepare_folder_notices_a_full_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(imagefile.os, "write", full_disk)
    with pytest.raises(ValueError, match="no space left"):
        prepare_folder(tmp_path / "out")
    assert os.listdir(tmp_path) == []


def test_prepare_folder_notices_a_read_only_place(tmp_path, monkeypatch):
    # Root may write anywhere, so the refusal is simulated where the system would raise it.
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "x")

    monkeypatch.setattr(imagefile.tempfile, "mkstemp", refuse)
    with pytest.raises(ValueError, match="permission denied"):
        prepare_folder(tmp_path)


def test_write_files_replaces_in_one_go(tmp_path):
    (tmp_path / "scores.json").write_text("old")
    assert write_files({"scores.json": b"new"}, tmp_path)[0].read_text() == "new"
