"""Ctrl-C and SIGTERM: they end a camera or a live stream, which has no end of its own, with complete outputs, and
interrupt anything else.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Stop:
    """Whether the user wants to stop, for the threads that read. It has no lock, since a signal handler sets it.

    for_good: whether what comes after something live is not read either.
    """

    def __init__(self) -> None:
        self._wanted = self._live = self.for_good = False

    def is_set(self) -> bool:
        return self._wanted

    def set(self, *, for_good: bool = False) -> bool:
        """Make everything that reads end. Return whether something live is read and is stopped for the first time."""
        first = self._live and not self._wanted
        self.for_good |= first and for_good
        self._wanted = True
        return first

    @contextmanager
    def ends_this(self) -> Iterator[None]:
        """While the block runs, something live is read, which ends once this is set. What comes after it is read,
        unless it was set for good.
        """
        self._live = True
        try:
            yield
        finally:
            self._live, self._wanted = False, self.for_good


@contextmanager
def until_interrupted() -> Iterator[Stop]:
    """Yield a `Stop` that Ctrl-C sets, and SIGTERM for good: SIGTERM is raised again when the block has succeeded.
    While nothing live is read, and the second time, both interrupt as usual.
    """
    stop, before = Stop(), {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def interrupted(number: int, _frame: object) -> None:
        if not stop.set(for_good=number == signal.SIGTERM):
            signal.signal(number, before[signal.Signals(number)])
            signal.raise_signal(number)

    for number in before:
        signal.signal(number, interrupted)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if stop.for_good:
        signal.raise_signal(signal.SIGTERM)
