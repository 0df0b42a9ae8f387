"""A study's table: our scores, the published ones beside them, and statistics over few seeds."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from common.config.shifts import ROBOT_TASKS, whole_groups
from common.run.published import Cells, Comparison, Score, compared, conditions_text, unmet_text
from common.study import intervals
from common.study.definition import Study
from common.study.folders import FoundRun
from common.study.intervals import Interval, Ranked
from common.study.results import Results


@dataclass(frozen=True)
class Cell:
    """One agent on one task under one shift: what each seed's last evaluation returned, by episode.

    `planned` is the number of seeds that the study asks for; 0 for a cell that it leaves out.
    """

    task: str
    returns: tuple[tuple[float, ...], ...]
    planned: int
    comparison: Comparison | None

    @property
    def scores(self) -> tuple[float, ...]:
        """The mean return of each seed."""
        return tuple(map(statistics.fmean, self.returns))

    @property
    def episodes(self) -> int | None:
        """Episodes per seed; None if seeds differ or there is none."""
        counts = set(map(len, self.returns))
        return counts.pop() if len(counts) == 1 else None

    @property
    def mean(self) -> float | None:
        """Mean over seeds; None if there is none."""
        return statistics.fmean(self.scores) if self.returns else None

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation over seeds; None for fewer than two."""
        return intervals.standard_deviation(self.scores)

    @property
    def published(self) -> Score | None:
        """The printed score of the cell's method, whether or not our runs meet its conditions."""
        return self.comparison.score if self.comparison else None

    @property
    def meets_conditions(self) -> bool:
        """Whether our runs meet all conditions of the published score."""
        return self.comparison is not None and not self.comparison.unmet

    @property
    def difference(self) -> float | None:
        """Ours minus the published mean in pooled standard deviations.

        None where that cannot be computed, or where the two do not measure the same: our runs do not meet the
        published one's conditions, or the task is a robotic one, whose arm is another.
        """
        score = self.published
        if not self.meets_conditions or self.task in ROBOT_TASKS or not self.scores:
            return None
        if score is None or not score.usable or score.deviation is None or not score.seeds:
            return None
        return intervals.difference_in_pooled_deviations(
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
    """Means of cells above, by column; None where a cell is missing."""

    label: str
    ours: tuple[float | None, ...]
    published: tuple[float | None, ...]


@dataclass(frozen=True)
class Aggregate:
    """One column over the rows of a block that count; None where a cell is missing.

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
class Order:
    """How well the order of the agents agrees with the published one: Kendall's τ with its 95% interval.

    `agents` is how many are compared, the fewest and the most: of a mean, tasks may differ in it.
    """

    label: str
    agents: tuple[int, int]
    tau: float
    interval: Interval | None


@dataclass(frozen=True)
class Block:
    """Rows that belong together: a shift's tasks, also of the mean of several, or a robotic task's shifts.

    `average` and `aggregates` are of the rows whose labels are in `counted`, on which no agent lacks runs;
    `mean_order` is of all `orders`, for which two agents with runs suffice.
    """

    title: str
    digits: int
    rows: tuple[Row, ...]
    counted: tuple[str, ...]
    average: Average | None
    aggregates: tuple[Aggregate, ...]
    orders: tuple[Order, ...]
    mean_order: Order | None
    strata: dict[str, list[list[float]]]
    """By column, the scores of its runs by task, for profiles; complete columns only."""


@dataclass(frozen=True)
class Cost:
    """What the finished runs of a column took on one device, or on several in turn, as wall time."""

    column: str
    device: str
    runs: int
    hours: float


@dataclass(frozen=True)
class Table:
    """Everything that the formats show."""

    study: Study
    blocks: tuple[Block, ...]
    costs: tuple[Cost, ...]
    notes: tuple[str, ...]
    left_out: tuple[FoundRun, ...]


def build(results: Results) -> Table:
    """The table of a study's finished runs."""
    study = results.study
    suite = [task for task in study.tasks if task not in ROBOT_TASKS]
    blocks = []
    if suite:
        blocks += [_suite_block(results, shift, (shift,), suite) for shift in study.shifts]
        kinds = whole_groups(study.shifts)
        blocks += [_suite_block(results, f"{name} mean", members, suite) for name, members in kinds.items()]
    blocks += [_robot_block(results, task) for task in study.tasks if task in ROBOT_TASKS]
    notes = [*results.notes, *_published_notes(study, [row for block in blocks for row in block.rows])]
    return Table(study, tuple(blocks), _costs(results), tuple(notes), tuple(results.left_out))


PUBLISHED = "Published scores: "
"""What the note on their conditions begins with."""


def comparisons(study: Study, rows: Sequence[Row]) -> Cells:
    """The published scores in some rows."""
    return {
        (row.task, column, row.shift): cell.comparison
        for row in rows
        for column, cell in zip(study.columns, row.cells, strict=True)
        if cell.comparison is not None
    }


def _published_notes(study: Study, rows: list[Row]) -> list[str]:
    """Under which conditions the published scores were made, and which of them ours do not meet."""
    cells = comparisons(study, rows)
    if not cells:
        return []
    unmet = unmet_text(cells)
    starred = f"* Published of other settings than ours, so not compared in numbers: {unmet}."
    return [f"{PUBLISHED}{conditions_text(cells)}.", *([starred] if unmet else [])]


def total_costs(costs: Sequence[Cost]) -> list[Cost]:
    """What all columns together took on each device; `all` stands for the column."""
    devices: dict[str, list[Cost]] = {}
    for cost in costs:
        devices.setdefault(cost.device, []).append(cost)
    return [
        Cost("all", device, sum(cost.runs for cost in own), math.fsum(cost.hours for cost in own))
        for device, own in devices.items()
    ]


Lead = tuple[float, float | None]
"""How far the subject's mean lies above the best of the other columns, also in percent of that one.

There is no percentage of a mean below or at zero.
"""


def lead(row: Row, subject: int) -> Lead | None:
    """The lead of the column with index `subject`; None if a planned cell is missing or there is no other."""
    others = [cell.mean for index, cell in enumerate(row.cells) if cell.planned and index != subject]
    return _lead(row.cells[subject].mean, others)


def average_lead(average: Average, subject: int) -> Lead | None:
    """The same of averages."""
    return _lead(average.ours[subject], [*average.ours[:subject], *average.ours[subject + 1 :]])


def _lead(own: float | None, others: Sequence[float | None]) -> Lead | None:
    known = [mean for mean in others if mean is not None]
    if own is None or not known or len(known) < len(others):
        return None
    difference = own - max(known)
    return difference, 100 * difference / max(known) if max(known) > 0 else None


def _suite_block(results: Results, title: str, shifts: tuple[str, ...], tasks: list[str]) -> Block:
    study = results.study
    rows = [_row(results, task, title, shifts, task) for task in tasks]
    begun = [index for index in range(len(study.columns)) if any(row.cells[index].returns for row in rows)]
    # A task that an agent lacks would count for some agents only.
    counted = [row for row in rows if begun and all(row.cells[index].returns for index in begun)]
    strata = {
        study.columns[index]: [list(row.cells[index].scores) for row in counted] for index in begun if counted
    }
    return Block(
        title=title,
        digits=0,
        rows=tuple(rows),
        counted=tuple(row.label for row in counted),
        average=_average("average", counted) if len(counted) > 1 else None,
        aggregates=_aggregates(study, strata),
        orders=_orders(rows),
        mean_order=_mean_order(rows),
        strata=strata,
    )


def _robot_block(results: Results, task: str) -> Block:
    study = results.study
    rows = [_row(results, task, shift, (shift,), shift) for shift in study.shifts]
    tests = [row for row in rows if row.shift != "train"]
    means = {column: _means_over(results, task, column, tests) for column in study.columns}
    strata = {column: [scores] for column, scores in means.items() if scores}
    return Block(
        title=task,
        digits=1,
        rows=tuple(rows),
        counted=tuple(row.label for row in tests),
        average=_average("average of tests", tests) if len(tests) > 1 else None,
        aggregates=_aggregates(study, strata),
        orders=_orders(rows),
        # The shifts of one run are no independent runs, so their τ has no mean with an interval.
        mean_order=None,
        strata=strata,
    )


def _row(results: Results, task: str, name: str, shifts: tuple[str, ...], label: str) -> Row:
    """The cells of a task under shifts; of several, a seed's k-th return is its k-th episodes' mean."""
    cells = []
    for column in results.study.columns:
        evaluated = [
            found for found in results.done_in(task, column) if all(map(found.final_returns, shifts))
        ]
        cells.append(
            Cell(
                task,
                tuple(_mean_returns(found, shifts) for found in evaluated),
                len(results.study.seeds_of(task, column)),
                _comparison(results, evaluated, task, column, name),
            )
        )
    return Row(task, name, label, tuple(cells))


def _mean_returns(found: FoundRun, shifts: tuple[str, ...]) -> tuple[float, ...]:
    return tuple(map(statistics.fmean, zip(*map(found.final_returns, shifts), strict=True)))


def _comparison(
    results: Results, found_runs: list[FoundRun], task: str, column: str, shift: str
) -> Comparison | None:
    """The published score of a cell, with all that a run of it, or the planned one, does not meet."""
    published_name = results.study.published
    if published_name is None:
        return None
    each = [
        compared(found.config, shift, published_name, column, found.sessions, found.earlier_settings)
        for found in found_runs
        if found.config
    ]
    if not each:
        planned = [run.config for run in results.study.runs if (run.task, run.column) == (task, column)]
        each = [compared(config, shift, published_name, column) for config in planned[:1]]
    known = [comparison for comparison in each if comparison is not None]
    return max(known, key=lambda comparison: len(comparison.unmet)) if len(known) == len(each) > 0 else None


def _means_over(results: Results, task: str, column: str, rows: list[Row]) -> list[float]:
    """Each run's mean over several shifts: the shifts of one run are no independent runs."""
    means = []
    for found in results.done_in(task, column):
        scores = [statistics.fmean(returns) for row in rows if (returns := found.final_returns(row.shift))]
        if scores and len(scores) == len(rows):
            means.append(statistics.fmean(scores))
    return means


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


def _aggregates(study: Study, strata: dict[str, list[list[float]]]) -> tuple[Aggregate, ...]:
    return tuple(_aggregate(column, strata, study.subject) for column in study.columns)


def _aggregate(column: str, strata: dict[str, list[list[float]]], subject: str) -> Aggregate:
    scores = strata.get(column)
    if scores is None:
        return Aggregate(column, 0, None, None, None, None)
    point, interval = intervals.aggregate(scores)
    beaten = beaten_interval = None
    if subject in strata and column != subject:
        beaten, beaten_interval = intervals.probability_of_improvement(strata[subject], scores)
    return Aggregate(column, sum(map(len, scores)), point, interval, beaten, beaten_interval)


def _orders(rows: list[Row]) -> tuple[Order, ...]:
    return tuple(_order(row.label, [found]) for row in rows if (found := _ranked(row)) is not None)


def _mean_order(rows: list[Row]) -> Order | None:
    """Over all rows that have an order, if these are several."""
    ranked = [found for row in rows if (found := _ranked(row)) is not None]
    return _order("mean", ranked) if len(ranked) > 1 else None


def _order(label: str, ranked: list[Ranked]) -> Order:
    agents = [len(found.printed) for found in ranked]
    return Order(label, (min(agents), max(agents)), *intervals.rank_correlation(ranked))


def _ranked(row: Row) -> Ranked | None:
    """The agents of a row that have both scores; None for fewer than two."""
    both = [(cell.returns, cell.published.mean) for cell in row.cells if cell.returns and cell.published]
    if len(both) < 2:
        return None
    return Ranked([returns for returns, _ in both], [mean for _, mean in both])


def _costs(results: Results) -> tuple[Cost, ...]:
    seconds: dict[tuple[str, str], list[float]] = {}
    for found in results.done:
        if found.seconds is not None:
            devices = dict.fromkeys(str(each.get("device", "unknown")) for each in found.sessions)
            seconds.setdefault((found.run.column, " and ".join(devices)), []).append(found.seconds)
    return tuple(
        Cost(column, device, len(taken), math.fsum(taken) / 3600)
        for name in results.study.columns
        for (column, device), taken in seconds.items()
        if column == name
    )
