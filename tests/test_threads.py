"""Pools whose threads hang must not keep an interrupted command from ending."""

import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress

import pytest

from fcos_cli.threads import thread_pool


def test_running_tasks_are_waited_for_and_the_others_cancelled() -> None:
    began, done = threading.Event(), []

    def slow() -> None:
        began.set()
        time.sleep(0.05)
        done.append(threading.current_thread().name)

    with thread_pool(1, name="slow") as pool:
        tasks = [pool.submit(slow) for _ in range(3)]
        assert began.wait(10)
    assert done == ["slow_0"]
    assert [task.cancelled() for task in tasks] == [False, True, True]


def run_and_end(task: Callable[[], object], end: Callable[[], object]) -> tuple[Future[object], Future[object]]:
    """Call `end` in the block of a pool of one thread that runs `task` and has another one waiting."""
    began = threading.Event()
    running: Future[object]
    waiting: Future[object]
    with suppress(ValueError, KeyboardInterrupt, SystemExit), thread_pool(1, name="one") as pool:
        running, waiting = pool.submit(lambda: (began.set(), task())), pool.submit(task)
        assert began.wait(10)
        end()
    return running, waiting


def break_down() -> None:
    raise ValueError("broken")


def interrupt() -> None:
    raise KeyboardInterrupt


def test_an_error_waits_too() -> None:
    running, waiting = run_and_end(lambda: time.sleep(0.05), break_down)
    assert running.done()
    assert not running.cancelled()
    assert waiting.cancelled()


@pytest.mark.parametrize("end", [interrupt, lambda: sys.exit(143)], ids=["int", "term"])
def test_a_signal_leaves_threads_that_hang_behind(end: Callable[[], object]) -> None:
    release = threading.Event()
    try:
        running, waiting = run_and_end(lambda: release.wait(60), end)
        assert not running.done()
        assert waiting.cancelled()
    finally:
        release.set()
