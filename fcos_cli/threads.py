"""Pools of threads that a signal can end at any moment."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager


@contextmanager
def thread_pool(threads: int, *, name: str) -> Iterator[ThreadPoolExecutor]:
    """Yield a pool of `threads` threads called `name`_0, `name`_1, …. At the end of the block, also after an error,
    tasks that have not begun are cancelled, and the others are waited for.

    After KeyboardInterrupt or SystemExit, which signal handlers raise, nothing is waited for: the exception may have
    come while this thread took the lock of a future (`threading.Condition.__enter__`). Such a lock is never released,
    and the thread that computes the future would wait for it forever.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
    wait = True
    try:
        yield pool
    except (KeyboardInterrupt, SystemExit):
        wait = False
        raise
    finally:
        pool.shutdown(wait=wait, cancel_futures=True)
