"""Ctrl-C: it ends what has no end, a camera or a live stream, with complete outputs. Anything else it interrupts."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Stop:
    """Whether the user wants to stop, for the threads that read. It has no lock, since a signal handler sets it."""

    def __init__(self) -> None:
        self._wanted = self._live = False

    def is_set(self) -> bool:
        return self._wanted

    def set(self) -> bool:
        """Let everything that reads end. Return whether something live does, for the first time."""
        first = self._live and not self._wanted
        self._wanted = True
        return first

    @contextmanager
    def ends_this(self) -> Iterator[None]:
        """While the block runs, something live is read, which ends once this is set. What comes after it is read."""
        self._live = True
        try:
            yield
        finally:
            self._live = self._wanted = False


@contextmanager
def until_interrupted() -> Iterator[Stop]:
    """Yield a `Stop` that Ctrl-C sets. While nothing live is read, and at the second one, it interrupts as usual."""
    stop, before = Stop(), signal.getsignal(signal.SIGINT)

    def interrupted(_number: int, _frame: object) -> None:
        if not stop.set():
            signal.signal(signal.SIGINT, before)
            signal.raise_signal(signal.SIGINT)

    signal.signal(signal.SIGINT, interrupted)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
