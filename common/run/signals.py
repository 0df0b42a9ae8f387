"""Turns signals into an orderly stop between two steps."""

import signal
from types import FrameType, TracebackType
from typing import Self

STATUS = {signal.SIGTERM: 75, signal.SIGUSR1: 75, signal.SIGINT: 130}
"""Exit status by signal: 75 (sysexits' EX_TEMPFAIL) after a scheduler's, 130 after Ctrl-C."""


class Interruption(Exception):
    """A signal asked the run to save and stop; `status` is the exit status to leave with."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.status = STATUS[signal.Signals(signal_number)]


class Signals:
    """Context in which SIGTERM, SIGUSR1 and Ctrl-C only ask; a second Ctrl-C interrupts at once."""

    def __init__(self) -> None:
        self.received: int | None = None

    def check(self) -> None:
        """Raise `Interruption` if a signal has come."""
        if self.received is not None:
            number, self.received = self.received, None
            raise Interruption(number)

    def _receive(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT and self.received == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number

    def __enter__(self) -> Self:
        self._previous = {number: signal.signal(number, self._receive) for number in STATUS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
