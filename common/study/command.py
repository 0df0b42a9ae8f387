"""What `smg study run|status|table|report` do."""

import shlex
import sys
from collections import Counter
from pathlib import Path

from common.errors import UserError
from common.run.checkpoint import write_atomically
from common.run.signals import Interruption, Signals
from common.study.definition import PlannedRun, Study, load_study
from common.study.estimate import Estimate, estimates
from common.study.folders import Kind, Reading, read
from common.study.formats import FORMATS, markdown
from common.study.progress import Progress
from common.study.report import write_report
from common.study.results import collect
from common.study.runner import LocalEngine, check_folders, run_all, shard_of
from common.study.table import build

SUFFIXES = {"markdown": ".md", "csv": ".csv", "latex": ".tex"}


def run(
    path: str,
    overrides: list[str],
    engine: str = "local",
    address: str | None = None,
    shard: str | None = None,
    retries: int = 2,
    dry_run: bool = False,
) -> int:
    """Bring a study's runs to their end, then print its table and write it and the report beside the runs.

    Returns:
        0 if all runs of the shard are done, 1 if some were given up, 75 or 130 if a signal stopped it.

    Raises:
        UserError: the study, a run of it or the engine cannot work.
    """
    study = load_study(path, overrides)
    runs = shard_of(study, shard)
    if address is not None and engine != "ray":
        raise UserError("--address goes with --engine ray")
    if dry_run:
        print(plan(study, runs), end="")
        return 0
    check_folders(runs)
    given_up, stop = _run(study, runs, engine, address, retries)
    if stop is not None:
        print(f"stopped by {stop} and saved; the same command goes on from there", file=sys.stderr)
        return stop.status
    readings = [read(run) for run in study.runs]
    if shard is not None and any(reading.kind is not Kind.DONE for reading in readings):
        print(summary(readings))
    else:
        write_outputs(study)
    return 1 if given_up else 0


def _run(
    study: Study, runs: tuple[PlannedRun, ...], engine: str, address: str | None, retries: int
) -> tuple[list[PlannedRun], Interruption | None]:
    """The runs given up, and what stopped the study, if anything did."""
    progress = Progress(study.name, runs)
    try:
        if engine == "ray":
            from common.study.ray_engine import RayEngine

            worker = RayEngine(address, study.resources)
        else:
            worker = LocalEngine()
        try:
            readings = [read(run) for run in runs]
            progress.say(f"{summary(readings)}; {_total(estimates(readings))}")
            # After Ray, which handles SIGTERM in its own way.
            with Signals() as signals:
                return run_all(runs, worker, progress, retries, signals), None
        except Interruption as stop:
            return [], stop
        finally:
            worker.close()
    finally:
        progress.close()


def write_outputs(study: Study) -> None:
    """Print the table, and write it in all formats and the report into the study's folder."""
    results = collect(study)
    table = build(results)
    study.folder.mkdir(parents=True, exist_ok=True)
    for name, write in FORMATS.items():
        write_atomically(study.folder / f"{study.name}{SUFFIXES[name]}", write(table).encode())
    report = study.folder / f"{study.name}.html"
    write_report(results, table, report)
    print(markdown(table))
    print(f"report: {report}")


def status(path: str, overrides: list[str]) -> int:
    """Print the state of every run; always 0."""
    study = load_study(path, overrides)
    readings = [read(run) for run in study.runs]
    width = max(len(reading.run.name) for reading in readings)
    for reading in readings:
        print(f"{reading.kind:<10}  {reading.run.name:<{width}}  {reading.detail}".rstrip())
    print(summary(readings))
    return 0


def table(path: str, overrides: list[str], form: str, output: str | None, mix: bool) -> int:
    """Print or write the table of the finished runs in one format."""
    _emit(FORMATS[form](build(collect(load_study(path, overrides), mix))), output)
    return 0


def report(path: str, overrides: list[str], output: str | None, mix: bool) -> int:
    """Write the report of the finished runs."""
    study = load_study(path, overrides)
    results = collect(study, mix)
    page = Path(output or study.folder / f"{study.name}.html")
    write_report(results, build(results), page)
    print(page)
    return 0


def _emit(text: str, output: str | None) -> None:
    if output is None:
        print(text, end="")
        return
    path = Path(output)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text.encode())
    except OSError as error:
        raise UserError(f"{output} cannot be written ({error.strerror})") from error


def summary(readings: list[Reading]) -> str:
    """How many runs are in which state."""
    counts = Counter(reading.kind for reading in readings)
    return f"{len(readings)} runs: " + ", ".join(f"{counts[kind]} {kind}" for kind in Kind if counts[kind])


def plan(study: Study, runs: tuple[PlannedRun, ...]) -> str:
    """Every run with its state and command, what the study sets, and what the rest will cost."""
    readings = [read(run) for run in runs]
    lines = [f"{reading.kind:<10}  smg train {shlex.join(reading.run.arguments)}" for reading in readings]
    lines += ["", summary(readings), f"settings on top of configs/: {' '.join(study.settings) or 'none'}", ""]
    lines += _costs(estimates(readings))
    return "\n".join(lines) + "\n"


def _costs(costs: list[Estimate]) -> list[str]:
    """The estimate as a table by agent, and its sum."""
    width = max(len(cost.column) for cost in costs)
    lines = [f"{'agent':<{width}} {'runs':>5} {'steps to go':>13} {'steps/s':>8} {'hours':>8}  measured on"]
    for cost in costs:
        speed, hours, source = "unknown", "unknown", ""
        if cost.speed is not None:
            speed, hours = f"{cost.speed.steps_per_second:.3g}", f"{cost.hours:.1f}"
            source = cost.speed.source
        line = f"{cost.column:<{width}} {cost.runs:>5} {cost.steps:>13,} {speed:>8} {hours:>8}  {source}"
        lines.append(line.rstrip())
    return [*lines, _total(costs)]


def _total(costs: list[Estimate]) -> str:
    """The estimate's sum, in a line."""
    known = sum(cost.hours for cost in costs if cost.hours is not None)
    unknown = [cost.column for cost in costs if cost.runs and cost.hours is None]
    if unknown:
        rest = f"{known:.1f} hours for the others; " if len(unknown) < len(costs) else ""
        return (
            f"estimate: {rest}unknown for {', '.join(unknown)}, whose speed was not measured "
            "(python -m benchmarks.loop does, or a first run of each)"
        )
    return f"estimate: {known:.1f} hours of that device, one run at a time"
