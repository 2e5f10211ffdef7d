"""Handle Ctrl-C and SIGTERM as a request to stop: the loop finishes its step, saves, and exits with the right code.

Several processes stop together, and wait while the main one validates.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from fcos_cli.distributed.group import largest
from fcos_cli.errors import FcosError, Interrupted, Stopped


class StoppedWaiting(BaseException):
    """A signal came while the run waited for something that may never come.

    Like KeyboardInterrupt it is not an Exception: the code that decodes images takes those for a damaged image.
    """


class StopRequest:
    """Set by the first signal. A second Ctrl-C raises KeyboardInterrupt.

    signal: what this process received. agreed: what any process had received when all of them last called `share_stop`;
    only then is the request true. waiting: whether a signal also raises StoppedWaiting at once. It is set only where
    nothing is half done.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.agreed: int | None = None
        self.waiting = False

    def __bool__(self) -> bool:
        return self.agreed is not None

    def receive(self, number: int, _frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number
        if self.waiting:
            self.waiting = False
            raise StoppedWaiting

    def error(self, *, remedy: str) -> FcosError:
        """Return the exception that ends the run: exit code 143 after SIGTERM, 130 after Ctrl-C."""
        if (self.agreed or self.signal) == signal.SIGTERM:
            return Stopped("stopped by SIGTERM; the state is saved", remedy=remedy)
        return Interrupted("interrupted; the state is saved", remedy=remedy)


@contextmanager
def catching_signals() -> Iterator[StopRequest]:
    """Turn SIGINT and SIGTERM into a StopRequest inside the block. Has no effect outside the main thread."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    previous = {number: signal.signal(number, request.receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def share_stop(stop: StopRequest, *, done: bool = False) -> bool:
    """Turn a signal that one process has received into a request to all of them. Return whether any process is `done`.

    All processes must call it together.
    """
    number, finished = largest(float(stop.signal or 0), float(done))
    stop.agreed = int(number) or None
    return bool(finished)


def wait_for_main(stop: StopRequest) -> None:
    """Answer the calls of `share_stop` in the main process until it is done, or until a process was told to stop."""
    while not share_stop(stop) and not stop:
        pass
