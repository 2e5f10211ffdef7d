"""A small TIFF writer (TIFF 6.0) for layouts that Pillow cannot write."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

WHITE_IS_ZERO, GRAY, RGB, CMYK = 0, 1, 2, 5
_SHORT, _LONG = 3, 4


@dataclass(frozen=True)
class Page:
    """planes: [bands, H, W]. planar: each band on its own. rows: of a strip. tile: height and width. tags: number → a
    SHORT, several, or text, in addition.
    """

    planes: np.ndarray
    photometric: int = GRAY
    planar: bool = False
    rows: int | None = None
    tile: tuple[int, int] | None = None
    deflate: bool = False
    tags: dict[int, int | tuple[int, ...] | str] = field(default_factory=dict)


def tiff(*pages: Page, big_endian: bool = False) -> bytes:
    """Return a file of these pages."""
    order = ">" if big_endian else "<"
    content = (b"MM" if big_endian else b"II") + struct.pack(f"{order}HL", 42, 8)
    for number, page in enumerate(pages, start=1):
        content += _page(page, len(content), order, is_last=number == len(pages))
    return content


def _page(page: Page, start: int, order: str, *, is_last: bool) -> bytes:
    """Return the directory of a page, the values that do not fit into it, and the pixels."""
    parts = [zlib.compress(part) if page.deflate else part for part in _parts(page, order)]
    tags = {
        tag: _packed(value, order, kind=_LONG if tag in _LONGS else _SHORT) for tag, value in _tags(page, parts).items()
    }
    values_at = start + 2 + 12 * len(tags) + 4
    pixels_at = values_at + sum(len(data) for _, _, data in tags.values() if len(data) > 4)
    offsets = np.cumsum([pixels_at, *map(len, parts)])[:-1].tolist()
    offsets_tag = 324 if page.tile else 273
    tags[offsets_tag] = _packed(tuple(offsets), order, kind=_LONG)
    directory, values = struct.pack(f"{order}H", len(tags)), b""
    for tag, (kind, count, data) in sorted(tags.items()):
        directory += struct.pack(f"{order}HHL", tag, kind, count)
        if len(data) > 4:
            directory += struct.pack(f"{order}L", values_at + len(values))
            values += data
        else:
            directory += data.ljust(4, b"\0")
    end = pixels_at + sum(map(len, parts))
    return directory + struct.pack(f"{order}L", 0 if is_last else end) + values + b"".join(parts)


_LONGS = {256, 257, 273, 278, 279, 322, 323, 324, 325}


def _tags(page: Page, parts: list[bytes]) -> dict[int, int | tuple[int, ...] | str]:
    bands, height, width = page.planes.shape
    sizes, empty = tuple(map(len, parts)), (0,) * len(parts)
    layout = (
        {322: page.tile[1], 323: page.tile[0], 324: empty, 325: sizes}
        if page.tile
        else {273: empty, 278: page.rows or height, 279: sizes}
    )
    return {
        256: width,
        257: height,
        258: (8 * page.planes.itemsize,) * bands,
        259: 8 if page.deflate else 1,
        262: page.photometric,
        277: bands,
        284: 2 if page.planar else 1,
        339: ({"u": 1, "i": 2, "f": 3}[page.planes.dtype.kind],) * bands,
        **layout,
        **page.tags,
    }


def _packed(value: int | tuple[int, ...] | str, order: str, *, kind: int) -> tuple[int, int, bytes]:
    """Return type, count and bytes."""
    if isinstance(value, str):
        text = value.encode() + b"\0"
        return 2, len(text), text
    values = value if isinstance(value, tuple) else (value,)
    return kind, len(values), struct.pack(f"{order}{len(values)}{'L' if kind == _LONG else 'H'}", *values)


def _parts(page: Page, order: str) -> Iterator[bytes]:
    """Yield strips or tiles."""
    planes = page.planes.astype(page.planes.dtype.newbyteorder(order))
    _, height, width = planes.shape
    rows, columns = page.tile or (page.rows or height, width)
    for bands in planes[:, None] if page.planar else planes[None]:
        for top in range(0, height, rows):
            for left in range(0, width, columns):
                part = bands[:, top : top + rows, left : left + columns]
                if page.tile:
                    part = np.pad(part, [(0, 0), (0, rows - part.shape[1]), (0, columns - part.shape[2])])
                yield np.moveaxis(part, 0, -1).tobytes()
