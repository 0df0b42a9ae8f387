"""A study as one HTML page, and its plots as files for a paper."""

import base64
import json
import stat
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from common.config.loading import load
from common.config.schema import Config
from common.errors import UserError
from common.report.pages import render
from common.report.plots import Curves, Estimate, Intervals, Line, Plot, save, svg
from common.run.checkpoint import write_atomically
from common.study import intervals, texts
from common.study.definition import Study
from common.study.folders import FoundRun, State, differences
from common.study.results import Results, mixtures
from common.study.table import Block, Table, average_lead, lead, total_costs

PICTURE_BYTES = 600_000
"""Larger pictures are named, not shown."""
PICTURES_BYTES = 12_000_000
"""All pictures of a page together."""
LABEL = 48
"""Characters of a line below a plot."""
_PNG = b"\x89PNG\r\n\x1a\n"


def write_report(results: Results, table: Table, path: Path, mix: bool = False) -> None:
    """Write the page to `path`, and its plots as PDF and PNG beside it; its folder is made if absent.

    Beside `name.html` lie `name_curves`, `name_scores` and `name_profiles`, where there is anything to plot.
    `mix` is that of `drawn_runs`.

    Raises:
        UserError: a file cannot be written.
    """
    drawn = drawn_runs(results, mix)
    rows = {
        "curves": [learning_curves(drawn, task) for task in results.study.tasks],
        "scores": [scores(table)],
        "profiles": [profiles(table)],
    }
    plots = {name: [plots for plots in own if plots] for name, own in rows.items()}
    page = _page(results, table, plots, drawn.notes)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, page.encode())
        for name, drawn in plots.items():
            if drawn:
                save(path.with_name(f"{path.stem}_{name}"), drawn)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror})") from error


def _page(
    results: Results, table: Table, plots: Mapping[str, Sequence[Sequence[Plot]]], curve_notes: Sequence[str]
) -> str:
    return render(
        "study/report.html",
        title=f"{results.study.name}: report",
        results=results,
        study=results.study,
        table=table,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        texts=texts,
        lead=lead,
        average_lead=average_lead,
        total_costs=total_costs,
        curve_notes=curve_notes,
        plots={name: [svg(plot) for row in rows for plot in row] for name, rows in plots.items()},
        pictures=_pictures(results),
        facts=_facts,
    )


def drawn_runs(results: Results, mix: bool = False) -> Results:
    """The runs whose curves are drawn, with notes on what is unfinished among them and what is left out.

    They are the finished ones and, where a task has none of an agent, the unfinished ones that a table would
    take beside the finished ones, had they ended; all unfinished ones with `mix`.
    """
    drawn, unfinished, refused = results.done, [], []
    for task in results.study.tasks:
        for column in results.study.columns:
            begun = [found for found in results.found_in(task, column) if found.episodes]
            if not begun or results.done_in(task, column):
                continue
            reasons = [] if mix else _mixtures_of_ended(results.study, (*results.done, *begun))
            if reasons:
                refused.append(f"{column} on {task} ({'; '.join(reasons)})")
            else:
                drawn += begun
                unfinished.append(f"{column} on {task}")
    notes = []
    if unfinished:
        notes.append(f"Dotted, as no run of theirs has finished: {', '.join(unfinished)}.")
    if refused:
        notes.append(
            f"Left out, as unfinished runs that do not belong beside the others: {', '.join(refused)}."
        )
    # Which of two unfinished runs is the odd one nobody can say.
    if reasons := [] if mix else _mixtures_of_ended(results.study, drawn):
        notes.append(f"Drawn together, but no table would hold both: {'; '.join(reasons)}.")
    return Results(results.study, tuple(drawn), tuple(notes))


def _mixtures_of_ended(study: Study, found_runs: Iterable[FoundRun]) -> list[str]:
    """Why runs would not belong in one table if they had all ended."""
    return mixtures(Results(study, tuple(replace(found, state=State.DONE) for found in found_runs)))


def learning_curves(results: Results, task: str, shifts: Iterable[str] | None = None) -> list[Curves]:
    """A plot for each shift: mean return over seeds at each evaluation, with its interval over seeds.

    All have the same vertical axis.

    Args:
        results: the runs that are drawn, of which a cell's are finished or else marked as unfinished.
        task: one of the study's.
        shifts: by default the study's, then whatever else the task's runs are evaluated under.
    """
    lines = {}
    for shift in _shifts(results, task) if shifts is None else shifts:
        curves = (_curve(results, task, shift, index) for index in range(len(results.study.columns)))
        lines[shift] = [line for line in curves if line is not None]
    values = [
        end
        for each in lines.values()
        for line in each
        for end in (*(line.low or line.y), *(line.high or line.y))
    ]
    return [
        Curves(f"{task}, {shift}", each, "agent steps", "return", (min(0, *values), max(values)))
        for shift, each in lines.items()
        if each
    ]


def _shifts(results: Results, task: str) -> Iterable[str]:
    run = next(run for run in results.study.runs if run.task == task)
    configs = [found.config for found in results.found_runs if found.run.task == task and found.config]
    evaluated = dict.fromkeys(shift for config in configs or [run.config] for shift in config.eval.shifts)
    return dict.fromkeys((*results.study.shifts, *evaluated))


def _curve(results: Results, task: str, shift: str, index: int) -> Line | None:
    column = results.study.columns[index]
    cell = results.found_in(task, column)
    curves = [dict(evaluations) for found in cell if (evaluations := found.evaluations(shift))]
    steps = sorted(set.intersection(*map(set, curves))) if curves else []
    if not steps:
        return None
    values = np.array([[curve[step] for step in steps] for curve in curves])
    low, high = _ends(intervals.mean_interval(values))
    unfinished = any(found.state is not State.DONE for found in cell)
    return Line(column, index, steps, values.mean(axis=0).tolist(), low, high, unfinished)


def scores(table: Table) -> list[Intervals]:
    """A plot for each block: the interquartile mean of every agent that has one, with its interval."""
    plots = []
    for block in table.blocks:
        estimates = [
            Estimate(item.column, index, item.interquartile_mean, item.interval)
            for index, item in enumerate(block.aggregates)
            if item.interquartile_mean is not None
        ]
        if estimates:
            plots.append(Intervals(block.title, estimates, _over("interquartile mean of returns", block)))
    return plots


def profiles(table: Table) -> list[Curves]:
    """A plot for each block: the share of runs that score above a return, with its interval."""
    return [_profile(table.study, block) for block in table.blocks if block.strata]


def _profile(study: Study, block: Block) -> Curves:
    returns = [score for strata in block.strata.values() for stratum in strata for score in stratum]
    low, highest = min(0.0, *returns), max(returns)
    high = highest + max(1.0, (highest - low) / 30)  # room to see that no run scores above the best
    lines = []
    for column, strata in block.strata.items():
        # A run that scores τ does not score above τ: the share falls at each return and holds until the next.
        thresholds = np.unique([low, *(score for stratum in strata for score in stratum), high])
        shares, interval = intervals.performance_profile(strata, thresholds)
        index = study.columns.index(column)
        lines.append(Line(column, index, thresholds.tolist(), shares.tolist(), *_ends(interval)))
    label = _over("return", block)
    return Curves(block.title, lines, label, "share of runs above", y_range=(0, 1), stairs=True)


def _over(label: str, block: Block) -> str:
    """A label that names the tasks, or a robotic task's shifts, because a plot travels without the page."""
    return textwrap.fill(f"{label} ({', '.join(block.counted)})", LABEL)


def _ends(interval: tuple[np.ndarray, np.ndarray] | None) -> tuple[list[float] | None, list[float] | None]:
    return (None, None) if interval is None else (interval[0].tolist(), interval[1].tolist())


@dataclass
class Pictures:
    """The newest picture of each cell that has one, and what a page cannot show."""

    shown: list[tuple[str, str]] = field(default_factory=list)
    """Titles and data URIs."""
    too_large: int = 0
    unreadable: list[str] = field(default_factory=list)
    """Files, each with the reason."""


def _pictures(results: Results) -> Pictures:
    pictures, left = Pictures(), PICTURES_BYTES
    for task in results.study.tasks:
        for column in results.study.columns:
            newest = _newest_picture(results, task, column, pictures.unreadable)
            if newest is None:
                continue
            path, content = newest
            if len(content) > min(PICTURE_BYTES, left):
                pictures.too_large += 1
                continue
            left -= len(content)
            title = f"{column} on {task} ({path.relative_to(results.study.folder)})"
            pictures.shown.append((title, "data:image/png;base64," + base64.b64encode(content).decode()))
    return pictures


def _newest_picture(
    results: Results, task: str, column: str, unreadable: list[str]
) -> tuple[Path, bytes] | None:
    """The newest readable PNG of a cell's first seed that has one; `unreadable` gets those that are not."""
    for found in results.found_in(task, column):
        dated = []
        for path in found.run.folder.rglob("*.png"):
            if "wandb" in path.parts:
                continue
            try:
                status = path.stat()
            except OSError as error:
                unreadable.append(_refusal(results, path, error))
                continue
            if stat.S_ISREG(status.st_mode):
                dated.append((status.st_mtime, path.name, path))
        for _, _, path in sorted(dated, reverse=True):
            try:
                content = path.read_bytes()
            except OSError as error:
                unreadable.append(_refusal(results, path, error))
                continue
            if content.startswith(_PNG):
                return path, content
    return None


def _refusal(results: Results, path: Path, error: OSError) -> str:
    return f"{path.relative_to(results.study.folder)} ({error.strerror})"


def _facts(found: FoundRun) -> dict[str, str]:
    """What a run's settings and surroundings were, as longer texts by title."""
    if found.config is None:
        return {}
    facts = json.dumps(found.provenance, indent=1, default=str)
    return {"settings": "\n".join(_changes(found.config)) or "as configs/ has them", "provenance": facts}


def _changes(actual: Config) -> list[str]:
    """What a run was given on top of the packaged files for its agent, task and preset."""
    try:
        usual = load(actual.agent, actual.task, actual.preset)
    except UserError as error:
        return [str(error)]
    return [f"{key}: {there} (usually {here})" for key, here, there in differences(usual, actual)]
