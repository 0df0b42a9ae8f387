"""A study's table: our scores, the published ones beside them, and statistics over few seeds."""

import math
import statistics as standard
from collections.abc import Sequence
from dataclasses import dataclass

from common.config.shifts import ROBOT_TASKS
from common.run.published import Score, printed
from common.study import statistics
from common.study.definition import Study
from common.study.folders import FoundRun
from common.study.results import Results
from common.study.statistics import Interval


@dataclass(frozen=True)
class Cell:
    """One agent on one task under one shift: the mean return of each seed's last evaluation."""

    scores: tuple[float, ...]
    episodes: int
    """Per seed."""
    published: Score | None

    @property
    def mean(self) -> float | None:
        """Mean over seeds; None if there is none."""
        return standard.fmean(self.scores) if self.scores else None

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation over seeds; None for fewer than two."""
        return statistics.standard_deviation(self.scores)

    @property
    def difference(self) -> float | None:
        """Ours minus the published mean in pooled standard deviations, where that can be computed."""
        score = self.published
        if not self.scores or score is None or not score.usable or score.deviation is None or not score.seeds:
            return None
        return statistics.difference_in_pooled_deviations(
            self.scores, score.mean, score.deviation, score.seeds
        )


@dataclass(frozen=True)
class Row:
    """The cells of one task under one shift, by column."""

    task: str
    shift: str
    label: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Average:
    """Means of the cells above, by column; None where a cell is missing."""

    label: str
    ours: tuple[float | None, ...]
    published: tuple[float | None, ...]


@dataclass(frozen=True)
class Aggregate:
    """One column over the whole block; None where a cell is missing.

    `interquartile_mean` has a 95% interval; `beaten` is the probability that a run of the subject beats one
    of this column, with its own.
    """

    column: str
    runs: int
    interquartile_mean: float | None
    interval: Interval | None
    beaten: float | None
    beaten_interval: Interval | None


@dataclass(frozen=True)
class Block:
    """Rows that belong together: a shift's tasks, or a robotic task's shifts."""

    title: str
    digits: int
    rows: tuple[Row, ...]
    average: Average | None
    aggregates: tuple[Aggregate, ...]
    strata: dict[str, list[list[float]]]
    """By column, the scores of its runs by task, for profiles; complete columns only."""


@dataclass(frozen=True)
class Table:
    """Everything that the formats show."""

    study: Study
    blocks: tuple[Block, ...]
    notes: tuple[str, ...]
    left_out: tuple[FoundRun, ...]


def build(results: Results) -> Table:
    """The table of a study's finished runs."""
    study = results.study
    suite = [task for task in study.tasks if task not in ROBOT_TASKS]
    blocks = []
    for shift in study.shifts:
        if suite:
            rows = [_row(results, task, shift, task) for task in suite]
            strata = {
                column: [list(row.cells[index].scores) for row in rows]
                for index, column in enumerate(study.columns)
            }
            blocks.append(_block(study, shift, 0, rows, rows, "average", strata))
    for task in study.tasks:
        if task in ROBOT_TASKS:
            rows = [_row(results, task, shift, shift) for shift in study.shifts]
            tests = [row for row in rows if row.shift != "train"]
            strata = {column: [_means_over(results, task, column, tests)] for column in study.columns}
            blocks.append(_block(study, task, 1, rows, tests, "average of tests", strata))
    return Table(study, tuple(blocks), results.notes, tuple(results.left_out))


def lead(row: Row, subject: int) -> tuple[float, float | None] | None:
    """How far the subject's mean lies above the best of the other columns, also in percent of that one.

    None if a cell is missing or there is no other column; no percentage of a mean that is not positive.
    """
    return _lead([cell.mean for cell in row.cells], subject)


def average_lead(average: Average, subject: int) -> tuple[float, float | None] | None:
    """The same of averages."""
    return _lead(average.ours, subject)


def _lead(means: Sequence[float | None], subject: int) -> tuple[float, float | None] | None:
    known = [mean for mean in means if mean is not None]
    if len(known) < len(means) or len(known) < 2:
        return None
    best = max(mean for index, mean in enumerate(known) if index != subject)
    difference = known[subject] - best
    return difference, 100 * difference / best if best > 0 else None


def _row(results: Results, task: str, shift: str, label: str) -> Row:
    cells = []
    for column in results.study.columns:
        returns = [reading.final_returns(shift) for reading in results.of(task, column)]
        returns = [episodes for episodes in returns if episodes]
        table = results.study.published
        cells.append(
            Cell(
                tuple(map(standard.fmean, returns)),
                max(map(len, returns), default=0),
                printed(table, column, task, shift) if table else None,
            )
        )
    return Row(task, shift, label, tuple(cells))


def _means_over(results: Results, task: str, column: str, rows: list[Row]) -> list[float]:
    """Each run's mean over several shifts: the shifts of one run are no independent runs."""
    means = []
    for reading in results.of(task, column):
        scores = [standard.fmean(returns) for row in rows if (returns := reading.final_returns(row.shift))]
        if scores and len(scores) == len(rows):
            means.append(standard.fmean(scores))
    return means


def _block(
    study: Study, title: str, digits: int, rows: list[Row], averaged: list[Row], label: str,
    strata: dict[str, list[list[float]]],
) -> Block:  # fmt: skip
    complete = {column: scores for column, scores in strata.items() if scores and all(scores)}
    average = _average(label, averaged) if len(averaged) > 1 else None
    aggregates = tuple(_aggregate(column, complete, study.subject) for column in study.columns)
    return Block(title, digits, tuple(rows), average, aggregates, complete)


def _average(label: str, rows: list[Row]) -> Average:
    columns = list(zip(*(row.cells for row in rows), strict=True))
    ours = [_mean([cell.mean for cell in cells]) for cells in columns]
    published = [
        _mean([cell.published.mean if cell.published else None for cell in cells]) for cells in columns
    ]
    return Average(label, tuple(ours), tuple(published))


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if len(known) == len(values) else None


def _aggregate(column: str, strata: dict[str, list[list[float]]], subject: str) -> Aggregate:
    scores = strata.get(column)
    if scores is None:
        return Aggregate(column, 0, None, None, None, None)
    point, interval = statistics.aggregate(scores)
    beaten = beaten_interval = None
    if subject in strata and column != subject:
        beaten, beaten_interval = statistics.probability_of_improvement(strata[subject], scores)
    return Aggregate(column, sum(map(len, scores)), point, interval, beaten, beaten_interval)
