"""Atomic writes: a file appears under its name only once it is complete."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from fcos_cli.errors import FcosError, UsageError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def atomic_write(path: Path, *, binary: bool = False) -> Iterator[IO[Any]]:
    """Open a file that replaces `path` if the block succeeds and is removed if it fails.

    Missing parent folders are created. Text is UTF-8 with plain newlines. A target that is not a regular file
    (/dev/stdout, a pipe) is written directly. Raises UsageError if `path` cannot be written, and FcosError if the disk
    is full.
    """
    if path.is_dir():
        raise UsageError("this is a folder, not a file", where=path, remedy="give a file name")
    direct = path.exists() and not path.is_file()
    temporary = path if direct else path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # file names may contain bytes that are not UTF-8; surrogateescape writes them unchanged
        options: dict[str, Any] = {} if binary else {"encoding": "utf-8", "errors": "surrogateescape", "newline": "\n"}
        stream = temporary.open("wb" if binary else "w", **options)
    except OSError as error:
        raise UsageError(
            f"cannot write here ({error.strerror})", where=path, remedy="choose a path you can write to"
        ) from error
    try:
        with stream:
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
