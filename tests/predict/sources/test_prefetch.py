from __future__ import annotations

import threading
import time

import pytest

from fcos_cli.predict.sources.prefetch import prefetch


def test_items_keep_their_order():
    assert list(prefetch(iter(range(1, 50)), count=3)) == list(range(1, 50))
    assert list(prefetch(iter(()), count=3)) == []


def test_at_most_count_items_are_computed_ahead():
    computed = []
    items = prefetch((computed.append(n) or n for n in range(1, 100)), count=3)
    next(items)
    time.sleep(0.05)
    assert computed == [1, 2, 3, 4]
    items.close()


def test_exception_is_raised_in_its_place():
    def items():
        yield 1
        raise ValueError("broken")

    results = prefetch(items(), count=2)
    assert next(results) == 1
    with pytest.raises(ValueError, match="broken"):
        next(results)


def test_stopping_early_ends_the_thread_and_closes_the_generator():
    closed = []

    def numbers():
        try:
            yield from range(1, 100)
        finally:
            closed.append(True)

    before = threading.active_count()
    items = prefetch(numbers(), count=2)
    next(items)
    items.close()
    assert threading.active_count() == before
    assert closed == [True]
