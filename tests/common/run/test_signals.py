"""Signals that ask a run to save and stop."""

import os
import signal

import pytest

from common.envs.worker import STOPPING
from common.run.signals import STATUS, Interruption, Signals

SCHEDULERS = ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")


@pytest.mark.parametrize(
    ("name", "status"), [*((name, 75) for name in SCHEDULERS), ("SIGINT", 130), ("SIGQUIT", 130)]
)
def test_each_asks_for_a_stop_with_its_exit_status(name: str, status: int):
    number = signal.Signals[name]
    before = signal.getsignal(number)
    with Signals() as signals:
        signals.check()
        os.kill(os.getpid(), number)
        with pytest.raises(Interruption, match=name) as stop:
            signals.check()
    assert stop.value.status == status
    assert signal.getsignal(number) == before


@pytest.mark.parametrize("name", ["SIGHUP", "SIGINT"])
def test_one_that_was_ignored_stays_ignored(name: str):
    number = signal.Signals[name]
    before = signal.signal(number, signal.SIG_IGN)  # as nohup and shells do
    try:
        with Signals() as signals:
            os.kill(os.getpid(), number)
            signals.check()
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_a_second_one_from_the_keyboard_interrupts_even_while_the_first_is_answered():
    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Interruption):
            signals.check()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGQUIT)
    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)  # LSF sends one of each
        with pytest.raises(Interruption):
            signals.check()


def test_environments_ignore_what_asks_their_learner():
    assert set(STOPPING) == set(STATUS)
