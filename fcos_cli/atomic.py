"""Atomic writes (a file appears under its name only once it is complete), checks that a path is writable, and locks."""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from fcos_cli.errors import FcosError, UsageError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

LONGEST_NAME, LONGEST_PATH = 255, 4095
"""Bytes of a file name and of a whole path on Linux."""

ELSEWHERE = "choose a path you can write to"

_ADDRESS = re.compile("([a-zA-Z][a-zA-Z0-9+.-]+):/")
"""The start of an address that was made a path and so lost a slash: `s3:/bucket`."""


@contextmanager
def atomic_write(path: Path, *, binary: bool = False) -> Iterator[IO[Any]]:
    """Open a file that replaces `path` if the block succeeds and is removed if it fails.

    Missing parent folders are created. Text is UTF-8 with plain newlines. A symbolic link is replaced, not followed: in
    a folder from a stranger it may lead anywhere. A target that is not a regular file (/dev/stdout, a pipe) is written
    directly. Raises UsageError if `path` cannot be written, and FcosError if the disk is full.
    """
    check_writable(path)
    direct = path.exists() and not path.is_file()
    temporary = path if direct else path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:  # around the opening too: a signal may arrive just after it
        with _open(temporary, path, binary=binary) as stream:
            yield stream
            stream.flush()
            if not direct:
                os.fsync(stream.fileno())
        if not direct:
            temporary.replace(path)
    except OSError as error:
        if error.errno not in FULL:
            raise  # raised by the caller's block
        raise FcosError(f"writing failed ({error.strerror})", where=path, remedy="free some space") from error
    finally:
        if not direct:
            temporary.unlink(missing_ok=True)


def _open(temporary: Path, path: Path, *, binary: bool) -> IO[Any]:
    # file names may contain bytes that are not UTF-8; surrogateescape writes them unchanged
    options: dict[str, Any] = {} if binary else {"encoding": "utf-8", "errors": "surrogateescape", "newline": "\n"}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return temporary.open("wb" if binary else "w", **options)
    except OSError as error:
        raise UsageError(f"cannot write here ({error.strerror})", where=path, remedy=ELSEWHERE) from error


def check_writable(path: Path, *, folder: bool = False) -> None:
    """Raise UsageError if the file `path` could not be written; call it before work that takes time.

    folder: whether `path` is a folder that files are written to. Missing folders count as writable if they could be
    created. Nothing is created.
    """
    check_length(path)
    if found := _ADDRESS.match(str(path)):  # the rest may hold a password
        what = "outputs must be local paths, and this is an address"
        remedy = f"{ELSEWHERE}; fcos predict --engine ray can write to s3:// and gs:// with --out"
        raise UsageError(what, where=f"{found[1]}://…", remedy=remedy)
    # Path.is_dir and Path.exists would raise in a folder that is not ours
    if not folder and os.path.isdir(path):  # noqa: PTH112
        raise UsageError("this is a folder, not a file", where=path, remedy="give a file name")
    if not folder and os.path.exists(path) and not path.is_file():  # noqa: PTH110 - device or pipe: written directly
        place, needed = path, os.W_OK
    else:
        whole = Path(os.path.abspath(path))  # noqa: PTH100 - without "..", whose folder may not exist yet
        folders = (whole, *whole.parents) if folder else whole.parents
        place, needed = next(parent for parent in folders if os.path.lexists(parent)), os.W_OK | os.X_OK
        if not place.is_dir():
            raise UsageError(f"cannot write here: {place} is not a folder", where=path, remedy=ELSEWHERE)
    if not os.access(place, needed):
        raise UsageError(f"cannot write here: {place} is read-only, or not yours", where=path, remedy=ELSEWHERE)


def check_length(path: Path, *, label: str = "") -> None:
    """Raise UsageError if no file can have this path. label: the argument it comes from."""
    name, whole = max((len(os.fsencode(part)) for part in path.parts), default=0), len(os.fsencode(path))
    if name > LONGEST_NAME or whole > LONGEST_PATH:
        what = f"this name has {name} bytes, and a file name can have at most {LONGEST_NAME}"
        if name <= LONGEST_NAME:
            what = f"this path has {whole} bytes, and a path can have at most {LONGEST_PATH}"
        where = f"{label} {str(path)[:40]}…".lstrip()
        raise UsageError(what, where=where, remedy="check it, or use a shorter one")


def lock(file: int, error: FcosError) -> None:
    """Lock an open file until it is closed, or its process ends. file: descriptor. Raises `error` if it is locked."""
    with suppress(ImportError):  # not on Windows
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise error from None
        except OSError:
            pass  # a file system without locks
