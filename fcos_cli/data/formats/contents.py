"""What is in an annotation file, or one error that names the file."""

from __future__ import annotations

from pathlib import Path

from fcos_cli.errors import DataError


def read_bytes(file: Path) -> bytes:
    """Raises DataError if `file` is missing, not a regular file (reading a pipe may never end), or cannot be read."""
    try:
        if file.is_file():
            return file.read_bytes()
        reason = "it is a folder" if file.is_dir() else "it is not a regular file" if file.exists() else "no such file"
    except OSError as error:
        reason = str(error.strerror)
    raise DataError(
        f"the annotation file cannot be read ({reason})", where=file, remedy="restore the file, or remove its entry"
    )


def read_text(file: Path) -> str:
    """UTF-8 with or without a byte order mark; bytes that are not UTF-8 become U+FFFD. Raises as `read_bytes`."""
    return read_bytes(file).decode("utf-8-sig", errors="replace")


def decode(content: bytes, file: Path, *, problem: str, encoding: str = "utf-8-sig") -> str:
    """The text of a file in which no character may be lost. Raises DataError, saying `problem`, if it is not UTF-8."""
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(problem, where=f"{file}:{line}", remedy="save the file as UTF-8") from error


def exists(path: Path) -> bool:
    """Whether there is such a file or folder. False for a name that no file system allows, as in a damaged list."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
