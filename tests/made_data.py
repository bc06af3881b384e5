"""Data made by the tests: shards of tiny pictures whose captions are their numbers, and everything that goes wrong."""

import io
import struct
import tarfile
import zlib

from PIL import Image

from blip3o_mini.data import Recipe, Stream, find


def picture(kind="PNG", *, colour=(200, 30, 30), size=(16, 12), mode="RGB", **options) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, colour).save(buffer, kind, **options)
    return buffer.getvalue()


PNG, JPG = picture(), picture("JPEG")


def noise_jpg() -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(buffer, "JPEG")
    return buffer.getvalue()


def png_claiming(width: int, height: int) -> bytes:
    """A tiny PNG file whose header promises any size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def animated() -> bytes:
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (16, 12), colour) for colour in ("red", "blue")]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return picture("JPEG", exif=exif)


# Unusable samples: members, and the kind of the fault.
BAD = {
    "damaged": ({"jpg": noise_jpg()[:-600], "txt": b"x"}, "damaged"),
    "no picture at all": ({"txt": b"x"}, "no picture"),
    "wrong ending": ({"jpgx": JPG, "txt": b"x"}, "no picture"),
    "a text named jpg": ({"jpg": b"<html>404</html>", "txt": b"x"}, "not a picture"),
    "empty picture": ({"jpg": b"", "txt": b"x"}, "empty"),
    "no caption": ({"jpg": JPG}, "no caption"),
    "empty caption": ({"jpg": JPG, "txt": b" \n"}, "empty caption"),
    "broken json": ({"jpg": JPG, "json": b"{"}, "no caption"),
    "deep json": ({"jpg": JPG, "json": b"[" * 100_000}, "no caption"),
    "json without caption": ({"jpg": JPG, "json": b'{"url": "x"}'}, "no caption"),
    "bomb": ({"png": png_claiming(100_000, 100_000), "txt": b"x"}, "too large"),
    "gigantic": ({"png": png_claiming(10_000, 8_000), "txt": b"x"}, "too large"),
    "tiny": ({"png": png_claiming(2, 500), "txt": b"x"}, "too small"),
    "animated": ({"gif": animated(), "txt": b"x"}, "animated"),
    "two pictures": ({"jpg": JPG, "png": PNG, "txt": b"x"}, "several pictures"),
    "dotted names": ({"1.jpg": JPG, "2.jpg": JPG, "1.txt": b"x", "2.txt": b"y"}, "several pictures"),
}

# Samples that can be used: members, caption, size, what was mended.
MENDED = {
    "plain": ({"jpg": JPG, "txt": b"x"}, "x", (16, 12), ()),
    "png": ({"png": PNG, "txt": b"x"}, "x", (16, 12), ()),
    "webp": ({"webp": picture("WEBP"), "txt": b"x"}, "x", (16, 12), ()),
    "capitals": ({"JPG": JPG, "TXT": b"x"}, "x", (16, 12), ()),
    "json": ({"jpg": JPG, "json": b'{"caption": "from json"}'}, "from json", (16, 12), ()),
    "several in json": ({"jpg": JPG, "json": b'{"text": ["one", "two"]}'}, "one", (16, 12), ()),
    "text before json": ({"jpg": JPG, "json": b"{", "txt": b"x"}, "x", (16, 12), ()),
    "byte order mark": ({"jpg": JPG, "txt": "\ufeffx".encode()}, "x", (16, 12), ()),
    "latin-1": ({"jpg": JPG, "txt": "é".encode("latin-1")}, "\ufffd", (16, 12), ("caption not in UTF-8",)),
    "png named jpg": ({"jpg": PNG, "txt": b"x"}, "x", (16, 12), ("wrong extension",)),
    "cmyk": ({"jpg": picture("JPEG", mode="CMYK", colour=(0, 255, 255, 0)), "txt": b"x"}, "x", (16, 12), ("CMYK",)),
    "rotated": ({"jpg": rotated(), "txt": b"x"}, "x", (12, 16), ("rotated by its camera",)),
    "clear": ({"png": picture(mode="RGBA", colour=(9, 9, 9, 9)), "txt": b"x"}, "x", (16, 12), ("transparency",)),
    "a mask beside it": ({"jpg": JPG, "mask.png": PNG, "txt": b"x"}, "x", (16, 12), ("more pictures beside it",)),
}  # fmt: skip


def write_tar(path, samples, *, mode="w"):
    """A tar of {key: members}, closed properly."""
    with tarfile.open(path, mode) as archive:
        for key, members in samples.items():
            for ending, content in members.items():
                info = tarfile.TarInfo(f"{key}.{ending}" if ending else key)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


def numbered(first: int, count: int) -> dict:
    return {f"{n:06d}": {"png": PNG, "txt": str(n).encode()} for n in range(first, first + count)}


def make_shards(folder, sizes, *, first=0):
    """Shards of these numbers of samples, whose captions count on."""
    folder.mkdir(exist_ok=True)
    for index, size in enumerate(sizes):
        write_tar(folder / f"{index:03d}.tar", numbered(first, size))
        first += size
    return find(folder)


def stream(*sources, report=None, rank=0, world=1, workers=0, **recipe):
    faults = []
    made = Stream(Recipe(sources, **recipe), report=report or faults.append, rank=rank, world=world, workers=workers)
    made.seen = faults
    return made


def captions(samples) -> list[int]:
    return [int(sample.caption) for sample in samples]
