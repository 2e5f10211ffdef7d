"""Ctrl-C ends a live clip, and interrupts anything else."""

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
