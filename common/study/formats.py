"""A study's table as Markdown, LaTeX and CSV, one after the other; the HTML is report.py and report.html.

What these formats say alike is in texts.py.
"""

import csv
import io
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from common.run.published import conditions_text
from common.study.table import (
    PUBLISHED,
    Aggregate,
    Average,
    Block,
    Cell,
    Row,
    Table,
    average_lead,
    comparisons,
    lead,
    total_costs,
)
from common.study.texts import (
    COST_HEAD,
    MISSING,
    ORDER_HEAD,
    aggregate_head,
    aggregate_texts,
    all_orders,
    best,
    block_notes,
    common_counts,
    cost_texts,
    counts_all,
    counts_text,
    difference_text,
    lead_text,
    left_out_notes,
    legend,
    mean_text,
    number,
    order_texts,
    ours_text,
    paper_text,
    plural,
)


def markdown(table: Table) -> str:
    """For people: by block a line for each agent, the paper's score in it, and statistics; then the costs."""
    study = table.study
    notes = [note for note in table.notes if not note.startswith(PUBLISHED)]  # which heads their column
    parts = [f"# {study.name}", legend(table), *map(_escaped_star, notes)]
    for block in table.blocks:
        parts += [f"## {block.title}", _pipes(*_cell_lines(table, block)), *_lead_table(table, block)]
        parts += [_pipes(*_aggregate_lines(block, study.subject)), *block_notes(block)]
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
    printed = any(cell.published for cell in cells)
    differing = any(cell.difference is not None for cell in cells)
    head = ["task" if block.title not in table.study.tasks else "shift", "agent", "ours", "seeds × episodes"]
    if printed:
        head.append(conditions_text(comparisons(table.study, block.rows)))
    if differing:
        head.append("difference [sd]")
    lines = []
    for row in block.rows:
        label = row.label
        highest = best([cell.mean for cell in row.cells])
        for index, (column, cell) in enumerate(zip(table.study.columns, row.cells, strict=True)):
            if not cell.planned and not cell.returns:
                continue
            ours = ours_text(cell, block.digits, counted=False)
            line = [label, column, f"**{ours}**" if index in highest else ours, counts_text(cell, " × ")]
            if printed:
                line.append(paper_text(cell) or MISSING)
            if differing:
                line.append(difference_text(cell))
            lines.append(line)
            label = ""
    return head, lines


def _lead_table(table: Table, block: Block) -> list[str]:
    """By row the subject's lead, and how the agents' order agrees with the published; nothing if neither."""
    study = table.study
    subject = study.columns.index(study.subject)
    leads = {row.label: lead_text(lead(row, subject), block.digits) for row in block.rows}
    if block.average is not None:
        leads[block.average.label] = lead_text(average_lead(block.average, subject), block.digits)
    orders = {order.label: order_texts(order)[1:] for order in all_orders(block)}
    if not orders and not any(leads.values()):
        return []
    head = ["", f"Δ {study.subject}"]
    if orders:
        head += ORDER_HEAD[1:]
    lines = []
    for label in {**leads, **orders}:
        line = [label, leads.get(label) or MISSING]
        if orders:
            line += orders.get(label, [MISSING, "", ""])
        lines.append(line)
    return [_pipes(head, lines)]


def _aggregate_lines(block: Block, subject: str) -> tuple[list[str], list[list[str]]]:
    """Head and body of a block's statistics, after the averages if it has some."""
    head = aggregate_head(subject)
    lines = [aggregate_texts(item, block.digits) for item in block.aggregates]
    if block.average is not None:
        averages = {block.average.label: block.average.ours}
        if any(mean is not None for mean in block.average.published):
            averages["paper"] = block.average.published
        head[1:1] = averages
        for index, line in enumerate(lines):
            line[1:1] = [mean_text(means[index], block.digits) for means in averages.values()]
    return head, lines


def _pipes(head: list[str], body: list[list[str]]) -> str:
    rows = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(map(_escaped_cell, cells)) + " |" for cells in rows)


def _escaped_cell(text: str) -> str:
    return text.replace("|", r"\|")


def _escaped_star(text: str) -> str:
    return rf"\{text}" if text.startswith("*") else text  # which would begin a list


def _escaped(text: str) -> str:
    return _one_line(text).replace("<", "&lt;")


def latex(table: Table) -> str:
    """For papers: one booktabs table per block, and one of the costs; needs \\usepackage{booktabs}.

    Under each block's tabulars stand all notes of the table, since each float is read by itself.
    """
    study = table.study
    parts = []
    for block in table.blocks:
        tabulars = [_latex_scores(table, block)]
        if block.orders:
            tabulars.append(_tabular("lrrr", ORDER_HEAD, map(order_texts, all_orders(block))))
        aggregates = (aggregate_texts(item, block.digits) for item in block.aggregates)
        tabulars.append(_tabular("lrrrr", aggregate_head(study.subject), aggregates))
        notes = [*block_notes(block), *table.notes, *left_out_notes(table)]
        parts.append(_float(f"{study.name}, {block.title}: {legend(table)}", tabulars, notes))
    if table.costs:
        costs = [*table.costs, *total_costs(table.costs)]
        tabular = _tabular("llrr", COST_HEAD, map(cost_texts, costs))
        parts.append(_float(f"{study.name}: wall time of the finished runs.", [tabular]))
    return "\n\n".join(parts) + "\n"


def _latex_scores(table: Table, block: Block) -> list[str]:
    study = table.study
    columns = [*map(_tex, study.columns), _tex(f"Δ {study.subject}")]
    lines = []
    for index, row in enumerate(_body_rows(table, block)):
        if row.labels[0] and index:
            lines.append(r"\addlinespace")
        escaped = replace(row, texts=tuple(map(_tex, row.texts)))
        lines.append(_line([*map(_tex, row.labels), *_marked(escaped, r"\textbf{{{}}}".format)]))
    return _booktabs("ll" + "r" * len(columns), _line(["", "", *columns]), lines)


@dataclass(frozen=True)
class _BodyRow:
    """One printed line: texts by column and Δ at the end; `best` are the indexes of the highest means."""

    labels: tuple[str, str]
    texts: tuple[str, ...]
    best: frozenset[int] = frozenset()


def _body_rows(table: Table, block: Block) -> list[_BodyRow]:
    """A block's lines: per row ours, then the paper's and the difference if there are any; averages last."""
    subject = table.study.columns.index(table.study.subject)
    counted = not common_counts(table)[0]
    lines = []
    for row in block.rows:
        texts = [ours_text(cell, block.digits, counted) for cell in row.cells]
        ahead = lead_text(lead(row, subject), block.digits)
        highest = best([cell.mean for cell in row.cells])
        lines.append(_BodyRow((row.label, "ours"), (*texts, ahead), highest))
        if any(cell.published for cell in row.cells):
            lines += _published_rows(row)
    if block.average is not None:
        lines += _average_rows(block.average, block.digits, subject)
    return lines


def _published_rows(row: Row) -> list[_BodyRow]:
    lines = [_BodyRow(("", "paper"), (*map(paper_text, row.cells), ""))]
    if any(cell.difference is not None for cell in row.cells):
        lines.append(_BodyRow(("", "difference [sd]"), (*map(difference_text, row.cells), "")))
    return lines


def _average_rows(average: Average, digits: int, subject: int) -> list[_BodyRow]:
    texts = [mean_text(mean, digits) for mean in average.ours]
    ahead = lead_text(average_lead(average, subject), digits)
    lines = [_BodyRow((average.label, "ours"), (*texts, ahead), best(average.ours))]
    if any(mean is not None for mean in average.published):
        paper = ["" if mean is None else number(mean, digits) for mean in average.published]
        lines.append(_BodyRow(("", "paper"), (*paper, "")))
    return lines


def _marked(row: _BodyRow, mark: Callable[[str], str]) -> list[str]:
    return [mark(text) if index in row.best else text for index, text in enumerate(row.texts)]


def _tabular(form: str, head: Sequence[str], body: Iterable[Sequence[str]]) -> list[str]:
    head_line, *lines = (_line(map(_tex, texts)) for texts in (head, *body))
    return _booktabs(form, head_line, lines)


def _booktabs(form: str, head: str, lines: list[str]) -> list[str]:
    start = [rf"\begin{{tabular}}{{{form}}}", r"\toprule", head, r"\midrule"]
    return [*start, *lines, r"\bottomrule", r"\end{tabular}"]


def _line(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _float(caption: str, tabulars: list[list[str]], notes: Sequence[str] = ()) -> str:
    """Tables below each other with one caption, and notes under them."""
    start = [r"\begin{table}", r"\centering", rf"\caption{{{_tex(caption)}}}"]
    parts = ["\n".join(lines) for lines in tabulars]
    if notes:
        text = "\n".join(map(_tex, notes))
        parts.append(rf"\parbox{{\linewidth}}{{\footnotesize {text}}}")
    return "\n".join([*start, "\n\n\\medskip\n".join(parts), r"\end{table}"])


_TEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "×": r"$\times$",
    "±": r"$\pm$",
    "−": r"$-$",
    "Δ": r"$\Delta$",
    "τ": r"$\tau$",
    "<": "$<$",
    ">": "$>$",
}


def _tex(text: str) -> str:
    return re.sub(r"[\\~^×±−Δτ<>#$%&_{}]", lambda found: _TEX.get(found[0], "\\" + found[0]), _one_line(text))


CSV_HEAD: tuple[str, ...] = (
    "task", "shift", "agent", "mean", "deviation", "seeds", "episodes_per_seed", "published_mean",
    "published_deviation", "published_source", "conditions_unmet", "difference_in_pooled_deviations", "state",
    "interquartile_mean", "interval_low", "interval_high", "subject_better", "better_low", "better_high",
    "counted", "notes",
)  # fmt: skip


def comma_separated(table: Table) -> str:
    """For programs: one line per cell, numbers in full; a cell without runs has state `missing`.

    A block's lines end with one per agent, without a task, that holds the statistics over those of its
    rows that are `counted`, and what to know of them. The file ends with the notes on the whole table, a line
    of state `note` for each.
    """
    out = io.StringIO()
    writer = csv.DictWriter(out, CSV_HEAD, lineterminator="\n")
    writer.writeheader()
    for block in table.blocks:
        for row in block.rows:
            for column, cell in zip(table.study.columns, row.cells, strict=True):
                place = {"task": row.task, "shift": row.shift, "agent": column}
                writer.writerow(place | _csv_cell(cell))
        for index, item in enumerate(block.aggregates):
            place = {"shift": block.title, "agent": item.column, "state": _aggregate_state(block, index)}
            writer.writerow(place | _csv_statistics(block, item))
    for note in (*table.notes, *left_out_notes(table)):
        writer.writerow({"state": "note", "notes": _one_line(note)})
    return out.getvalue()


def _csv_cell(cell: Cell) -> dict[str, object]:
    values: dict[str, object] = {
        "mean": cell.mean, "deviation": cell.deviation, "seeds": len(cell.scores),
        "episodes_per_seed": cell.episodes, "difference_in_pooled_deviations": cell.difference,
        "state": _state(cell),
    }  # fmt: skip
    score = cell.published
    if score is not None and cell.comparison is not None:
        values |= {"published_mean": score.mean, "published_deviation": score.deviation}
        values |= {"published_source": score.source, "conditions_unmet": len(cell.comparison.unmet)}
    return values


def _csv_statistics(block: Block, item: Aggregate) -> dict[str, object]:
    notes: dict[str, object] = {"counted": " ".join(block.counted), "notes": " ".join(block_notes(block))}
    if item.interquartile_mean is None:
        return notes
    low, high = item.interval or (None, None)
    better_low, better_high = item.beaten_interval or (None, None)
    return {
        "interquartile_mean": item.interquartile_mean, "interval_low": low, "interval_high": high,
        "subject_better": item.beaten, "better_low": better_low, "better_high": better_high, **notes,
    }  # fmt: skip


def _state(cell: Cell) -> str:
    """`complete`, `missing`, `not planned` or how many seeds there are."""
    if not cell.returns:
        return "missing" if cell.planned else "not planned"
    if len(cell.returns) == cell.planned:
        return "complete"
    return f"{len(cell.returns)} of {plural(cell.planned, 'seed')}"


def _aggregate_state(block: Block, index: int) -> str:
    """`complete`, `missing`, how many tasks count, or `seeds missing` where all do but lack runs."""
    if not block.aggregates[index].runs:
        return "missing"
    if not counts_all(block):
        return f"{len(block.counted)} of {plural(len(block.rows), 'task')}"
    states = {_state(row.cells[index]) for row in block.rows}
    return "complete" if states == {"complete"} else "seeds missing"


def _one_line(text: str) -> str:
    return " ".join(text.split())


FORMATS: dict[str, Callable[[Table], str]] = {"markdown": markdown, "csv": comma_separated, "latex": latex}
