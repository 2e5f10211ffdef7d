"""Ctrl-C ends a live clip, SIGTERM the run after it, and both interrupt anything else."""

import signal

import pytest

from fcos_cli.predict.sources.stop import until_interrupted


def test_the_first_interrupt_ends_a_live_clip_and_the_second_raises() -> None:
    before = signal.getsignal(signal.SIGINT)
    with until_interrupted() as stop, stop.ends_this():
        assert not stop.is_set()
        signal.raise_signal(signal.SIGINT)
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_what_comes_after_a_live_clip_is_read_and_can_be_interrupted() -> None:
    with until_interrupted() as stop:
        with stop.ends_this():
            signal.raise_signal(signal.SIGINT)
        assert not stop.is_set()
        with stop.ends_this():
            signal.raise_signal(signal.SIGINT)
            assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert stop.is_set()  # for the threads that still read


def test_sigterm_ends_a_live_clip_for_good_and_is_raised_again_at_the_end() -> None:
    received: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _frame: received.append(number))
    try:
        with until_interrupted() as stop:
            with stop.ends_this():
                signal.raise_signal(signal.SIGTERM)
                assert stop.is_set()
            assert stop.is_set()
            assert stop.for_good
            assert received == []
        assert received == [signal.SIGTERM]
        with until_interrupted() as stop:  # nothing live
            signal.raise_signal(signal.SIGTERM)
        assert received == [signal.SIGTERM] * 2
    finally:
        signal.signal(signal.SIGTERM, before)
