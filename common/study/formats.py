"""A study's table as Markdown, CSV and LaTeX."""

import csv
import io
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from common.run.published import conditions_text, score_text
from common.study.intervals import Interval
from common.study.table import (
    PUBLISHED,
    Aggregate,
    Average,
    Block,
    Cell,
    Cost,
    Order,
    Row,
    Table,
    average_lead,
    comparisons,
    lead,
    total_costs,
)

MISSING = "-"


def markdown(table: Table) -> str:
    """For people: by block a line for each agent, the paper's score in it, and statistics; then the costs."""
    study = table.study
    notes = [note for note in table.notes if not note.startswith(PUBLISHED)]  # which heads their column
    parts = [f"# {study.name}", legend(table), *map(_escaped_star, notes)]
    for block in table.blocks:
        parts += [f"## {block.title}", _pipes(*_cell_lines(table, block)), *_lead_table(table, block)]
        parts += [_pipes(*_aggregate_lines(block, study.subject)), *counted_notes(block)]
    if table.costs:
        costs = [*table.costs, *total_costs(table.costs)]
        parts += ["## Cost", _pipes(COST_HEAD, list(map(cost_texts, costs)))]
    if table.left_out:
        lines = [f"- {found.run.name}: {found.state} ({_escaped(found.detail)})" for found in table.left_out]
        parts.append("Left out:\n\n" + "\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _cell_lines(table: Table, block: Block) -> tuple[list[str], list[list[str]]]:
    """Head and body of a block's scores: a line for each agent that the study plans for a row."""
    cells = [cell for row in block.rows for cell in row.cells]
    head = ["task" if block.title not in table.study.tasks else "shift", "agent", "ours", "seeds × episodes"]
    printed = any(cell.published for cell in cells)
    differing = any(cell.difference is not None for cell in cells)
    conditions = conditions_text(comparisons(table.study, block.rows)) if printed else ""
    head += [conditions] * printed + ["difference [sd]"] * differing
    lines = []
    for row in block.rows:
        label = row.label
        highest = best([cell.mean for cell in row.cells])
        for index, (column, cell) in enumerate(zip(table.study.columns, row.cells, strict=True)):
            if not cell.planned and not cell.returns:
                continue
            ours = ours_text(cell, block.digits, False)
            line = [label, column, f"**{ours}**" if index in highest else ours, _counts(cell)]
            line += [paper_text(cell) or MISSING] * printed + [difference_text(cell)] * differing
            lines.append(line)
            label = ""
    return head, lines


def _counts(cell: Cell) -> str:
    """`2 × 10`; seeds that differ in episodes one by one."""
    episodes = [len(returns) for returns in cell.returns]
    if len(set(episodes)) > 1:
        return " + ".join(f"1 × {count}" for count in episodes)
    return f"{len(episodes)} × {episodes[0]}" if episodes else MISSING


def _lead_table(table: Table, block: Block) -> list[str]:
    """By row the subject's lead, and how the agents' order agrees with the published; nothing if neither."""
    study = table.study
    subject = study.columns.index(study.subject)
    leads = {row.label: lead_text(lead(row, subject), block.digits) for row in block.rows}
    if block.average is not None:
        leads[block.average.label] = lead_text(average_lead(block.average, subject), block.digits)
    orders = {order.label: order_texts(order)[1:] for order in all_orders(block)}
    head = ["", f"Δ {study.subject}", *ORDER_HEAD[1:] * bool(orders)]
    none = [MISSING, "", ""] * bool(orders)
    lines = [[label, leads.get(label) or MISSING, *orders.get(label, none)] for label in {**leads, **orders}]
    return [_pipes(head, lines)] if any(leads.values()) or orders else []


def all_orders(block: Block) -> list[Order]:
    """Those of the block's rows, and their mean at the end if it has one."""
    return [*block.orders, *([] if block.mean_order is None else [block.mean_order])]


ORDER_HEAD = ["", "Kendall's τ with the paper's order", "95% interval", "agents"]
"""The titles of what `order_texts` gives."""


def order_texts(order: Order) -> list[str]:
    """Row, τ, its interval and the number of agents compared."""
    interval = _brackets(order.interval, 2) or MISSING
    return [order.label, number(order.tau, 2), interval, str(order.agents)]


def _aggregate_lines(block: Block, subject: str) -> tuple[list[str], list[list[str]]]:
    head = statistics_head(subject)
    lines = [statistics_texts(item, block.digits) for item in block.aggregates]
    average = block.average
    if average is not None:
        printed = any(mean is not None for mean in average.published)
        head[1:1] = [average.label, *["paper"] * printed]
        for index, line in enumerate(lines):
            means = [average.ours[index], *[average.published[index]] * printed]
            line[1:1] = [MISSING if mean is None else number(mean, block.digits) for mean in means]
    return head, lines


COST_HEAD = ["agent", "device", "runs", "hours"]
"""The titles of what `cost_texts` gives."""


def cost_texts(cost: Cost) -> list[str]:
    """Column, device, finished runs and their wall time."""
    return [cost.column, cost.device, str(cost.runs), f"{cost.hours:.2f}"]


def counted_notes(block: Block) -> list[str]:
    """Which rows averages and statistics are over, where some row lacks an agent; else nothing.

    The mean of τ counts such rows too, which a second note says.
    """
    tests = [row.label for row in block.rows if row.label != "train"]
    if list(block.counted) in ([row.label for row in block.rows], tests):
        return []
    counted = ", ".join(block.counted) or "no task, as each lacks an agent's runs"
    notes = [f"Averages, IQM and P are over {counted}."]
    if block.mean_order is not None:
        ordered = ", ".join(order.label for order in block.orders)
        notes.append(f"The mean of Kendall's τ is over {ordered}.")
    return notes


def latex(table: Table) -> str:
    """For papers: one booktabs table per block, and one of the costs; needs \\usepackage{booktabs}."""
    study = table.study
    parts = [f"% {_one_line(legend(table))}", *(f"% {_one_line(note)}" for note in table.notes)]
    notes = [legend(table), *(note for note in table.notes if note.startswith((PUBLISHED, "*")))]
    for block in table.blocks:
        caption = f"{study.name}, {block.title}: {' '.join([*notes, *counted_notes(block)])}"
        tabulars = [_latex_scores(table, block)]
        if block.orders:
            tabulars.append(_tabular("lrrr", ORDER_HEAD, map(order_texts, all_orders(block))))
        aggregates = (statistics_texts(item, block.digits) for item in block.aggregates)
        tabulars.append(_tabular("lrrrr", statistics_head(study.subject), aggregates))
        parts.append(_float(caption, tabulars))
    if table.costs:
        costs = [*table.costs, *total_costs(table.costs)]
        tabular = _tabular("llrr", COST_HEAD, map(cost_texts, costs))
        parts.append(_float(f"{study.name}: wall time of the finished runs.", [tabular]))
    parts += [f"% left out: {_one_line(f'{each.run.name}: {each.state}')}" for each in table.left_out]
    return "\n\n".join(parts) + "\n"


def _latex_scores(table: Table, block: Block) -> list[str]:
    study = table.study
    columns = [*map(_tex, study.columns), _tex(f"Δ {study.subject}")]
    lines = []
    for index, row in enumerate(body_rows(table, block)):
        if row.labels[0] and index:
            lines.append(r"\addlinespace")
        escaped = replace(row, texts=tuple(map(_tex, row.texts)))
        lines.append(_line([*map(_tex, row.labels), *_marked(escaped, r"\textbf{{{}}}".format)]))
    return _booktabs("ll" + "r" * len(columns), _line(["", "", *columns]), lines)


def _tabular(form: str, head: Sequence[str], body: Iterable[Sequence[str]]) -> list[str]:
    head_line, *lines = (_line(map(_tex, texts)) for texts in (head, *body))
    return _booktabs(form, head_line, lines)


def _booktabs(form: str, head: str, lines: list[str]) -> list[str]:
    start = [rf"\begin{{tabular}}{{{form}}}", r"\toprule", head, r"\midrule"]
    return [*start, *lines, r"\bottomrule", r"\end{tabular}"]


def _line(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _float(caption: str, tabulars: list[list[str]]) -> str:
    """Tables below each other with one caption."""
    start = [r"\begin{table}", r"\centering", rf"\caption{{{_tex(caption)}}}"]
    body = "\n\n\\medskip\n".join("\n".join(lines) for lines in tabulars)
    return "\n".join([*start, body, r"\end{table}"])


CSV_HEAD = (
    "task", "shift", "agent", "mean", "deviation", "seeds", "episodes_per_seed", "published_mean",
    "published_deviation", "published_source", "conditions_unmet", "difference_in_pooled_deviations", "state",
    "interquartile_mean", "interval_low", "interval_high", "subject_better", "better_low", "better_high",
)  # fmt: skip


def comma_separated(table: Table) -> str:
    """For programs: one line per cell, numbers in full; a cell without runs has state `missing`.

    A block's lines end with one per agent, without a task, that holds the statistics over the whole block.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_HEAD)
    for block in table.blocks:
        for row in block.rows:
            for column, cell in zip(table.study.columns, row.cells, strict=True):
                values = _csv_values(cell)
                writer.writerow((row.task, row.shift, column, *values, *[None] * 6))
        for item in block.aggregates:
            place = (None, block.title, item.column, *[None] * 9, "complete" if item.runs else "missing")
            writer.writerow((*place, *_csv_statistics(item)))
    return out.getvalue()


def _csv_statistics(item: Aggregate) -> tuple[object, ...]:
    none = (None, None)
    mean, beaten = (item.interquartile_mean, item.interval), (item.beaten, item.beaten_interval)
    return tuple(value for point, interval in (mean, beaten) for value in (point, *(interval or none)))


def _csv_values(cell: Cell) -> tuple[object, ...]:
    score = cell.published
    paper: tuple[object, ...] = (None, None, None, None)
    if score is not None and cell.comparison is not None:
        paper = (score.mean, score.deviation, score.source, len(cell.comparison.unmet))
    ours = (cell.mean, cell.deviation, len(cell.scores), cell.episodes)
    return (*ours, *paper, cell.difference, state(cell))


FORMATS: dict[str, Callable[[Table], str]] = {"markdown": markdown, "csv": comma_separated, "latex": latex}


def legend(table: Table) -> str:
    """What the numbers are, in one sentence."""
    seeds, episodes = common_counts(table)
    cells = [cell for block in table.blocks for row in block.rows for cell in row.cells]
    several = any(len(cell.returns) > 1 for cell in cells)
    spread = "mean ± standard deviation over seed means" if several else "mean"
    counts = " seeds × episodes beside each or in brackets."
    if seeds:
        counts = f" {plural(seeds, 'seed')} × {plural(episodes, 'episode')} in every cell."
    return f"Episode return, {spread} of each run's last evaluation;{counts}"


def plural(count: int, name: str) -> str:
    """`1 seed`, `2 seeds`."""
    return f"{count} {name}" if count == 1 else f"{count} {name}s"


def common_counts(table: Table) -> tuple[int, int]:
    """Seeds, and episodes per seed, of every cell; zeros if cells differ or there is none."""
    cells = [cell for block in table.blocks for row in block.rows for cell in row.cells if cell.scores]
    counts = {(len(cell.scores), cell.episodes) for cell in cells}
    return counts.pop() if len(counts) == 1 else (0, 0)


@dataclass(frozen=True)
class BodyRow:
    """One printed line: texts by column and Δ at the end; `best` are the indexes of the highest means."""

    labels: tuple[str, str]
    texts: tuple[str, ...]
    best: frozenset[int] = frozenset()


def body_rows(table: Table, block: Block) -> list[BodyRow]:
    """A block's lines: per row ours, then the paper's and the difference if there are any; averages last."""
    subject = table.study.columns.index(table.study.subject)
    counted = not common_counts(table)[0]
    lines = []
    for row in block.rows:
        texts = [ours_text(cell, block.digits, counted) for cell in row.cells]
        ahead = lead_text(lead(row, subject), block.digits)
        highest = best([cell.mean for cell in row.cells])
        lines.append(BodyRow((row.label, "ours"), (*texts, ahead), highest))
        if any(cell.published for cell in row.cells):
            lines += _published_rows(row)
    if block.average is not None:
        lines += _average_rows(block.average, block.digits, subject)
    return lines


def _published_rows(row: Row) -> list[BodyRow]:
    lines = [BodyRow(("", "paper"), (*map(paper_text, row.cells), ""))]
    if any(cell.difference is not None for cell in row.cells):
        lines.append(BodyRow(("", "difference [sd]"), (*map(difference_text, row.cells), "")))
    return lines


def _average_rows(average: Average, digits: int, subject: int) -> list[BodyRow]:
    texts = [MISSING if mean is None else number(mean, digits) for mean in average.ours]
    ahead = lead_text(average_lead(average, subject), digits)
    lines = [BodyRow((average.label, "ours"), (*texts, ahead), best(average.ours))]
    if any(mean is not None for mean in average.published):
        paper = ["" if mean is None else number(mean, digits) for mean in average.published]
        lines.append(BodyRow(("", "paper"), (*paper, "")))
    return lines


def best(means: Sequence[float | None]) -> frozenset[int]:
    """Indexes of the highest mean, if there is something to compare it with."""
    known = [mean for mean in means if mean is not None]
    return frozenset(i for i, mean in enumerate(means) if len(known) > 1 and mean == max(known))


def ours_text(cell: Cell, digits: int, counted: bool) -> str:
    """`812 ± 51`, with `(4×5)` for seeds × episodes if asked for; `-` without a run."""
    if cell.mean is None:
        return MISSING
    text = number(cell.mean, digits)
    if cell.deviation is not None:
        text += f" ± {number(cell.deviation, digits)}"
    return f"{text} ({len(cell.scores)}×{cell.episodes})" if counted else text


def paper_text(cell: Cell) -> str:
    """The published score as printed, with `*` if ours do not meet its conditions; empty if there is none."""
    score = cell.published
    return "" if score is None else score_text(score) + ("" if cell.meets_conditions else "*")


def difference_text(cell: Cell) -> str:
    """Ours minus the paper's in pooled standard deviations."""
    return "" if cell.difference is None else f"{cell.difference:+.1f}".replace("-", "−")


def lead_text(found: tuple[float, float | None] | None, digits: int) -> str:
    """`+120 (+15%)`; empty where cells are missing."""
    if found is None:
        return ""
    difference, percent = found
    text = f"{difference:+.{digits}f}" + ("" if percent is None else f" ({percent:+.0f}%)")
    return text.replace("-", "−")


def statistics_head(subject: str) -> list[str]:
    """The titles of what `statistics_texts` gives."""
    return ["", "IQM", "95% interval", "runs", f"P({subject} better)"]


def statistics_texts(item: Aggregate, digits: int) -> list[str]:
    """Column, interquartile mean, its interval, runs and the probability that the subject beats it."""
    if item.interquartile_mean is None:
        return [item.column, MISSING, "", "", ""]
    beaten = "" if item.beaten is None else f"{item.beaten:.2f}{_brackets(item.beaten_interval, 2, ' ')}"
    interval = _brackets(item.interval, digits) or "needs 2 seeds"
    return [item.column, number(item.interquartile_mean, digits), interval, str(item.runs), beaten]


def state(cell: Cell) -> str:
    """`complete`, `missing`, `not planned` or how many seeds there are."""
    if not cell.returns:
        return "missing" if cell.planned else "not planned"
    if len(cell.returns) == cell.planned:
        return "complete"
    return f"{len(cell.returns)} of {plural(cell.planned, 'seed')}"


def number(value: float, digits: int) -> str:
    """With a minus sign proper, and no minus zero."""
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def _brackets(interval: Interval | None, digits: int, before: str = "") -> str:
    return (
        "" if interval is None else f"{before}[{number(interval[0], digits)}, {number(interval[1], digits)}]"
    )


def _marked(row: BodyRow, mark: Callable[[str], str]) -> list[str]:
    return [mark(text) if index in row.best else text for index, text in enumerate(row.texts)]


def _pipes(head: list[str], body: list[list[str]]) -> str:
    rows = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(map(_escaped_cell, cells)) + " |" for cells in rows)


def _escaped_cell(text: str) -> str:
    return text.replace("|", r"\|")


def _escaped_star(text: str) -> str:
    return rf"\{text}" if text.startswith("*") else text  # which would begin a list


def _escaped(text: str) -> str:
    return _one_line(text).replace("<", "&lt;")


def _one_line(text: str) -> str:
    return " ".join(text.split())


_TEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "×": r"$\times$",
    "±": r"$\pm$",
    "−": r"$-$",
    "Δ": r"$\Delta$",
    "τ": r"$\tau$",
}


def _tex(text: str) -> str:
    return re.sub(r"[\\~^×±−Δτ#$%&_{}]", lambda found: _TEX.get(found[0], "\\" + found[0]), text)
