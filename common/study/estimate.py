"""What a study will cost, from measured speeds only."""

import functools
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from common.config.loading import CONFIGS, load
from common.config.schema import Config
from common.config.yaml_files import flattened
from common.study.folders import FoundRun, State

PERFORMANCE = CONFIGS.parent / "results" / "performance"
"""Where `python -m benchmarks.loop --json` leaves its figures."""


Pace = tuple[float, str]
"""Seconds of a whole training loop for an agent step, and where that was measured."""


@dataclass(frozen=True)
class Remaining:
    """The runs of a column that are not done: their number, agent steps still to go and pace, if known."""

    column: str
    runs: int
    steps: int
    pace: Pace | None

    @property
    def hours(self) -> float | None:
        """Hours of the device, one run at a time."""
        return None if self.pace is None else self.steps * self.pace[0] / 3600


def remaining(found_runs: Iterable[FoundRun], performance: Path = PERFORMANCE) -> list[Remaining]:
    """What is left by column: at the speed of the study's own runs, else at the one that benchmarks measured.

    Args:
        found_runs: the study's.
        performance: folder with the JSON files of `python -m benchmarks.loop`.
    """
    columns: dict[str, list[FoundRun]] = {}
    for found in found_runs:
        columns.setdefault(found.run.column, []).append(found)
    benchmarked = _benchmarked(performance, gpu=torch.cuda.is_available())
    rows = []
    for column, own in columns.items():
        left = [found for found in own if found.state is not State.DONE]
        steps = sum(max(0, found.run.config.train.steps - found.step) for found in left)
        config = own[0].run.config
        measured = benchmarked.get((config.agent, config.preset, config.train.batch))
        pace = _own_pace(own) or (measured if measured and _costs_as_its_preset(config) else None)
        rows.append(Remaining(column, len(left), steps, pace))
    return rows


def estimate_lines(rows: Sequence[Remaining]) -> list[str]:
    """What is left as lines, a column each, and the sum."""
    width = max(len(row.column) for row in rows)
    lines = [f"{'agent':<{width}} {'runs':>5} {'steps to go':>13} {'steps/s':>8} {'hours':>8}  measured on"]
    for row in rows:
        pace, source = row.pace or (None, "")
        speed, hours = (f"{1 / pace:.3g}", f"{row.hours:.1f}") if pace else ("unknown", "unknown")
        line = f"{row.column:<{width}} {row.runs:>5} {row.steps:>13,} {speed:>8} {hours:>8}  {source}"
        lines.append(line.rstrip())
    return [*lines, total_line(rows)]


def total_line(rows: Sequence[Remaining], slots: int = 1) -> str:
    """The sum in a line, if `slots` runs go on at the same time; one run cannot be shared out."""
    hours = [(row.hours, row.runs) for row in rows if row.runs and row.hours is not None]
    slots = max(1, min(slots, sum(row.runs for row in rows)))
    known = max([sum(each for each, _ in hours) / slots, *(each / runs for each, runs in hours)])
    unknown = [row.column for row in rows if row.runs and row.hours is None]
    if unknown:
        rest = f"{known:.1f} hours for the others; " if len(unknown) < len(rows) else ""
        return (
            f"estimate: {rest}unknown for {', '.join(unknown)}, whose speed was not measured "
            "(python -m benchmarks.loop does, or a first run of each)"
        )
    at_once = "one run" if slots == 1 else f"{slots} runs"
    return f"estimate: {known:.1f} hours of that device, {at_once} at a time"


_COSTLY = (
    "network.filters", "network.strides", "network.hidden", "network.decoder_filters", "env.image_size",
    "env.render_size", "train.update_every", "settings.auxiliary_every", "settings.batch",
)  # fmt: skip
"""Keys that decide how long a step takes, beside the batch.

Losses that are switched off are not counted, as the whole method takes no less; nor is what changes little:
the latent and the number of frames.
"""


def _costs_as_its_preset(config: Config) -> bool:
    """Whether a step takes as long as one with the preset alone, which is what benchmarks measure."""
    preset = dict(flattened(load(config.agent, config.task, config.preset).model_dump(mode="json")))
    values = dict(flattened(config.model_dump(mode="json")))
    return all(values.get(key) == preset.get(key) for key in _COSTLY)


def _own_pace(found_runs: Sequence[FoundRun]) -> Pace | None:
    # Random steps tell nothing: the updates that belong to them are done at their end.
    learnt = [found for found in found_runs if found.step > found.run.config.train.random_steps]
    timed = [(found, found.seconds) for found in learnt if found.seconds]
    if not timed:
        return None
    devices = {str(found.provenance.get("device", "")) for found, _ in timed}
    seconds, steps = math.fsum(seconds for _, seconds in timed), sum(found.step for found, _ in timed)
    return seconds / steps, f"{len(timed)} of its runs on {', '.join(sorted(devices))}"


@functools.cache
def _benchmarked(folder: Path, gpu: bool) -> dict[tuple[str, str, int], Pace]:
    """The fastest measured training loop of each agent, preset and batch, on GPUs or on processors alone."""
    paces: dict[tuple[str, str, int], Pace] = {}
    for path in sorted(folder.glob("**/*.json")):
        try:
            figures = json.loads(path.read_text(encoding="utf-8"))
            measured = (str(figures["agent"]), str(figures["preset"]), int(figures["batch"]))
            pace, machine = 1 / float(figures["steps_per_second"]), figures["machine"]
            name = machine.get("gpu") or f"{machine['processor']}, {machine['cores']} cores"
        except (OSError, ValueError, RecursionError, ArithmeticError, LookupError, TypeError, AttributeError):
            continue  # another benchmark's figures
        if gpu == ("gpu" in machine) and 0 < pace < paces.get(measured, (math.inf, ""))[0]:
            paces[measured] = pace, f"{name} ({path.name})"
    return paces
