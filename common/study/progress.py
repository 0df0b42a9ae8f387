"""How far a study is and how long it will take, judged by its own runs."""

import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, Self

from tqdm import tqdm

from common.study.definition import PlannedRun
from common.study.estimate import estimates, hours_together
from common.study.folders import FoundRun, progress


class Progress:
    """A bar over all agent steps of the runs, with the time left; without a terminal it is a line a minute.

    Args:
        name: the study's.
        found: the runs that this process is to finish, as they are now.
        slots: how many of them go on at the same time.
    """

    def __init__(self, name: str, found: Sequence[FoundRun], slots: int) -> None:
        self._name, self._found, self._slots = name, found, slots
        terminal = sys.stderr.isatty()
        self._steps = sum(each.run.config.train.steps for each in found)
        self._bar: tqdm[Any] = tqdm(
            total=self._steps,
            desc=name,
            bar_format="{desc}: {percentage:5.1f}%|{bar:20}| {postfix}",
            dynamic_ncols=True,
            disable=not terminal,
        )
        self._every = 1 if terminal else 60
        self._due = time.monotonic() + self._every

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        tqdm.write(line, file=sys.stderr)

    def show(self, active: Collection[PlannedRun]) -> None:
        """Bring bar and time left up to date; `active` runs are being trained."""
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + self._every
        found = [_at_present(each) for each in self._found]
        hours = hours_together(estimates(found))
        ahead = sorted((each for each in found if each.run in active), key=lambda each: -each.step)
        words = [f"{each.run.name} {each.step}/{each.run.config.train.steps}" for each in ahead[:2]]
        words.append("time left unknown" if hours is None else f"{duration(3600 * hours / self._slots)} left")
        done = sum(each.step for each in found)
        if self._bar.disable:
            self.say(f"{self._name}: {done:,} of {self._steps:,} steps, {', '.join(words)}")
        else:
            self._bar.n = done
            self._bar.set_postfix_str(", ".join(words))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()


def _at_present(found: FoundRun) -> FoundRun:
    step, seconds = progress(found.run.folder)
    return replace(found, step=min(step, found.run.config.train.steps), seconds=seconds)


def duration(seconds: float) -> str:
    """Seconds as days, hours and minutes."""
    minutes = round(seconds / 60)
    days, hours, minutes = minutes // 1440, minutes // 60 % 24, minutes % 60
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min"
