"""The only place that opens a picture: any file Pillow knows → uint8 RGB, or a DataError that says what is wrong.

Notable choices:
- What a person sees is what the network sees: EXIF orientation is applied, transparency is laid on white.
- Nothing is half read: a truncated file is an error, never a picture with a grey lower part.
- Decoders are called through Pillow's plugin table rather than `Image.open`. That keeps the size limit ours (checked
  before any pixel is decoded, told with width and height) without touching Pillow's process-wide limit or Python's
  warning filters, so pictures can be opened from many threads.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

from fcos_cli.errors import DataError

MAX_PIXELS = 178_956_970  # what Pillow itself refuses: 512 MiB as RGB
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
"""Format → the module of Pillow that enters its decoder into Image.OPEN; imported when a file may need it."""

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def open_image(source: Path | bytes | BinaryIO, *, max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.uint8]:
    """The picture as uint8 [H, W, 3], RGB, upright (EXIF orientation applied); of an animation, the first frame.

    Grey becomes equal channels; transparency is composited onto white; CMYK is converted as Pillow does; 16-bit grey
    is scaled to 8 bits (65535 → 255); 32-bit greys by `_scale_grey`. The array is writable and contiguous.
    Raises DataError for a file that is missing, a folder, empty, not a picture, truncated or damaged, and for one of
    more than `max_pixels` pixels (before decoding it).
    """
    place = str(source) if isinstance(source, Path) else "picture in memory"
    with _stream(source, place) as stream:
        picture = _identify(stream, place)
        width, height = picture.size
        if width * height > max_pixels:
            raise DataError(
                f"the picture has {width} x {height} pixels, more than the limit of {max_pixels:,} in all",
                where=place,
                remedy="make it smaller or cut it into tiles; a tiny file that claims a huge size may be an attack",
            )
        turn = _TURNS.get(_orientation(picture))
        try:
            picture.load()
            rgb = _to_rgb(picture)
            return np.array(rgb if turn is None else rgb.transpose(turn))
        except Exception as error:  # decoders raise whatever their damaged input leads them to
            raise DataError(
                f"the picture is truncated or damaged ({_one_line(error)})",
                where=place,
                remedy="copy or download the file again, or take it out of the data set",
            ) from error


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) of the picture as `open_image` would return it, from the file's header only.

    Raises DataError where the header cannot be read.
    """
    with _stream(path, str(path)) as stream:
        picture = _identify(stream, str(path))
        width, height = picture.size
        return (height, width) if _orientation(picture) >= 5 else (width, height)


def _stream(source: Path | bytes | BinaryIO, place: str) -> BinaryIO:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if not isinstance(source, Path):
        return io.BytesIO(source.read())  # a pipe cannot seek, and the caller's stream must stay open
    try:
        return source.open("rb")
    except IsADirectoryError as error:
        raise DataError("this is a folder, not a picture", where=place, remedy="name a picture file") from error
    except FileNotFoundError as error:
        raise DataError("the picture does not exist", where=place, remedy="check the path") from error
    except OSError as error:
        raise DataError(
            f"the picture cannot be read ({_one_line(error)})", where=place, remedy="check the file's permissions"
        ) from error


def _identify(stream: BinaryIO, place: str) -> ImageFile.ImageFile:
    """The header, read by the first decoder that knows it; pixels are not decoded yet."""
    prefix = stream.read(16)
    if not prefix:
        raise DataError("the picture file is empty (0 bytes)", where=place, remedy="copy or download it again")
    reason = "no known picture format begins like this"
    for name, module in _DECODERS.items():
        with suppress(ImportError):
            import_module(f"PIL.{module}")
        factory, accept = Image.OPEN.get(name, (None, None))
        if factory is None or accept is None:
            continue
        try:
            accepted = accept(prefix)
            if isinstance(accepted, str):  # known, but Pillow was built without its library
                reason = accepted
            elif accepted:
                return _open_with(factory, stream)
        except struct.error:  # the DIB test reads 4 bytes of a shorter file
            continue
        except Exception as error:  # decoders raise whatever their damaged input leads them to
            reason = f"{name}: {_one_line(error)}"
    raise DataError(
        f"this is not a picture that can be read ({reason})",
        where=place,
        remedy="use JPEG, PNG, WebP, BMP, GIF, TIFF, PPM, JPEG 2000 or AVIF; if it is one, the file is damaged",
    )


def _open_with(
    factory: Callable[[IO[bytes], str | bytes], ImageFile.ImageFile], stream: BinaryIO
) -> ImageFile.ImageFile:
    stream.seek(0)
    try:
        return factory(stream, "")
    except Warning:  # a process that makes warnings errors must not lose a picture to an odd EXIF block
        stream.seek(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return factory(stream, "")


def _orientation(picture: ImageFile.ImageFile) -> int:
    """The turn that is left to do, as EXIF orientation 1…8; 1 where it is absent, unreadable or nonsense."""
    if picture.format == "TIFF":  # Pillow turns these while decoding, and tells the turned size before
        return 1
    # A PNG may carry EXIF behind its pixels; asking for it would decode the picture, so only what precedes counts.
    if picture.format == "PNG" and not {"exif", "Raw profile type exif"} & picture.info.keys():
        return 1
    try:
        value = picture.getexif().get(_ORIENTATION, 1)
    except Exception:  # a damaged EXIF block must not cost the picture
        return 1
    return value if value in _TURNS else 1


def _to_rgb(picture: Image.Image) -> Image.Image:
    mode = picture.mode
    if mode == "RGB" and "transparency" not in picture.info:
        return picture
    if mode.startswith("I") or mode == "F":
        return Image.fromarray(_scale_grey(np.asarray(picture), full_range=picture.format == "PPM")).convert("RGB")
    if mode == "La":
        picture = picture.convert("LA")
    if mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info:
        opaque = picture.convert("RGBA")
        white = Image.new("RGBA", opaque.size, "white")
        return Image.alpha_composite(white, opaque).convert("RGB")
    return picture.convert("RGB")


def _scale_grey(pixels: npt.NDArray[np.generic], *, full_range: bool) -> npt.NDArray[np.uint8]:
    """Grey of 16 or 32 bits, [H, W] → uint8 [H, W].

    16-bit: 0…65535 → 0…255, rounded. 32-bit files do not say which range they use, so the values decide: all in 0…1
    (floats) or 0…255 or 0…65535 is taken as that range; anything else is stretched from its least to its greatest
    value. NaN is black, infinity the end of the range. `full_range`: the decoder is known to scale to 0…65535.
    """
    if pixels.dtype.kind == "u" and pixels.dtype.itemsize == 2:
        return ((pixels.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    values = pixels.astype(np.float64)
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if low >= 0 and high <= 65535:
        low = 0.0
        ceilings = [65535.0] if full_range else [1.0, 255.0, 65535.0] if pixels.dtype.kind == "f" else [255.0, 65535.0]
        high = next(ceiling for ceiling in ceilings if high <= ceiling)
    values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    return np.rint((values - low) * (255.0 / max(high - low, 1e-30))).astype(np.uint8)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
