"""Ctrl-C and SIGTERM as a request: the loop finishes its step, saves, and leaves with the right exit code."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from fcos_cli.errors import FcosError, Interrupted, Stopped


class StopRequest:
    """Set by the first signal; a second Ctrl-C ends the process at once."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    def receive(self, number: int, _frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number

    def error(self, *, remedy: str) -> FcosError:
        """The exception that ends the run: exit code 143 after SIGTERM, 130 after Ctrl-C."""
        if self.signal == signal.SIGTERM:
            return Stopped("stopped by SIGTERM; the state is saved", remedy=remedy)
        return Interrupted("interrupted; the state is saved", remedy=remedy)


@contextmanager
def catching_signals() -> Iterator[StopRequest]:
    """Turn SIGINT and SIGTERM into a StopRequest for the time of the block (in the main thread; elsewhere inert)."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    former = {number: signal.signal(number, request.receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
