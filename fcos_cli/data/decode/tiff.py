"""TIFF files: what Pillow reads wrongly is read correctly here or refused, and what it refuses is described.

Source of the tags: TIFF 6.0 (Adobe, 1992); GDAL_NODATA: https://gdal.org/en/stable/drivers/raster/gtiff.html
"""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import ImageFile

from fcos_cli.data.decode.gray import scale_gray
from fcos_cli.errors import DataError

if TYPE_CHECKING:  # imported when needed: it takes longer than reading a JPEG file
    from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile

_SUBFILE_TYPE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 258, 259, 262
_SAMPLES, _PLANAR, _SUB_DIRECTORIES, _SAMPLE_FORMAT, _NODATA, _DNG_VERSION = 277, 284, 330, 339, 42113, 50706
_THUMBNAIL, _MASK = 1, 4
"""Bits of _SUBFILE_TYPE."""
_DEFLATE = 8
_BIGTIFF = 43
_BIG_ENDIAN_BIGTIFF = b"MM\0\x2b"
_CANON = b"II*\0\x10\0\0\0CR\x02"
"""The first bytes of a CR2 file."""
_MOST_SAMPLES = 6
"""Most samples that Pillow reads; about more, it prints a message of its own."""
_WHITE_IS_ZERO = 0
_COLOURS = {0: "gray", 1: "gray", 2: "RGB", 3: "palette", 5: "CMYK", 6: "YCbCr", 8: "L*a*b*"}
_NUMBERS = {1: "unsigned integers", 2: "signed integers", 3: "floats"}
_CODECS = {34712: "JPEG 2000", 34887: "LERC", 50002: "JPEG XL"}
_NATIVE = {"I;16BS": "I;16NS", "I;16S": "I;16NS", "I;32BS": "I;32NS", "I;32S": "I;32NS", "F;32BF": "F;32NF"}
"""Pillow's names of byte orders. libtiff returns the machine's own order, which Pillow does not expect for these."""
RARE_CODECS = ("lzma", "zstd", "webp")
"""Pillow's names of compressions that libtiff is often built without."""
_REMEDY = "save it as 8-bit gray or RGB, in TIFF, PNG or JPEG"


def open_tiff(stream: IO[bytes], filename: str | bytes = "") -> TiffImageFile:
    """Open a TIFF file whose pixels will be right; they are not decoded yet.

    The parameters are those of Pillow's decoders. Raises DataError, without the place, if the pixels cannot be read,
    and any exception if the file is damaged.
    """
    from PIL.TiffImagePlugin import TiffImageFile

    stream.seek(0)
    head = stream.read(len(_CANON))
    if head.startswith(_BIG_ENDIAN_BIGTIFF):
        raise DataError("the file is a big-endian BigTIFF, which cannot be read", remedy=_REMEDY)
    tags = _first_directory(stream)
    if (
        head == _CANON
        or _DNG_VERSION in tags
        or (_SUB_DIRECTORIES in tags and int(tags.get(_SUBFILE_TYPE, 0)) & _THUMBNAIL)
    ):
        raise DataError(  # its first page is a small preview
            "the file is a camera raw file, not a TIFF image", remedy="develop it and save it as JPEG or TIFF"
        )
    if int(tags.get(_SAMPLES, 1)) > _MOST_SAMPLES:
        raise _unsupported(tags)
    stream.seek(0)
    try:
        image = TiffImageFile(stream, filename)
    except SyntaxError as error:
        if not tags.keys() >= {_WIDTH, _HEIGHT, _BITS}:  # the directory itself is damaged
            raise
        raise _unsupported(tags) from error
    planes = tags.get(_PLANAR, 1) == 2 and int(tags.get(_SAMPLES, 1)) > 1
    gray_only = planes and tags.get(_PHOTOMETRIC, 0) in (0, 1) and int(tags.get(_SAMPLES, 1)) > 2
    if gray_only or (planes and image.mode in ("LA", "La", "PA")):
        raise _unsupported(tags)  # Pillow returns the first plane, or mixes them
    if tags.get(_PLANAR, 1) == 2 and tags.get(_COMPRESSION, 1) == 1 and _bits(tags) > 8:
        # Pillow takes the low and the high bytes of such planes for pixels; libtiff does not. Pillow uses libtiff if
        # this tag says compressed, and libtiff itself reads the tag in the file.
        image.tag_v2[_COMPRESSION] = _DEFLATE
        image._setup()
    _use_native_byte_order(image)
    return image


def gray_of(image: TiffImageFile) -> npt.NDArray[np.uint8] | None:
    """Return the pixels, uint8 [H, W], of a decoded gray image of other than unsigned 8 bits; None for other images.

    See `scale_gray`; the tag GDAL_NODATA holds its `nodata`.
    """
    tags = image.tag_v2
    bits, numbers = _bits(tags), _numbers(tags)
    signed_bytes = image.mode == "L" and numbers == 2
    if not signed_bytes and not image.mode.startswith("I") and image.mode != "F":
        return None
    pixels: npt.NDArray[Any] = np.asarray(image)
    if signed_bytes:
        pixels = pixels.view(np.int8)
    elif image.mode == "I" and (bits, numbers) == (32, 1):
        pixels = pixels.view(np.uint32)
    return scale_gray(
        pixels,
        white=4095 if bits == 12 else None,
        nodata=_nodata(tags),
        white_is_zero=tags.get(_PHOTOMETRIC, _WHITE_IS_ZERO) == _WHITE_IS_ZERO,
    )


def has_more_pages(stream: IO[bytes]) -> bool:
    """Whether a page follows the first one. Reduced copies and masks, as in cloud-optimized GeoTIFFs, do not count."""
    directory, seen = _first_directory(stream), set[int]()
    while directory.next and directory.next not in seen:
        seen.add(directory.next)
        directory = _directory(stream, directory.next)
        if not int(directory.get(_SUBFILE_TYPE, 0)) & (_THUMBNAIL | _MASK):
            return True
    return False


def _first_directory(stream: IO[bytes]) -> ImageFileDirectory_v2:
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    stream.seek(0)
    header = _header(stream)
    return _directory(stream, ImageFileDirectory_v2(header).next)


def _directory(stream: IO[bytes], offset: int) -> ImageFileDirectory_v2:
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    stream.seek(0)
    directory = ImageFileDirectory_v2(_header(stream))
    stream.seek(offset)
    directory.load(stream)
    return directory


def _header(stream: IO[bytes]) -> bytes:
    header = stream.read(8)
    return header + stream.read(8) if header[2] == _BIGTIFF else header


def _use_native_byte_order(image: TiffImageFile) -> None:
    if image.tile and image.tile[0][0] == "libtiff":
        codec, extents, offset, arguments = image.tile[0]
        assert isinstance(arguments, tuple)
        native = (_NATIVE.get(arguments[0], arguments[0]), *arguments[1:])
        image.tile = [ImageFile._Tile(codec, extents, offset, native)]


def _bits(tags: ImageFileDirectory_v2) -> int:
    value: Any = tags.get(_BITS, 1)
    return int(max(value)) if isinstance(value, tuple) else int(value)


def _numbers(tags: ImageFileDirectory_v2) -> int:
    """The number format of the first band, a key of _NUMBERS."""
    value: Any = tags.get(_SAMPLE_FORMAT, 1)
    return int(value[0] if isinstance(value, tuple) else value)


def _nodata(tags: ImageFileDirectory_v2) -> float | None:
    try:
        return float(str(tags.get(_NODATA, "")).strip("\0 "))
    except ValueError:
        return None


def _unsupported(tags: ImageFileDirectory_v2) -> DataError:
    """Describe the pixels of a TIFF file, which are not supported."""
    from PIL.TiffImagePlugin import COMPRESSION_INFO

    samples, photometric = int(tags.get(_SAMPLES, 1)), tags.get(_PHOTOMETRIC, 0)
    numbers = _numbers(tags)
    what = f"this TIFF has {samples} {'band' if samples == 1 else 'bands'} of {_bits(tags)}-bit "
    what += f"{_NUMBERS.get(numbers, 'numbers')} ({_COLOURS.get(photometric, f'colour space {photometric}')}"
    what += ", each band on its own plane" if tags.get(_PLANAR, 1) == 2 else ""
    compression = tags.get(_COMPRESSION, 1)
    if compression not in COMPRESSION_INFO:
        what += f", compressed as {_CODECS.get(compression, f'method {compression}')}"
    return DataError(f"{what}), which cannot be read", remedy=_REMEDY)
