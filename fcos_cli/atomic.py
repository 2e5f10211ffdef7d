"""Files that appear under their name only when they are whole."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from fcos_cli.errors import FcosError, UsageError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def atomic_write(path: Path, *, binary: bool = False) -> Iterator[IO[Any]]:
    """An open file that takes the place of `path` when the block ends well, and vanishes when it does not.

    Folders on the way are made. Text is UTF-8 with plain newlines. A target that is no regular file (/dev/stdout, a
    pipe) is written directly. Raises UsageError where `path` cannot be written.
    """
    if path.is_dir():
        raise UsageError("this is a folder, not a file to write", where=path, remedy="name a file")
    direct = path.exists() and not path.is_file()
    temporary = path if direct else path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The names of files may hold bytes that are not UTF-8; surrogateescape gives them back as they were.
        how: dict[str, Any] = {} if binary else {"encoding": "utf-8", "errors": "surrogateescape", "newline": "\n"}
        stream = temporary.open("wb" if binary else "w", **how)
    except OSError as error:
        raise UsageError(
            f"cannot write here ({error.strerror})", where=path, remedy="name a place you may write to"
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
        if error.errno not in _FULL:
            raise  # the block's own
        raise FcosError(f"writing failed ({error.strerror})", where=path, remedy="free some space") from error
    finally:
        if not direct:
            temporary.unlink(missing_ok=True)
