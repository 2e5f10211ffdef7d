"""The only place that opens an image: any file Pillow can read → uint8 RGB, or a DataError saying what is wrong.

Notable choices:
- The network sees what a person sees: EXIF orientation is applied and transparency is composited onto white.
- Nothing is decoded partially: a truncated file is an error, never an image with a gray lower part.
- Decoders are called through Pillow's plugin table instead of `Image.open`. This makes the size limit our own (checked
before any pixel is decoded and reported with width and height) without changing Pillow's process-wide limit or
Python's warning filters, so images can be opened from many threads.
"""

from __future__ import annotations

import io
import stat
import struct
import warnings
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO, Literal, NamedTuple, cast

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

from fcos_cli.data.decode.frames import unused_frames
from fcos_cli.data.decode.gray import FULL_16, scale_gray
from fcos_cli.data.decode.jpeg2000 import open_jpeg2000
from fcos_cli.data.decode.signatures import HEAD, describe
from fcos_cli.data.decode.tiff import RARE_CODECS, gray_of, open_tiff
from fcos_cli.errors import DataError, one_line

if TYPE_CHECKING:
    from PIL.TiffImagePlugin import TiffImageFile

_Opener = Callable[[IO[bytes], str | bytes], ImageFile.ImageFile]

MAX_PIXELS = 178_956_970  # Pillow's own limit: 512 MiB as RGB
BAND_PIXELS = 4_000_000  # converted at a time
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".webp", ".avif"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".jp2"}
)

_DECODERS = {
    "JPEG": "JpegImagePlugin",
    "PNG": "PngImagePlugin",
    "BMP": "BmpImagePlugin",
    "DIB": "BmpImagePlugin",
    "GIF": "GifImagePlugin",
    "TIFF": "TiffImagePlugin",
    "WEBP": "WebPImagePlugin",
    "PPM": "PpmImagePlugin",
    "JPEG2000": "Jpeg2KImagePlugin",
    "AVIF": "AvifImagePlugin",  # Pillow 11.3 and later
}
"""Format → the Pillow module that registers its decoder in Image.OPEN; imported when needed."""

_OPENERS: dict[str, _Opener] = {"TIFF": open_tiff, "JPEG2000": open_jpeg2000}
"""Formats with files that Pillow reads wrongly."""

_ORIENTATION = 0x0112
_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def open_image(source: Path | bytes | BinaryIO, *, max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.uint8]:
    """Return the image as uint8 [H, W, 3], RGB, upright (EXIF orientation applied).

    Only the first frame of an animation is returned, see `read_image`. Gray becomes three equal channels; transparency
    is composited onto white; CMYK is converted as Pillow does; 16-bit gray is scaled to 8 bits (65535 → 255); for
    32-bit gray, and pixels without a value (NaN, GDAL_NODATA), see `decode.gray.scale_gray`. The array is writable and
    contiguous. Raises DataError if the file is missing, a folder, a pipe, empty, not an image (the error says what else
    it is), truncated or damaged, or if it has more than `max_pixels` pixels (checked before decoding).
    """
    return read_image(source, max_pixels=max_pixels).pixels


class ReadImage(NamedTuple):
    """pixels: as `open_image` returns them. note: says that the file has more pages or frames; None if it does not."""

    pixels: npt.NDArray[np.uint8]
    note: str | None


def read_image(source: Path | bytes | BinaryIO, *, max_pixels: int = MAX_PIXELS) -> ReadImage:
    """Do what `open_image` does, and also say what is left out of the file."""
    place = str(source) if isinstance(source, Path) else "image in memory"
    with _stream(source, place) as stream:
        image = _identify(stream, place)
        width, height = image.size
        if width * height > max_pixels:
            raise DataError(
                f"the image has {width} x {height} pixels, more than the limit of {max_pixels:,} in total",
                where=place,
                remedy="shrink it or cut it into tiles; a small file that declares a huge size may be an attack",
            )
        codec = image.info.get("compression")
        transpose = _TRANSPOSES.get(_orientation(image))
        try:
            image.load()
            pixels = _to_array(image, transpose)
        except Exception as error:  # decoders raise arbitrary exceptions on damaged input
            if isinstance(error, MemoryError) or "out of memory" in str(error):  # as Pillow's decoders word it
                what = f"there is not enough memory for the image, {width} x {height} pixels"
                raise DataError(what, where=place, remedy="free memory, or make the image smaller") from error
            doubt = f", or compressed in a way that this Pillow cannot read: {codec}" if codec in RARE_CODECS else ""
            raise DataError(
                f"the image is truncated or damaged ({one_line(error)}){doubt}",
                where=place,
                remedy="copy or download the file again, or remove it from the data set",
            ) from error
        return ReadImage(pixels, unused_frames(image, stream))


def image_size(path: Path) -> tuple[int, int]:
    """Return (width, height) of the image as `open_image` would return it, reading only the file header.

    Raises DataError if the header cannot be read.
    """
    with _stream(path, str(path)) as stream:
        image = _identify(stream, str(path))
        width, height = image.size
        return (height, width) if _orientation(image) >= 5 else (width, height)


def note_of(path: Path) -> str | None:
    """Return the note of `read_image`, without decoding the image; None also if it cannot be read."""
    with suppress(DataError), _stream(path, str(path)) as stream:
        return unused_frames(_identify(stream, str(path)), stream)
    return None


def kind_if_plain(path: Path) -> Literal["JPEG", "PNG"] | None:
    """Return the kind of a file that every labelling tool opens as `open_image` does; None for other files.

    JPEG files may have EXIF rotation, which tools apply; in PNG files many do not.
    """
    with suppress(DataError), _stream(path, str(path)) as stream:
        image = _identify(stream, str(path))
        if image.format in ("JPEG", "MPO"):
            return "JPEG"
        if image.format == "PNG" and _orientation(image) == 1 and not getattr(image, "is_animated", False):
            return "PNG"
    return None


def _stream(source: Path | bytes | BinaryIO, place: str) -> BinaryIO:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if not isinstance(source, Path):
        return io.BytesIO(source.read())  # a pipe cannot seek, and the caller's stream must stay open
    try:
        kind = source.stat().st_mode
        if stat.S_ISDIR(kind):
            raise DataError("this is a folder, not an image", where=place, remedy="give an image file")
        if not stat.S_ISREG(kind):  # opening a pipe waits until somebody writes, and decoders have to seek
            raise DataError(
                "this is a pipe or a device, not a file",
                where=place,
                remedy="give a file, or the image on stdin: `… | fcos predict -`",
            )
        return source.open("rb")
    except FileNotFoundError as error:
        if source.is_symlink():
            what = f"this is a link to {source.readlink()}, which does not exist"
            raise DataError(what, where=place, remedy="restore that file, or remove the link") from error
        raise DataError("the image does not exist", where=place, remedy="check the path") from error
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise DataError(
            f"the image cannot be read ({one_line(error)})", where=place, remedy="check the file's permissions"
        ) from error


def _identify(stream: BinaryIO, place: str) -> ImageFile.ImageFile:
    """Return the image opened by the first decoder that recognizes it; pixels are not decoded yet."""
    head = stream.read(HEAD)
    prefix = head[:16]
    if not head:
        raise DataError("the image file is empty (0 bytes)", where=place, remedy="copy or download it again")
    reason = "the format is unknown"
    for name, module in _DECODERS.items():
        with suppress(ImportError):
            import_module(f"PIL.{module}")
        factory, accept = Image.OPEN.get(name, (None, None))
        if factory is None or accept is None:
            continue
        try:
            accepted = accept(prefix)
            if isinstance(accepted, str):  # recognized, but Pillow was built without the codec
                reason = accepted
            elif accepted:
                return _open_with(_OPENERS.get(name, factory), stream)
        except DataError as error:
            error.where = place
            raise
        except struct.error:  # the DIB check reads 4 bytes even if the file is shorter
            continue
        except Exception as error:  # decoders raise arbitrary exceptions on damaged input
            reason = f"{name}: {one_line(error)}"
    if description := describe(head):
        what, remedy = description
        raise DataError(f"the file is {what}", where=place, remedy=remedy)
    raise DataError(
        f"the file is not a readable image ({reason})",
        where=place,
        remedy="use JPEG, PNG, WebP, BMP, GIF, TIFF, PPM, JPEG 2000 or (with Pillow 11.3 or newer) AVIF; if it already"
        " is, the file is damaged",
    )


def _open_with(factory: _Opener, stream: BinaryIO) -> ImageFile.ImageFile:
    stream.seek(0)
    try:
        return factory(stream, "")
    except Warning:  # with -W error, a malformed EXIF block must not make the image unreadable
        stream.seek(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return factory(stream, "")


def _orientation(image: ImageFile.ImageFile) -> int:
    """Return the EXIF orientation still to be applied, 1…8; 1 if absent, unreadable or invalid."""
    if image.format == "TIFF":  # Pillow rotates these while decoding and already reports the rotated size
        return 1
    # A PNG may store EXIF after its pixels. Reading it would decode the image, so only EXIF before them is used.
    if image.format == "PNG" and not {"exif", "Raw profile type exif"} & image.info.keys():
        return 1
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a damaged EXIF block must not make the image unreadable
        return 1
    return value if value in _TRANSPOSES else 1


def _to_array(image: Image.Image, transpose: Image.Transpose | None) -> npt.NDArray[np.uint8]:
    """uint8 [H, W, 3]. In bands of rows, since each step of the conversion takes up to four bytes per pixel."""
    gray = _deep_gray(image)
    source = image if gray is None else Image.fromarray(gray)
    if transpose is not None:
        source = source.transpose(transpose)
    width, height = source.size
    rows = max(1, BAND_PIXELS // width)
    pixels = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, rows):
        band = source if rows >= height else source.crop((0, top, width, min(height, top + rows)))
        pixels[top : top + rows] = np.asarray(_to_rgb(band))
    return pixels


def _to_rgb(image: Image.Image) -> Image.Image:
    mode = image.mode
    if mode == "RGB" and "transparency" not in image.info:
        return image
    if mode == "La":
        image = image.convert("LA")
    if mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        opaque = image.convert("RGBA")
        white = Image.new("RGBA", opaque.size, "white")
        return Image.alpha_composite(white, opaque).convert("RGB")
    return image.convert("RGB")


def _deep_gray(image: Image.Image) -> npt.NDArray[np.uint8] | None:
    """Return the pixels of a gray image of other than unsigned 8 bits, uint8 [H, W]; None for other images."""
    if image.format == "TIFF":
        return gray_of(cast("TiffImageFile", image))
    if image.mode.startswith("I") or image.mode == "F":
        full_range = image.format == "PPM" and image.mode == "I"  # Pillow scales these to 65535
        return scale_gray(np.asarray(image), white=FULL_16 if full_range else None)
    return None
