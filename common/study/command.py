"""What `smg study run|status|table|report` do.

Reports are imported where one will be written: their plots need matplotlib, whose import takes half a second.
"""

import os
import shlex
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path

import torch

from common.errors import UserError
from common.run.checkpoint import write_atomically
from common.run.signals import Interruption, Signals
from common.study.attempt import attempt as local_attempt
from common.study.definition import PlannedRun, Study, load_study
from common.study.estimate import estimate_lines, remaining, total_line
from common.study.folders import FoundRun, State, read
from common.study.formats import FORMATS, markdown
from common.study.results import collect
from common.study.runner import Attempt, Runner, check_folders, say, shard_of
from common.study.table import build
from common.study.texts import plural

SUFFIXES = {"markdown": ".md", "csv": ".csv", "latex": ".tex"}


def run(
    path: str,
    overrides: list[str],
    engine: str = "local",
    address: str | None = None,
    shard: str | None = None,
    jobs: int | None = None,
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
    if jobs is not None and (engine == "ray" or jobs < 1):
        raise UserError(f"--jobs {jobs}: should be at least 1, and goes with --engine local")
    if dry_run:
        print(plan(study, runs), end="")
        return 0
    try:
        import_module("common.study.report")  # what cannot be drawn shows now, not after the last run
    except ImportError as error:
        raise UserError(
            f"the report could not be written at the end ({error}): pip install -c constraints.txt -e ."
        ) from error

    found_runs = [read(run) for run in runs]
    check_folders(found_runs)
    with ExitStack() as stack:
        if engine == "ray":
            chosen = _ray_engine(stack, study, address, len(runs))
        else:
            chosen = _local_engine(jobs or 1)

        def progress_line(found_runs: Sequence[FoundRun]) -> str:
            return f"{summary(found_runs)}; {total_line(remaining(found_runs), chosen.slots)}"

        say(progress_line(found_runs))
        # After Ray, which handles SIGTERM in its own way.
        signals = stack.enter_context(Signals())
        try:
            runner = Runner(chosen.attempt, chosen.workers, retries, progress_line, signals)
            given_up = runner.bring_to_end(found_runs)
        except Interruption as stop:
            say(f"stopped by {stop} and saved; the same command goes on from there")
            return stop.status
    everything = [read(run) for run in study.runs]
    if shard is not None and any(found.state is not State.DONE for found in everything):
        print(summary(everything))
    else:
        write_outputs(study)
    return 1 if given_up else 0


@dataclass(frozen=True)
class _Engine:
    """Where attempts are made: how many are begun at a time, and for how many of them there is room."""

    attempt: Attempt
    workers: int
    slots: int


def _local_engine(jobs: int) -> _Engine:
    return _Engine(partial(local_attempt, environment=share_of_threads(jobs)), jobs, jobs)


def _ray_engine(stack: ExitStack, study: Study, address: str | None, runs: int) -> _Engine:
    """A cluster, which `stack` will leave; Ray itself decides how many of all `runs` it has room for."""
    from common.study.ray_engine import RayEngine

    cluster = RayEngine(address, study.resources)
    stack.callback(cluster.close)
    return _Engine(cluster.attempt, runs, cluster.slots)


def share_of_threads(jobs: int) -> dict[str, str]:
    """Variables that give each of several runs its share of the threads that one has, unless they are set."""
    if jobs == 1 or "OMP_NUM_THREADS" in os.environ:
        return {}
    return {"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // jobs))}


def write_outputs(study: Study) -> None:
    """Print the table, and write it in all formats and the report into the study's folder."""
    from common.study.report import write_report

    results = collect(study)
    table = build(results)
    study.folder.mkdir(parents=True, exist_ok=True)
    for name, write in FORMATS.items():
        write_atomically(study.folder / f"{study.name}{SUFFIXES[name]}", write(table).encode())
    page = study.folder / f"{study.name}.html"
    write_report(results, table, page)
    print(markdown(table))
    print(f"report: {page}")


def status(path: str, overrides: list[str]) -> int:
    """Print the state of every run; always 0."""
    found_runs = [read(run) for run in load_study(path, overrides).runs]
    width = max(len(found.run.name) for found in found_runs)
    for found in found_runs:
        print(f"{found.state:<10}  {found.run.name:<{width}}  {found.detail}".rstrip())
    print(summary(found_runs))
    return 0


def table(path: str, overrides: list[str], form: str, output: str | None, mix: bool) -> int:
    """Print or write the table of the finished runs in one format."""
    _emit(FORMATS[form](build(collect(load_study(path, overrides), mix))), output)
    return 0


def report(path: str, overrides: list[str], output: str | None, mix: bool) -> int:
    """Write the report of the finished runs."""
    from common.study.report import write_report

    study = load_study(path, overrides)
    results = collect(study, mix)
    page = Path(output or study.folder / f"{study.name}.html")
    write_report(results, build(results), page, mix)
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


def summary(found_runs: Sequence[FoundRun]) -> str:
    """How many runs are in which state."""
    counts = Counter(found.state for found in found_runs)
    return f"{plural(len(found_runs), 'run')}: " + ", ".join(
        f"{counts[state]} {state}" for state in State if counts[state]
    )


def plan(study: Study, runs: Sequence[PlannedRun]) -> str:
    """Every run with its state and command, what the study sets, and what the rest will cost."""
    found_runs = [read(run) for run in runs]
    lines = [f"{found.state:<10}  smg train {shlex.join(found.run.arguments)}" for found in found_runs]
    lines += [
        "",
        summary(found_runs),
        f"settings on top of configs/: {' '.join(study.settings) or 'none'}",
        "",
    ]
    return "\n".join([*lines, *estimate_lines(remaining(found_runs))]) + "\n"
