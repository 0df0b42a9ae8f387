"""How far a study is and how long it will take, judged by its own runs."""

import statistics
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

from tqdm import tqdm

from common.study.definition import PlannedRun
from common.study.folders import progress

REPORT_EVERY = 60
"""Seconds between lines where there is no terminal."""


class Progress:
    """One bar over all agent steps of the runs, with the time left.

    Args:
        name: the study's.
        runs: those that this process is to finish.
    """

    def __init__(self, name: str, runs: Iterable[PlannedRun]) -> None:
        self._name = name
        self._runs = tuple(runs)
        self._total = sum(run.config.train.steps for run in self._runs)
        self._interactive = sys.stderr.isatty()
        self._bar: tqdm[Any] = tqdm(
            total=self._total,
            desc=name,
            bar_format="{desc}: {percentage:5.1f}%|{bar:20}| {postfix}",
            dynamic_ncols=True,
            disable=not self._interactive,
        )
        self._reported = time.monotonic()

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        tqdm.write(line, file=sys.stderr)

    def show(self, active: Iterable[PlannedRun], slots: int) -> None:
        """Bring bar and time left up to date; `slots` attempts go on at the same time."""
        due = time.monotonic() - self._reported >= REPORT_EVERY
        if not (self._interactive or due):
            return
        steps = {run: progress(run.folder) for run in self._runs}
        done = sum(min(step, run.config.train.steps) for run, (step, _) in steps.items())
        left = time_left(steps, slots)
        at = ", ".join(
            f"{run.name} {steps[run][0]}/{run.config.train.steps}"
            for run in sorted(active, key=lambda run: -steps[run][0])[:2]
        )
        text = f"{at}, {duration(left)} left" if left is not None else f"{at}, time left unknown"
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.n = done
        self._bar.refresh()
        if due:
            self._reported = time.monotonic()
            if not self._interactive:
                self.say(f"{self._name}: {100 * done / self._total:.1f}%, {text}")

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._bar.close()


def time_left(progress: Mapping[PlannedRun, tuple[int, float | None]], slots: int) -> float | None:
    """Seconds until all runs are done, `slots` at a time.

    Args:
        progress: agent step and seconds spent, by run. A run not begun is taken to be as fast as the others
            of its column, else as the mean of all columns.

    Returns:
        None while no run has a measured speed.
    """
    spent: dict[str, list[tuple[int, float]]] = {}
    for run, (step, seconds) in progress.items():
        if step and seconds:
            spent.setdefault(run.column, []).append((step, seconds))
    if not spent:
        return None
    pace = {column: sum(s for _, s in pairs) / sum(n for n, _ in pairs) for column, pairs in spent.items()}
    usual = statistics.fmean(pace.values())
    seconds = sum(
        max(0, run.config.train.steps - step) * pace.get(run.column, usual)
        for run, (step, _) in progress.items()
    )
    return seconds / slots


def duration(seconds: float) -> str:
    """Seconds as days, hours and minutes."""
    minutes = round(seconds / 60)
    days, hours, minutes = minutes // 1440, minutes // 60 % 24, minutes % 60
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min"
