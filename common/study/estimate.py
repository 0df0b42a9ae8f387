"""What a study will cost, from measured speeds only."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from common.config.loading import CONFIGS
from common.study.folders import FoundRun, State

PERFORMANCE = CONFIGS.parent / "results" / "performance"
"""Where `python -m benchmarks.loop --json` leaves its figures."""


@dataclass(frozen=True)
class Speed:
    """Agent steps per second of a whole training loop, and where that was measured."""

    steps_per_second: float
    source: str


@dataclass(frozen=True)
class Estimate:
    """The runs of a column that are not done: their number, agent steps still to go and hours, if known."""

    column: str
    runs: int
    steps: int
    speed: Speed | None

    @property
    def hours(self) -> float | None:
        """Hours of the device, one run at a time."""
        return None if self.speed is None else self.steps / self.speed.steps_per_second / 3600


def estimates(readings: Iterable[FoundRun], performance: Path = PERFORMANCE) -> list[Estimate]:
    """The cost by column: at the speed of the study's own runs, else at the one that benchmarks measured.

    Args:
        readings: of the study's runs.
        performance: folder with the JSON files of `python -m benchmarks.loop`.
    """
    columns: dict[str, list[FoundRun]] = {}
    for reading in readings:
        columns.setdefault(reading.run.column, []).append(reading)
    benchmarked = _benchmarked(performance, gpu=torch.cuda.is_available())
    found = []
    for column, runs in columns.items():
        left = [reading for reading in runs if reading.state is not State.DONE]
        steps = sum(max(0, reading.run.config.train.steps - reading.step) for reading in left)
        first = runs[0].run
        config = first.config
        speed = _own_speed(runs) or benchmarked.get((config.agent, config.preset, config.train.batch))
        found.append(Estimate(column, len(left), steps, speed))
    return found


def _own_speed(readings: list[FoundRun]) -> Speed | None:
    timed = [(reading.step, reading.seconds) for reading in readings if reading.step and reading.seconds]
    if not timed:
        return None
    speed = sum(step for step, _ in timed) / math.fsum(seconds for _, seconds in timed)
    devices = {str(reading.provenance.get("device", "")) for reading in readings if reading.seconds}
    return Speed(speed, f"{len(timed)} of its runs on {', '.join(sorted(devices))}")


def _benchmarked(folder: Path, gpu: bool) -> dict[tuple[str, str, int], Speed]:
    """The fastest measured training loop of each agent, preset and batch, on GPUs or on processors alone."""
    speeds: dict[tuple[str, str, int], Speed] = {}
    for path in sorted(folder.glob("**/*.json")):
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
            measured = (str(report["agent"]), str(report["preset"]), int(report["batch"]))
            value, machine = float(report["steps_per_second"]), report["machine"]
            name = machine.get("gpu") or f"{machine['processor']}, {machine['cores']} cores"
            if gpu != ("gpu" in machine):
                continue
        except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
            continue  # another benchmark's figures
        best = speeds.get(measured)
        if 0 < value < math.inf and (best is None or value > best.steps_per_second):
            speeds[measured] = Speed(value, f"{name} ({path.name})")
    return speeds
