"""What a study will cost, from measured speeds only."""

import functools
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from common.config.loading import CONFIGS
from common.study.folders import FoundRun, State

PERFORMANCE = CONFIGS.parent / "results" / "performance"
"""Where `python -m benchmarks.loop --json` leaves its figures."""


Pace = tuple[float, str]
"""Seconds of a whole training loop for an agent step, and where that was measured."""


@dataclass(frozen=True)
class Estimate:
    """The runs of a column that are not done: their number, agent steps still to go and pace, if known."""

    column: str
    runs: int
    steps: int
    pace: Pace | None

    @property
    def hours(self) -> float | None:
        """Hours of the device, one run at a time."""
        return None if self.pace is None else self.steps * self.pace[0] / 3600


def estimates(found: Iterable[FoundRun], performance: Path = PERFORMANCE) -> list[Estimate]:
    """The cost by column: at the speed of the study's own runs, else at the one that benchmarks measured.

    Args:
        found: the study's runs.
        performance: folder with the JSON files of `python -m benchmarks.loop`.
    """
    columns: dict[str, list[FoundRun]] = {}
    for each in found:
        columns.setdefault(each.run.column, []).append(each)
    benchmarked = _benchmarked(performance, gpu=torch.cuda.is_available())
    costs = []
    for column, runs in columns.items():
        left = [each for each in runs if each.state is not State.DONE]
        steps = sum(max(0, each.run.config.train.steps - each.step) for each in left)
        config = runs[0].run.config
        pace = _own_pace(runs) or benchmarked.get((config.agent, config.preset, config.train.batch))
        costs.append(Estimate(column, len(left), steps, pace))
    return costs


def table(costs: Sequence[Estimate]) -> list[str]:
    """The estimates as lines, a column each, and their sum."""
    width = max(len(cost.column) for cost in costs)
    lines = [f"{'agent':<{width}} {'runs':>5} {'steps to go':>13} {'steps/s':>8} {'hours':>8}  measured on"]
    for cost in costs:
        pace, source = cost.pace or (None, "")
        speed, hours = (f"{1 / pace:.3g}", f"{cost.hours:.1f}") if pace else ("unknown", "unknown")
        line = f"{cost.column:<{width}} {cost.runs:>5} {cost.steps:>13,} {speed:>8} {hours:>8}  {source}"
        lines.append(line.rstrip())
    return [*lines, total(costs)]


def total(costs: Sequence[Estimate], slots: int = 1) -> str:
    """The estimates' sum in a line, if `slots` runs go on at the same time."""
    known = sum(cost.hours for cost in costs if cost.hours is not None) / slots
    unknown = [cost.column for cost in costs if cost.runs and cost.hours is None]
    if unknown:
        rest = f"{known:.1f} hours for the others; " if len(unknown) < len(costs) else ""
        return (
            f"estimate: {rest}unknown for {', '.join(unknown)}, whose speed was not measured "
            "(python -m benchmarks.loop does, or a first run of each)"
        )
    at_once = "one run" if slots == 1 else f"{slots} runs"
    return f"estimate: {known:.1f} hours of that device, {at_once} at a time"


def _own_pace(runs: Sequence[FoundRun]) -> Pace | None:
    timed = [(each.step, each.seconds) for each in runs if each.step and each.seconds]
    if not timed:
        return None
    devices = {str(each.provenance.get("device", "")) for each in runs if each.seconds}
    seconds, steps = math.fsum(seconds for _, seconds in timed), sum(step for step, _ in timed)
    return seconds / steps, f"{len(timed)} of its runs on {', '.join(sorted(devices))}"


@functools.cache
def _benchmarked(folder: Path, gpu: bool) -> dict[tuple[str, str, int], Pace]:
    """The fastest measured training loop of each agent, preset and batch, on GPUs or on processors alone."""
    paces: dict[tuple[str, str, int], Pace] = {}
    for path in sorted(folder.glob("**/*.json")):
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
            measured = (str(report["agent"]), str(report["preset"]), int(report["batch"]))
            pace, machine = 1 / float(report["steps_per_second"]), report["machine"]
            name = machine.get("gpu") or f"{machine['processor']}, {machine['cores']} cores"
        except (OSError, ValueError, RecursionError, ArithmeticError, LookupError, TypeError, AttributeError):
            continue  # another benchmark's figures
        if gpu == ("gpu" in machine) and 0 < pace < paces.get(measured, (math.inf, ""))[0]:
            paces[measured] = pace, f"{name} ({path.name})"
    return paces
