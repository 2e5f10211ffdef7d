"""JPEG 2000 files that Pillow reads wrongly are refused. Source: ISO/IEC 15444-1, A.5.1."""

from __future__ import annotations

import struct
from typing import IO

from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile

from fcos_cli.errors import DataError

_CODESTREAM = b"\xff\x4f\xff\x51"
"""SOC and SIZ, the first two markers of a codestream."""
_HEAD = 1 << 20
"""Bytes in which the codestream begins; only metadata lies before it."""


def open_jpeg2000(stream: IO[bytes], filename: str | bytes = "") -> Jpeg2KImageFile:
    """Open a JPEG 2000 file whose pixels will be right; they are not decoded yet.

    The parameters are those of Pillow's decoders. Raises DataError, without the place, for colours of more than 8 bits:
    Pillow rounds white up to the next bit, which makes it black. Raises any exception if the file is damaged.
    """
    stream.seek(0)
    head = stream.read(_HEAD)
    siz = head.find(_CODESTREAM) + 2
    if siz >= 2:
        (bands,) = struct.unpack_from(">H", head, siz + 38)
        bits = max((sign_and_bits & 0x7F) + 1 for sign_and_bits in head[siz + 40 : siz + 40 + 3 * bands : 3])
        if bands > 1 and bits > 8:
            raise DataError(
                f"this JPEG 2000 has {bands} bands of {bits} bits, which cannot be read",
                remedy="save it with 8 bits per band, or as PNG",
            )
    stream.seek(0)
    return Jpeg2KImageFile(stream, filename)
