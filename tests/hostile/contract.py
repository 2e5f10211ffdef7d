"""What every hostile input is held to: a right result or one clear error, in bounded time and memory, and nothing else.

The error is an `FcosError` of the expected kind that names where and what. Nothing is written, run or fetched.
"""

from __future__ import annotations

import faulthandler
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from fcos_cli.errors import FcosError

SECONDS, MEGABYTES = 10.0, 500
READ = "read"


class Case(NamedTuple):
    """One hostile input.

    make: writes it into an empty folder and returns what is to be opened. expect: READ, or a regular expression for the
    text of the error; a table may say more about it.
    """

    name: str
    make: Callable[[Path], Any]
    expect: str


def names(cases: list[Case]) -> list[str]:
    return [case.name for case in cases]


class TooSlow(BaseException):
    """The time is over. It is not an Exception, so that no `except Exception` hides it."""


@contextmanager
def bounded(*, seconds: float = SECONDS, megabytes: float = MEGABYTES) -> Iterator[None]:
    """Raise TooSlow after this many seconds, and fail if peak memory rose by more than this many megabytes.

    Code in C that never returns ends the whole process, with a traceback.
    """

    def late(*_: object) -> None:
        raise TooSlow(f"not done after {seconds:g} s")

    start = _reset_peak()
    previous = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    faulthandler.dump_traceback_later(seconds * 2 + 10, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    grown = _memory("VmHWM") - start
    assert grown <= megabytes, f"memory rose by {grown:.0f} MB"


def _reset_peak() -> float:
    """Set the process's peak of resident memory to its present value, and return that in MB."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _memory("VmRSS")


def _memory(key: str) -> float:
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    return int(re.findall(rf"{key}:\s+(\d+)", status)[0]) / 1024


def outcome(action: Callable[[], Any], *, kind: type[FcosError], expect: str, folder: Path, **limits: float) -> Any:
    """Run `action` under the contract. Return its result, or the FcosError it raised.

    kind: what the error must be, which is also its exit code. expect: as in `Case`. folder: must stay as it is.
    """
    before = contents(folder)
    with bounded(**limits):
        try:
            found = action()
        except FcosError as error:
            found = error
    assert contents(folder) == before, "something was written"
    if expect == READ:
        assert not isinstance(found, FcosError), f"refused: {found}"
    else:
        check_error(found, kind=kind, words=expect)
    return found


def check_error(error: object, *, kind: type[FcosError], words: str) -> None:
    """One error of this kind, in a few short lines, which names a place."""
    assert isinstance(error, FcosError), f"accepted: {str(error)[:300]}"
    assert isinstance(error, kind), repr(error)
    assert error.exit_code == kind.exit_code
    text = str(error)
    assert re.search(words, text), text
    assert error.where, f"no place: {text}"
    assert len(text) < 3000, "the message repeats the input"
    assert "Traceback" not in text


def contents(folder: Path) -> dict[str, object]:
    """What is in a folder: size and time of change of each entry."""
    entries = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        entries[str(path)] = (status.st_size, status.st_mtime_ns)
    return entries
