"""Prefetching in a background thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from types import GeneratorType
from typing import TypeVar

from fcos_cli.threads import thread_pool

T = TypeVar("T")


def prefetch(items: Iterator[T], *, count: int) -> Iterator[T]:
    """Yield `items` in order, computed in a thread up to `count` items ahead. An item of None ends the iteration.

    An exception raised by an item is raised in its place. If the caller stops early, the thread ends after its current
    item and a generator is closed.
    """
    try:
        with thread_pool(1, name="fcos-prefetch") as pool:
            pending = deque(pool.submit(next, items, None) for _ in range(count))
            while (item := pending.popleft().result()) is not None:
                pending.append(pool.submit(next, items, None))
                yield item
    finally:
        # after a signal it may still run; then it ends with the process
        if isinstance(items, GeneratorType) and not items.gi_running:
            items.close()
