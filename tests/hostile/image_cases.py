"""Image files that are wrong, odd or dangerous on purpose."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageDraw

from tests.hostile.contract import Case

RED, GREEN, BLUE, WHITE, BLACK = "#ff0000", "#00ff00", "#0000ff", "#ffffff", "#000000"
PIXELS, DAMAGED = "more than the limit", "truncated or damaged|not a readable image"
Make = Callable[[Path], Path]


def corners(width: int = 40, height: int = 24) -> Image.Image:
    """Red, green; blue, white: each corner has its own colour."""
    image = Image.new("RGB", (width, height), RED)
    pen = ImageDraw.Draw(image)
    for left, top, colour in ((1, 0, GREEN), (0, 1, BLUE), (1, 1, WHITE)):
        x, y = left * width // 2, top * height // 2
        pen.rectangle((x, y, x + width // 2, y + height // 2), fill=colour)
    return image


def noise(width: int = 64, height: int = 48) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def file(content: bytes | Callable[[], bytes], name: str = "x.png") -> Make:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content() if callable(content) else content)
        return folder / name

    return make


def picture(image: Image.Image, kind: str, **options: Any) -> Make:
    return file(lambda: encode(image, kind, **options), f"x.{kind.lower()}")


def cut(kind: str, tenths: int) -> Make:
    def content() -> bytes:
        whole = encode(noise(), kind, **({"lossless": True} if kind == "WEBP" else {}))
        return whole[: len(whole) * tenths // 10]

    return file(content, f"x.{kind.lower()}")


def patched(kind: str, place: int, new: bytes, **options: Any) -> Make:
    def content() -> bytes:
        whole = bytearray(encode(noise(), kind, **options))
        whole[place : place + len(new)] = new
        return bytes(whole)

    return file(content, f"x.{kind.lower()}")


# --- decompression bombs ---------------------------------------------------------------------------------------------


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, *, colour: int = 0, depth: int = 8, rows: bytes = b"", more: bytes = b"") -> bytes:
    """colour: 0 gray, 2 RGB, 6 RGBA. rows: the pixels before compression."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + more + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")


def text_bomb() -> bytes:
    more = chunk(b"zTXt", b"note\0\0" + zlib.compress(bytes(60 << 20), 9))
    return png(1, 1, rows=bytes(2), more=more)


def profile_bomb() -> bytes:
    more = chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(60 << 20), 9))
    return png(1, 1, rows=bytes(2), more=more)


def jpeg_of(width: int, height: int) -> bytes:
    whole = encode(noise(), "JPEG")
    place = whole.index(b"\xff\xc0") + 5
    return whole[:place] + struct.pack(">HH", height, width) + whole[place + 4 :]


def gif_of(width: int, height: int, *, frame: bool) -> bytes:
    """frame: the one frame has that size, instead of the screen."""
    whole = encode(noise(), "GIF")
    place = whole.index(b"\x2c", 13 + 3 * 256) + 5 if frame else 6
    return whole[:place] + struct.pack("<HH", width, height) + whole[place + 4 :]


def tiff(width: int, height: int, *, offset: int = 8, strip: bytes = b"", compression: int = 1) -> bytes:
    """Little-endian gray TIFF with one strip, which lies behind the header unless `offset` says something else."""
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, compression), (262, 3, 1), (273, 4, offset)]
    tags += [(277, 3, 1), (278, 4, height), (279, 4, len(strip))]
    rows = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(strip)) + strip + struct.pack("<H", len(tags)) + rows + bytes(4)


def webp_canvas() -> bytes:
    """An animation whose canvas is 16384 × 16384."""
    whole = encode(noise(), "WEBP", save_all=True, append_images=[corners(64, 48)])
    place = whole.index(b"VP8X") + 12
    return whole[:place] + b"\xff\x3f\x00\xff\x3f\x00" + whole[place + 6 :]


def webp_lossless() -> bytes:
    whole = encode(noise(), "WEBP", lossless=True)
    place = whole.index(b"VP8L") + 9
    return whole[:place] + struct.pack("<I", 16383 | 16383 << 14) + whole[place + 4 :]


def large_rgba() -> bytes:
    return png(6000, 6000, colour=6, rows=bytes(24_001 * 6000))


def deflated() -> bytes:
    return tiff(20_000, 20_000, strip=zlib.compress(bytes(4_000_000), 1), compression=8)


# --- what a folder can hold under the name of an image ---------------------------------------------------------------


def folder_as_image(folder: Path) -> Path:
    (folder / "x.jpg").mkdir()
    return folder / "x.jpg"


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / "x.png")
    return folder / "x.png"


def loop(folder: Path) -> Path:
    (folder / "x.png").symlink_to("x.png")
    return folder / "x.png"


def dangling(folder: Path) -> Path:
    (folder / "x.png").symlink_to("nowhere.png")
    return folder / "x.png"


# --- the table -------------------------------------------------------------------------------------------------------


def exif(orientation: object, *, raw: bytes | None = None) -> Make:
    block = Image.Exif()
    if raw is None:
        block[0x0112] = orientation
    return picture(corners(), "PNG", exif=block if raw is None else b"Exif\0\0" + raw)


def tag(number: int, entry: bytes) -> bytes:
    """An EXIF block with one tag. entry: its type, count and value."""
    return b"II*\0\x08\0\0\0\x01\0" + struct.pack("<H", number) + entry + bytes(4)


def profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def palette(*, alpha: bool) -> Make:
    image = corners().quantize(8)
    first = image.getpixel((0, 0))
    return picture(image, "PNG", **({"transparency": first} if alpha else {}))


def upright(colour: str, *, turned: bool = False) -> str:
    return f"24x40 {colour}" if turned else f"40x24 {colour}"


SIXTEEN = Image.fromarray(np.full((4, 6), 65535, np.uint16))
CMYK = Image.new("CMYK", (6, 4), (0, 255, 255, 0))
GRAY_ALPHA = Image.new("LA", (6, 4), (0, 0))
FRAMES: dict[str, Any] = {"save_all": True, "append_images": [Image.new("RGB", (40, 24), BLACK)]}

ORIENTED = [
    Case(f"exif-{value}", exif(value), upright(colour, turned=value >= 5))
    for value, colour in enumerate((RED, GREEN, WHITE, BLUE, RED, BLUE, WHITE, GREEN), start=1)
]
CUT = [
    Case(f"{kind.lower()}-cut-at-{tenths}0-percent", cut(kind, tenths), DAMAGED)
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF")
    for tenths in range(1, 10)
]
IMAGES = [
    # `WIDTHxHEIGHT #colour`: the size and the colour of the upper left corner; anything else is the text of the error
    *ORIENTED,
    *CUT,
    Case("png-bomb", file(png(100_000, 100_000)), PIXELS),
    Case("png-bomb-of-1-bit", file(lambda: png(30_000, 30_000, depth=1, rows=bytes(3751 * 30_000))), PIXELS),
    Case("png-of-2-billion-a-side", file(png(2**31 - 1, 2**31 - 1)), PIXELS + "|" + DAMAGED),
    Case("png-rgba-of-36-million", file(large_rgba), "6000x6000 #ffffff"),
    Case("png-text-bomb", file(text_bomb), "1x1 #000000|" + DAMAGED),
    Case("png-profile-bomb", file(profile_bomb), "1x1 #000000|" + DAMAGED),
    Case("png-rows-beyond-its-size", file(lambda: png(1, 1, rows=bytes(60 << 20))), "1x1 #000000|" + DAMAGED),
    Case("png-without-rows", file(png(40, 24)), DAMAGED),
    Case("png-of-0-pixels", file(png(0, 24)), DAMAGED),
    Case("png-wrong-checksum", patched("PNG", 20, b"\xff"), DAMAGED),
    Case("tiff-bomb", file(tiff(100_000, 100_000), "x.tif"), PIXELS),
    Case("tiff-bomb-deflate", file(deflated, "x.tif"), PIXELS),
    Case("tiff-strip-beyond-the-file", file(tiff(40, 24, offset=2**31, strip=b"x"), "x.tif"), DAMAGED),
    Case("tiff-compression-unknown", file(tiff(40, 24, strip=bytes(960), compression=999), "x.tif"), "cannot be read"),
    Case("gif-bomb-screen", file(lambda: gif_of(65_535, 65_535, frame=False), "x.gif"), PIXELS),
    Case("gif-bomb-frame", file(lambda: gif_of(65_535, 65_535, frame=True), "x.gif"), f"{PIXELS}|{DAMAGED}"),
    Case("webp-bomb-canvas", file(webp_canvas, "x.webp"), f"{PIXELS}|{DAMAGED}"),
    Case("webp-bomb-lossless", file(webp_lossless, "x.webp"), f"{PIXELS}|{DAMAGED}"),
    Case("jpeg-bomb", file(lambda: jpeg_of(65_500, 65_500), "x.jpg"), PIXELS),
    Case("jpeg-taller-than-its-data", file(lambda: jpeg_of(64, 4800), "x.jpg"), "64x4800 #3381af|" + DAMAGED),
    Case("bmp-of-2-billion-a-side", patched("BMP", 18, struct.pack("<ii", *[2**31 - 1] * 2)), f"{PIXELS}|{DAMAGED}"),
    Case("bmp-negative-width", patched("BMP", 18, struct.pack("<ii", -40, 24)), f"{PIXELS}|{DAMAGED}"),
    Case("ppm-bomb", file(b"P6 100000 100000 255\n", "x.ppm"), PIXELS),
    Case("ppm-long-number", file(b"P6 " + b"9" * 5000 + b" 1 255\n", "x.ppm"), DAMAGED),
    Case("exif-0", exif(0), upright(RED)),
    Case("exif-9", exif(9), upright(RED)),
    Case("exif-text", exif(0, raw=tag(0x0112, b"\x02\0\x03\0\0\0up\0\0")), upright(RED)),
    Case("exif-zero-bytes", exif(0, raw=bytes(100)), upright(RED)),
    Case("exif-cut", exif(0, raw=b"II*\0\x08\0\0\0\xff\xff"), upright(RED)),
    Case("exif-in-a-circle", exif(0, raw=tag(0x8769, b"\x04\0\x01\0\0\0\x08\0\0\0")), upright(RED)),
    Case("gray-16-bit-png", picture(SIXTEEN, "PNG"), "6x4 #ffffff"),
    Case("gray-16-bit-tiff", picture(SIXTEEN, "TIFF"), "6x4 #ffffff"),
    Case("gray-32-bit-nan", picture(Image.fromarray(np.full((4, 6), np.nan, np.float32)), "TIFF"), "6x4 #000000"),
    Case("gray-32-bit-infinite", picture(Image.fromarray(np.full((4, 6), np.inf, np.float32)), "TIFF"), "6x4 #ffffff"),
    Case("gray-alpha", picture(GRAY_ALPHA, "PNG"), "6x4 #ffffff"),
    Case("palette", palette(alpha=False), upright(RED)),
    Case("palette-with-alpha", palette(alpha=True), upright(WHITE)),
    Case("cmyk-jpeg", picture(CMYK, "JPEG", quality=100), "6x4 #ff0000"),
    Case("cmyk-jpeg-rgb-profile", picture(CMYK, "JPEG", quality=100, icc_profile=profile()), "6x4 #ff0000"),
    Case("profile-of-noise", picture(corners(), "PNG", icc_profile=noise().tobytes()), upright(RED)),
    Case("animated-gif", picture(corners(), "GIF", **FRAMES), upright(RED)),
    Case("animated-webp", picture(corners(), "WEBP", lossless=True, **FRAMES), upright(RED)),
    Case("animated-png", picture(corners(), "PNG", **FRAMES), upright(RED)),
    Case("tiff-of-2-pages", picture(corners(), "TIFF", **FRAMES), upright(RED)),
    Case("1-by-1", picture(Image.new("RGB", (1, 1), RED), "PNG"), "1x1 #ff0000"),
    Case("1-by-20000", picture(Image.new("RGB", (1, 20_000), RED), "PNG"), "1x20000 #ff0000"),
    Case("20000-by-1", picture(Image.new("RGB", (20_000, 1), RED), "PNG"), "20000x1 #ff0000"),
    Case("png-named-jpg", file(lambda: encode(corners(), "PNG"), "x.jpg"), upright(RED)),
    Case("png-without-suffix", file(lambda: encode(corners(), "PNG"), "x"), upright(RED)),
    Case("text-named-png", file(b"hello\n"), "is text"),
    Case("page-named-jpg", file(b"<html>404</html>", "x.jpg"), "web page"),
    Case("zip-named-png", file(b"PK\x03\x04" + bytes(100)), "archive"),
    Case("postscript-named-jpg", file(b"%!PS-Adobe-3.0 EPSF-3.0\n(ran) (w) file\n", "x.jpg"), "is text"),
    Case("svg-named-png", file(b'<svg xmlns="http://www.w3.org/2000/svg"/>'), "SVG"),
    Case("empty", file(b""), "empty"),
    Case("zero-bytes", file(bytes(1000)), "not a readable image"),
    Case("1-byte", file(b"\x89"), "not a readable image"),
    Case("16-bytes", file(b"\x89PNG\r\n\x1a\n" + bytes(8)), DAMAGED),
    Case("folder-named-jpg", folder_as_image, "folder"),
    Case("pipe", pipe, "pipe"),
    Case("link-to-itself", loop, "cannot be read"),
    Case("link-to-nothing", dangling, "does not exist"),
    Case("name-too-long", lambda folder: folder / ("x" * 5000), "cannot be read"),
    Case("name-with-nul", lambda folder: folder / "a\0.png", "cannot be read|does not exist"),
]  # fmt: skip
