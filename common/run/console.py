"""What a person sees of a run: a progress bar and a few lines."""

import contextlib
import os
import statistics
import sys
import time
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{left}, {rate_fmt}{postfix}]"


class Console:
    """Progress with steps/s, time left, the last episode's return and the latest evaluation per shift.

    Without a terminal the bar is refreshed every half minute, so that a log file stays readable. Whatever
    becomes of the terminal or the pipe that it goes to costs the run nothing.
    """

    def __init__(self) -> None:
        self._bar: _Bar | None = None
        self._shown: dict[str, str] = {}
        self._said_how_long = False

    def start(self, step: int, steps: int) -> None:
        """Show the bar at `step` of `steps` agent steps."""
        interactive = STDERR.isatty()
        self._bar = _Bar(
            total=steps,
            initial=step,
            unit="step",
            file=STDERR,
            bar_format=BAR,
            dynamic_ncols=interactive,
            mininterval=0.2 if interactive else 30,
            miniters=0,  # whatever the number of steps: a burst or an evaluation makes none for minutes
            smoothing=0.05,
        )

    def step(self, step: int) -> None:
        """Advance the bar to `step`."""
        if self._bar is not None:
            self._bar.update(step - self._bar.n)

    def expect(self, parts: Mapping[str, float] | None) -> None:
        """Show the time left: the sum of what the parts of the run will take [s], None if that is unknown.

        It is also said in a line, with the parts, as soon as it is known.
        """
        if parts is None or self._bar is None:
            return
        left = sum(parts.values())
        self._bar.ends_at = time.monotonic() + left
        if not self._said_how_long:
            self._said_how_long = True
            each = ", ".join(f"{name} {duration(seconds)}" for name, seconds in parts.items() if seconds > 0)
            self.say(f"about {duration(left)} to go: {each}")

    def episode(self, episode_return: float) -> None:
        """Show the return of the episode that just ended."""
        self._show({"return": f"{episode_return:.0f}"})

    def burst(self, done: int, of: int) -> None:
        """Show how far the burst of updates after the random steps has come."""
        self._show({"burst": f"{done}/{of}"} if done < of else {}, drop="burst")

    def evaluating(self, done: int, of: int) -> None:
        """Show how many evaluation episodes are done."""
        self._show({"evaluating": f"{done}/{of}"} if done < of else {}, drop="evaluating")

    def evaluation(self, records: list[dict[str, Any]]) -> None:
        """Show the mean return per shift."""
        means = {shift: statistics.fmean(values) for shift, values in returns_by_shift(records).items()}
        self._show({shift: f"{mean:.0f}" for shift, mean in means.items()})

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        tqdm.write(line, file=STDERR)

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()

    def result(self, text: str) -> None:
        """Print what the run comes to on standard output."""
        try:
            print(text, flush=True)
        except OSError:
            # Nobody reads it any more; Python would complain once more at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def _show(self, values: dict[str, str], drop: str | None = None) -> None:
        if drop is not None:
            self._shown.pop(drop, None)
        self._shown |= values
        if self._bar is not None:
            self._bar.set_postfix(self._shown, refresh=False)
            self._bar.update(0)


class _Bar(tqdm):
    """A bar whose time left is told to it: steps of a run differ too much in what they cost."""

    ends_at: float | None = None
    """When the run will have ended, by the clock of `time.monotonic`."""

    @property
    def format_dict(self) -> dict[str, Any]:
        """What `BAR` may name."""
        left = None if self.ends_at is None else max(0.0, self.ends_at - time.monotonic())
        return {**super().format_dict, "left": "?" if left is None else tqdm.format_interval(left)}


class _Stderr:
    """Standard error for as long as it can be written to."""

    def write(self, text: str) -> None:
        """Write what can be written."""
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(text)

    def flush(self) -> None:
        """Hand over what was written."""
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


STDERR: Any = _Stderr()


def duration(seconds: float) -> str:
    """Seconds in the two largest units that they fill, such as "1 h 05 min"."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    days, hours, minutes = minutes // 1440, minutes // 60 % 24, minutes % 60
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min"


def returns_by_shift(records: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Episode returns by shift, in the records' order."""
    returns: dict[str, list[float]] = {}
    for record in records:
        returns.setdefault(record["shift"], []).append(record["return"])
    return returns
