"""Prefetching in a background thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import GeneratorType
from typing import TypeVar

T = TypeVar("T")


def prefetch(items: Iterator[T], *, count: int) -> Iterator[T]:
    """Yield `items` in order, computed in a thread up to `count` items ahead. An item of None ends the iteration.

    An exception raised by an item is raised in its place. If the caller stops early, the thread ends after its current
    item and a generator is closed.
    """
    try:
        with ThreadPoolExecutor(1, thread_name_prefix="fcos-prefetch") as pool:
            pending = deque(pool.submit(next, items, None) for _ in range(count))
            try:
                while (item := pending.popleft().result()) is not None:
                    pending.append(pool.submit(next, items, None))
                    yield item
            finally:
                for future in pending:
                    future.cancel()
    finally:
        # it still runs if a signal came while this waited for the thread; then it ends with the process
        if isinstance(items, GeneratorType) and not items.gi_running:
            items.close()
