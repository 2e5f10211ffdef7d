"""The mark in files that `fcos` writes, by which a later run knows that it may replace them."""

from __future__ import annotations

from pathlib import Path

from PIL.PngImagePlugin import PngInfo

from fcos_cli.errors import UsageError

MARK = "written by fcos predict"
"""In the comment of a JPEG or MP4 file, in a text chunk of a PNG file, and in a meta element of a page."""

REPORT_MARK = "written by fcos eval"
"""In a meta element of a report."""

PLOT_MARK = "written by fcos bench"
"""In the metadata of a plot."""

ENDS = 64 * 1024
"""Bytes at the start and at the end of a file in which the mark is looked for."""


def was_written_by_us(path: Path, *, mark: str = MARK) -> bool:
    """Whether a file carries the mark. A file that cannot be read does not, and neither does a pipe."""
    try:
        if not path.is_file():  # opening a pipe would wait until somebody writes
            return False
        with path.open("rb") as stream:
            head = stream.read(ENDS)
            stream.seek(max(0, path.stat().st_size - ENDS))
            return mark.encode() in head or mark.encode() in stream.read(ENDS)
    except OSError:
        return False


def check_marked(path: Path, *, mark: str, kind: str) -> None:
    """Raise UsageError if `path` is a file with content and without the mark. kind: what it would be with it."""
    if path.is_file() and path.stat().st_size and not was_written_by_us(path, mark=mark):
        raise UsageError(
            f"this file exists and is not a {kind}, so it is not replaced",
            where=path,
            remedy="choose another name, or move the file away",
        )


def png_mark() -> PngInfo:
    """A text chunk with MARK."""
    info = PngInfo()
    info.add_text("Comment", MARK)
    return info
