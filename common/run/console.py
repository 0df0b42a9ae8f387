"""What a person sees of a run: a progress bar and a few lines."""

import statistics
import sys
from typing import Any

from tqdm import tqdm


class Console:
    """Progress with steps/s, time left, the last episode's return and the latest evaluation per shift.

    Without a terminal the bar is refreshed every half minute, so that a log file stays readable.
    """

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None
        self._shown: dict[str, str] = {}

    def start(self, step: int, steps: int) -> None:
        """Show the bar at `step` of `steps` agent steps."""
        interactive = sys.stderr.isatty()
        self._bar = tqdm(
            total=steps,
            initial=step,
            unit="step",
            dynamic_ncols=interactive,
            mininterval=0.2 if interactive else 30,
            miniters=0,  # whatever the number of steps: a burst or an evaluation makes none for minutes
            smoothing=0.05,
        )

    def step(self, step: int) -> None:
        """Advance the bar to `step`."""
        if self._bar is not None:
            self._bar.update(step - self._bar.n)

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
        tqdm.write(line, file=sys.stderr)

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()

    def _show(self, values: dict[str, str], drop: str | None = None) -> None:
        if drop is not None:
            self._shown.pop(drop, None)
        self._shown |= values
        if self._bar is not None:
            self._bar.set_postfix(self._shown, refresh=False)
            self._bar.update(0)


def returns_by_shift(records: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Episode returns by shift, in the records' order."""
    returns: dict[str, list[float]] = {}
    for record in records:
        returns.setdefault(record["shift"], []).append(record["return"])
    return returns
