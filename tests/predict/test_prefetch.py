from __future__ import annotations

import threading
import time

import pytest

from fcos_cli.predict.prefetch import prefetch


def test_items_come_in_order_and_end():
    assert list(prefetch(iter(range(1, 50)), count=3)) == list(range(1, 50))
    assert list(prefetch(iter(()), count=3)) == []


def test_no_more_are_made_than_the_count_allows():
    made = []
    items = prefetch((made.append(n) or n for n in range(1, 100)), count=3)
    next(items)
    time.sleep(0.05)
    assert made == [1, 2, 3, 4]
    items.close()


def test_an_error_comes_in_its_place():
    def items():
        yield 1
        raise ValueError("broken")

    answers = prefetch(items(), count=2)
    assert next(answers) == 1
    with pytest.raises(ValueError, match="broken"):
        next(answers)


def test_stopping_early_ends_the_thread_and_closes_what_made_the_items():
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
