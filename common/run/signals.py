"""Turns signals into an orderly stop between two steps."""

import signal
from types import FrameType, TracebackType
from typing import Self

SCHEDULERS, KEYBOARD = 75, 130
"""Exit statuses: sysexits' EX_TEMPFAIL, and the shell's for Ctrl-C."""

# Slurm and PBS send SIGTERM, or what they were told to; Grid Engine SIGUSR1, SIGUSR2 and SIGXCPU before its
# limits; LSF SIGUSR2 or SIGXCPU at its limits, then SIGINT and SIGTERM. A terminal that closes sends SIGHUP.
STATUS = {
    signal.SIGTERM: SCHEDULERS,
    signal.SIGHUP: SCHEDULERS,
    signal.SIGUSR1: SCHEDULERS,
    signal.SIGUSR2: SCHEDULERS,
    signal.SIGXCPU: SCHEDULERS,
    signal.SIGINT: KEYBOARD,
    signal.SIGQUIT: KEYBOARD,
}
"""Exit status by signal that asks a process to end."""


class Interruption(Exception):
    """A signal asked the run to save and stop; `status` is the exit status to leave with."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.status = STATUS[signal.Signals(signal_number)]


class Signals:
    """Context in which the signals in `STATUS` only ask; a second one from the keyboard interrupts at once.

    A signal that was ignored before stays ignored: `nohup` and shells rely on it.
    """

    def __init__(self) -> None:
        self.received: int | None = None

    def check(self) -> None:
        """Raise `Interruption` if a signal has come."""
        if self.received is not None:
            raise Interruption(self.received)

    def _receive(self, number: int, _: FrameType | None) -> None:
        again = self.received is not None and STATUS[signal.Signals(self.received)] == KEYBOARD
        if again and STATUS[signal.Signals(number)] == KEYBOARD:
            raise KeyboardInterrupt
        self.received = number

    def __enter__(self) -> Self:
        self._previous = {
            number: signal.signal(number, self._receive)
            for number in STATUS
            if signal.getsignal(number) is not signal.SIG_IGN
        }
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
