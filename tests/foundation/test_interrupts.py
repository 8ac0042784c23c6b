"""Signals of a command: raised, or remembered while something is finished."""

import os
import signal
from collections.abc import Iterator

import pytest

from dop_lightning.foundation import interrupts


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in interrupts.STATUS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_the_command_and_further_ones_are_ignored(number: signal.Signals, status: int) -> None:
    def command() -> None:
        with interrupts.interruptible():
            os.kill(os.getpid(), number)
            pytest.fail("the signal was ignored")

    with pytest.raises(KeyboardInterrupt):
        command()
    assert interrupts.status() == status
    os.kill(os.getpid(), number)


def test_finishing_block_is_not_interrupted() -> None:
    done = []

    def command() -> None:
        with interrupts.interruptible():
            with interrupts.finishing():
                with interrupts.finishing():
                    os.kill(os.getpid(), signal.SIGTERM)
                    done.append("inner")
                done.append("outer")
            pytest.fail("the signal was forgotten")

    with pytest.raises(KeyboardInterrupt):
        command()
    assert done == ["inner", "outer"]
    assert interrupts.status() == 143


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interrupts.interruptible():
        os.kill(os.getpid(), signal.SIGINT)


def test_signal_handlers_of_a_caller_are_kept() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with interrupts.interruptible(is_process=False):
        assert signal.getsignal(signal.SIGTERM) is before
