"""A study as one HTML page that needs nothing but itself: no network, no other file."""

import base64
import json
import math
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from common.config import loading as config
from common.errors import UserError
from common.report.charts import Line, chart, colour_class
from common.report.markup import Html, join, tag
from common.study import formats, statistics
from common.study.definition import Study
from common.study.folders import FoundRun, State, differences
from common.study.results import Results
from common.study.table import Aggregate, Average, Block, Cell, Row, Table, average_lead, lead

STYLE, SCRIPT = (Path(__file__).with_name(name) for name in ("page.css", "page.js"))
PICTURE_BYTES = 600_000
"""Larger pictures are named, not shown."""
PICTURES_BYTES = 12_000_000
"""All pictures of a page together."""
_PNG = b"\x89PNG\r\n\x1a\n"
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def page(results: Results, table: Table) -> str:
    """The report of a study's results."""
    study = results.study
    sections = [
        ("scores", "Scores", _scores(table)),
        ("curves", "Learning curves", _curves(results)),
        ("profiles", "Performance profiles", _profiles(table)),
        ("pictures", "Pictures", _pictures(results)),
        ("runs", "Runs", _runs(results)),
    ]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("title", f"{study.name}: report"),
        tag("style", Html(STYLE.read_text(encoding="utf-8"))),
    )
    body = tag(
        "body",
        tag("h1", study.name),
        tag("p", _overview(results), class_="soft"),
        tag("nav", *(tag("a", title, href=f"#{name}") for name, title, _ in sections)),
        *(tag("section", tag("h2", title), content, id=name) for name, title, content in sections),
        tag("script", Html(SCRIPT.read_text(encoding="utf-8"))),
    )
    return "<!doctype html>\n" + tag("html", head, body, lang="en") + "\n"


def _overview(results: Results) -> str:
    study = results.study
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return (
        f"{len(results.done)} of {len(results.readings)} runs are done: {len(study.tasks)} tasks × "
        f"{len(study.columns)} agents × {len(study.seeds)} seeds. Made {made}."
    )


# Scores


def _scores(table: Table) -> Html:
    parts = [tag("p", formats.legend(table)), *(tag("p", note) for note in table.notes)]
    for block in table.blocks:
        parts += [tag("h3", block.title), _block(table, block)]
        parts.append(_statistics(table.study.subject, block))
    parts.append(
        tag(
            "p",
            "IQM: mean of the middle half of all runs; intervals: 95%, stratified bootstrap over runs within "
            f"tasks; P: probability that a run of {table.study.subject} scores above one of that agent on "
            "the same task (Agarwal et al., 2021).",
            class_="soft",
        )
    )
    return join(*parts)


def _block(table: Table, block: Block) -> Html:
    study = table.study
    subject = study.columns.index(study.subject)
    head = _header(["", *study.columns, f"Δ {study.subject}"])
    rows = [_row(table, block, row, subject) for row in block.rows]
    foot = [] if block.average is None else [tag("tfoot", _average(block.average, block.digits, subject))]
    return _table(head, tag("tbody", *rows), *foot)


def _row(table: Table, block: Block, row: Row, subject: int) -> Html:
    counted = not formats.common_counts(table)[0]
    best = formats.best([cell.mean for cell in row.cells])
    cells = [_cell(cell, block.digits, counted, index in best) for index, cell in enumerate(row.cells)]
    ahead = lead(row, subject)
    value = "" if ahead is None else ahead[0]
    delta = tag("td", formats.lead_text(ahead, block.digits), data_value=value)
    return tag("tr", tag("td", row.label), *cells, delta)


def _cell(cell: Cell, digits: int, counted: bool, best: bool) -> Html:
    lines: list[str] = [formats.ours_text(cell, digits, counted)]
    if cell.published is not None:
        difference = formats.difference_text(cell)
        lines.append(tag("small", f"paper {formats.paper_text(cell)}"))
        lines += [tag("small", f"{difference} sd")] if difference else []
    value = "" if cell.mean is None else cell.mean
    return tag("td", *lines, data_value=value, class_="best" if best else None)


def _average(average: Average, digits: int, subject: int) -> Html:
    cells = []
    for ours, paper in zip(average.ours, average.published, strict=True):
        text = formats.MISSING if ours is None else formats.number(ours, digits)
        below = [] if paper is None else [tag("small", f"paper {formats.number(paper, digits)}")]
        cells.append(tag("td", text, *below))
    delta = tag("td", formats.lead_text(average_lead(average, subject), digits))
    return tag("tr", tag("td", average.label), *cells, delta, class_="average")


def _statistics(subject: str, block: Block) -> Html:
    head = _header(formats.statistics_head(subject))
    rows = [tag("tr", *_statistics_cells(item, block.digits)) for item in block.aggregates]
    return _table(head, tag("tbody", *rows))


def _statistics_cells(item: Aggregate, digits: int) -> Iterator[Html]:
    texts = formats.statistics_texts(item, digits)
    mean = "" if item.interquartile_mean is None else item.interquartile_mean
    values = [None, mean, None, item.runs, "" if item.beaten is None else item.beaten]
    for text, value in zip(texts, values, strict=True):
        yield tag("td", text, data_value=value)


# Charts


def _curves(results: Results) -> Html:
    study = results.study
    charts = []
    for task in study.tasks:
        for shift in _shifts(results, task):
            lines = [
                line for index in range(len(study.columns)) if (line := _curve(results, task, shift, index))
            ]
            if lines:
                charts.append(chart(f"{task}, {shift}", lines, "agent steps"))
    if not charts:
        return tag("p", "No evaluation yet.")
    explained = (
        "Mean return over seeds at each evaluation, with its 95% bootstrap interval over seeds where there "
        "are two or more. Finished runs only, except for agents that have none."
    )
    return join(tag("p", explained), _legend(study), tag("div", *charts, class_="charts"))


def _shifts(results: Results, task: str) -> Iterable[str]:
    """The shifts that a task's runs are evaluated under: the table's first."""
    run = next(run for run in results.study.runs if run.task == task)
    found = [reading.config for reading in results.readings if reading.run.task == task and reading.config]
    evaluated = dict.fromkeys(shift for one in found or [run.config] for shift in one.eval.shifts)
    return dict.fromkeys((*results.study.shifts, *evaluated))


def _curve(results: Results, task: str, shift: str, index: int) -> Line | None:
    column = results.study.columns[index]
    runs = results.of(task, column) or [
        reading for reading in results.readings if (reading.run.task, reading.run.column) == (task, column)
    ]
    curves = [dict(evaluations) for reading in runs if (evaluations := reading.evaluations(shift))]
    steps = sorted(set.intersection(*map(set, curves))) if curves else []
    if not steps:
        return None
    values = np.array([[curve[step] for step in steps] for curve in curves])
    low, high = statistics.mean_interval(values) or (None, None)
    return Line(
        column, index, steps, values.mean(axis=0).tolist(),
        None if low is None else low.tolist(), None if high is None else high.tolist(),
    )  # fmt: skip


def _profiles(table: Table) -> Html:
    charts = [_profile(table.study, block) for block in table.blocks if block.strata]
    if not charts:
        return tag("p", "No agent has finished runs on every task yet.")
    explained = (
        "Share of runs that score above a return, averaged over tasks, with its 95% interval; agents with "
        "finished runs on every task."
    )
    return join(tag("p", explained), _legend(table.study), tag("div", *charts, class_="charts"))


def _profile(study: Study, block: Block) -> Html:
    scores = [score for strata in block.strata.values() for stratum in strata for score in stratum]
    low, high = math.floor(min(0.0, *scores)), math.ceil(max(scores)) + 1
    thresholds = np.linspace(low, high, 121)
    lines = []
    for column, strata in block.strata.items():
        shares, interval = statistics.performance_profile(strata, thresholds)
        ends = (None, None) if interval is None else (interval[0].tolist(), interval[1].tolist())
        lines.append(Line(column, study.columns.index(column), thresholds.tolist(), shares.tolist(), *ends))
    return chart(block.title, lines, "return", y_range=(0, 1))


def _legend(study: Study) -> Html:
    entries = [
        tag(
            "li",
            tag(
                "button", column, type="button", aria_pressed="true", data_line=column, class_=colour_class(i)
            ),
        )
        for i, column in enumerate(study.columns)
    ]
    return tag("ul", *entries, class_="legend", aria_label="Show or hide agents")


# Pictures


def _pictures(results: Results) -> Html:
    figures: list[Html] = []
    too_large = 0
    left = PICTURES_BYTES
    for task in results.study.tasks:
        for column in results.study.columns:
            path = _newest_picture(results, task, column)
            if path is None:
                continue
            content = path.read_bytes()
            if len(content) > min(PICTURE_BYTES, left):
                too_large += 1
                continue
            left -= len(content)
            source = "data:image/png;base64," + base64.b64encode(content).decode()
            place = path.relative_to(results.study.folder)
            image = tag("img", src=source, alt=f"{column} on {task}", loading="lazy")
            figures.append(tag("figure", tag("figcaption", f"{column} on {task} ({place})"), image))
    if too_large:
        figures.append(tag("p", f"{too_large} pictures are too large for this page; see the run folders."))
    return join(*figures) if figures else tag("p", "The run folders hold no pictures.")


def _newest_picture(results: Results, task: str, column: str) -> Path | None:
    """The newest PNG of a cell's first seed that has one."""
    for reading in results.readings:
        if (reading.run.task, reading.run.column) == (task, column):
            found = [
                path
                for path in reading.run.folder.rglob("*.png")
                if "wandb" not in path.parts and _is_png(path)
            ]
            if found:
                return max(found, key=lambda path: (path.stat().st_mtime, path.name))
    return None


def _is_png(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_PNG)) == _PNG


# Runs


def _runs(results: Results) -> Html:
    head = _header(["run", "state", "steps", "hours", "device", "commit", "details"])
    return _table(head, tag("tbody", *map(_run, results.readings)), class_="words")


def _run(reading: FoundRun) -> Html:
    hours = None if reading.seconds is None else reading.seconds / 3600
    commit = str(reading.provenance.get("git_commit") or "")
    details = [tag("small", reading.detail)] if reading.detail and reading.state is not State.RUNNING else []
    if reading.config is not None:
        changed = "\n".join(_changes(reading)) or "as configs/ has them"
        facts = json.dumps(reading.provenance, indent=1, default=str)
        details.append(tag("details", tag("summary", "settings"), tag("pre", changed)))
        details.append(tag("details", tag("summary", "provenance"), tag("pre", facts)))
    return tag(
        "tr",
        tag("td", reading.run.name),
        tag("td", str(reading.state)),
        tag("td", f"{reading.step:,}", data_value=reading.step),
        tag("td", "" if hours is None else f"{hours:.2f}", data_value="" if hours is None else hours),
        tag("td", str(reading.provenance.get("device", ""))),
        tag("td", commit[:10] + ("-dirty" if commit.endswith("-dirty") else ""), title=commit),
        tag("td", *(details or [""]), class_="detail"),
    )


def _changes(reading: FoundRun) -> list[str]:
    """What a run was given on top of the packaged files for its agent, task and preset."""
    found = reading.config
    assert found is not None
    try:
        usual = config.load(found.agent, found.task, found.preset)
    except UserError as error:
        return [str(error)]
    return [f"{key}: {there} (usually {here})" for key, here, there in differences(usual, found)]


# Tables


def _header(titles: list[str]) -> Html:
    return tag(
        "thead", tag("tr", *(tag("th", tag("button", title or "name", type="button")) for title in titles))
    )


def _table(*parts: Html, class_: str | None = None) -> Html:
    return tag("div", tag("table", *parts, class_=class_), class_="scroll", tabindex=0)
