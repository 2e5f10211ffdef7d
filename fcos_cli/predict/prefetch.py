"""Work done ahead of its use, in a thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def prefetch(items: Iterator[T], *, count: int) -> Iterator[T]:
    """`items` in their order, made in one thread, at most `count` before they are asked for. None ends them.

    What making an item raises is raised in its place. When the caller stops early, the thread ends after its item; a
    generator is closed.
    """
    try:
        with ThreadPoolExecutor(1, thread_name_prefix="fcos-ahead") as pool:
            pending = deque(pool.submit(next, items, None) for _ in range(count))
            try:
                while (item := pending.popleft().result()) is not None:
                    pending.append(pool.submit(next, items, None))
                    yield item
            finally:
                for future in pending:
                    future.cancel()
    finally:
        if isinstance(items, Generator):
            items.close()
