"""What Markdown, LaTeX and the HTML report say alike of a study's table: short texts of its parts."""

from collections.abc import Sequence

from common.run.published import score_text
from common.study.intervals import COVERAGE, Interval
from common.study.table import Aggregate, Block, Cell, Cost, Lead, Order, Table

MISSING = "-"
NO_INTERVAL = "none from 1 seed"


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


def common_counts(table: Table) -> tuple[int, int]:
    """Seeds, and episodes per seed, of every cell; zeros if cells differ or there is none."""
    cells = [cell for block in table.blocks for row in block.rows for cell in row.cells if cell.scores]
    counts = {(len(cell.scores), cell.episodes) for cell in cells}
    seeds, episodes = counts.pop() if len(counts) == 1 else (0, None)
    return (0, 0) if episodes is None else (seeds, episodes)


def counts_text(cell: Cell, times: str = "×") -> str:
    """`2×10`, seeds and their episodes; `1×5 + 1×2` if seeds differ."""
    if cell.episodes is not None:
        return f"{len(cell.returns)}{times}{cell.episodes}"
    return " + ".join(f"1{times}{len(returns)}" for returns in cell.returns) or MISSING


def block_notes(block: Block) -> list[str]:
    """What to know of a block's statistics: which rows they are over, and how far their intervals hold.

    Rows are named where some lack an agent. The mean of τ counts such rows too, which a second note says.
    """
    notes = []
    if not counts_all(block):
        notes.append(f"Averages, IQM and P are over {counted_text(block)}.")
        if block.mean_order is not None:
            ordered = ", ".join(order.label for order in block.orders)
            notes.append(f"The mean of Kendall's τ is over {ordered}.")
    return [*notes, *interval_notes([block])]


def counts_all(block: Block) -> bool:
    """Whether averages and statistics are over all rows of a block, or all but the training view's."""
    labels = [row.label for row in block.rows]
    return list(block.counted) in (labels, [label for label in labels if label != "train"])


def counted_text(block: Block) -> str:
    """The rows that averages and statistics are over."""
    return ", ".join(block.counted) or "no task, as each lacks an agent's runs"


def interval_notes(blocks: Sequence[Block]) -> list[str]:
    """How often intervals of as few seeds as some cells have hold the true mean; nothing if none has few."""
    seeds = {len(cell.scores) for block in blocks for row in block.rows for cell in row.cells}
    shares = [f"{share}% of cases with {count} seeds" for count, share in COVERAGE.items() if count in seeds]
    if not shares:
        return []
    return [
        "95% intervals are too narrow with few seeds: on one task, those of a mean hold the true one in "
        f"{', '.join(shares)} (simulated, normal scores)."
    ]


def profiles_note(table: Table) -> str:
    """What the profiles of a table are of."""
    over = {block.title: counted_text(block) for block in table.blocks if block.strata}
    places = set(over.values())
    tasks = places.pop() if len(places) == 1 else "; ".join(f"{key}: {text}" for key, text in over.items())
    return f"Share of runs that score above a return, averaged over {tasks}, with its 95% interval."


def left_out_notes(table: Table) -> list[str]:
    """Which begun runs are not in the table, and why."""
    return [f"Left out: {found.run.name}, {found.state} ({found.detail})." for found in table.left_out]


def ours_text(cell: Cell, digits: int, counted: bool) -> str:
    """`812 ± 51`, with `(4×5)` for seeds × episodes if asked for; `-` without a run."""
    if cell.mean is None:
        return MISSING
    text = number(cell.mean, digits)
    if cell.deviation is not None:
        text += f" ± {number(cell.deviation, digits)}"
    return f"{text} ({counts_text(cell)})" if counted else text


def paper_text(cell: Cell) -> str:
    """The published score as printed, with `*` if ours do not meet its conditions; empty if there is none."""
    score = cell.published
    return "" if score is None else score_text(score) + ("" if cell.meets_conditions else "*")


def difference_text(cell: Cell) -> str:
    """Ours minus the paper's in pooled standard deviations."""
    return "" if cell.difference is None else f"{cell.difference:+.1f}".replace("-", "−")


def lead_text(ahead: Lead | None, digits: int) -> str:
    """`+120 (+15%)`; empty where cells are missing."""
    if ahead is None:
        return ""
    difference, percent = ahead
    text = f"{difference:+.{digits}f}" + ("" if percent is None else f" ({percent:+.0f}%)")
    return text.replace("-", "−")


def mean_text(mean: float | None, digits: int) -> str:
    """An average; `-` where a cell of it is missing."""
    return MISSING if mean is None else number(mean, digits)


def best(means: Sequence[float | None]) -> frozenset[int]:
    """Indexes of the highest mean, if there is something to compare it with."""
    known = [mean for mean in means if mean is not None]
    return frozenset(i for i, mean in enumerate(means) if len(known) > 1 and mean == max(known))


def aggregate_head(subject: str) -> list[str]:
    """The titles of what `aggregate_texts` gives."""
    return ["", "IQM", "95% interval", "runs", f"P({subject} better)"]


def aggregate_texts(item: Aggregate, digits: int) -> list[str]:
    """Column, interquartile mean, its interval, runs and the probability that the subject beats it."""
    if item.interquartile_mean is None:
        return [item.column, MISSING, "", "", ""]
    beaten = "" if item.beaten is None else f"{item.beaten:.2f}{_brackets(item.beaten_interval, 2, ' ')}"
    interval = _brackets(item.interval, digits) or NO_INTERVAL
    return [item.column, number(item.interquartile_mean, digits), interval, str(item.runs), beaten]


ORDER_HEAD = ["", "Kendall's τ with the paper's order", "95% interval", "agents"]
"""The titles of what `order_texts` gives."""


def order_texts(order: Order) -> list[str]:
    """Row, τ, its interval and the number of agents compared."""
    interval = _brackets(order.interval, 2) or NO_INTERVAL
    agents = " to ".join(str(count) for count in dict.fromkeys(order.agents))
    return [order.label, number(order.tau, 2), interval, agents]


def all_orders(block: Block) -> list[Order]:
    """Those of the block's rows, and their mean at the end if it has one."""
    return [*block.orders, *([] if block.mean_order is None else [block.mean_order])]


COST_HEAD = ["agent", "device", "runs", "hours"]
"""The titles of what `cost_texts` gives."""


def cost_texts(cost: Cost) -> list[str]:
    """Column, device, finished runs and their wall time."""
    return [cost.column, cost.device, str(cost.runs), f"{cost.hours:.2f}"]


def number(value: float, digits: int) -> str:
    """With a minus sign proper, and no minus zero."""
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def _brackets(interval: Interval | None, digits: int, before: str = "") -> str:
    return (
        "" if interval is None else f"{before}[{number(interval[0], digits)}, {number(interval[1], digits)}]"
    )


def plural(count: int, name: str) -> str:
    """`1 seed`, `2 seeds`."""
    return f"{count} {name}" if count == 1 else f"{count} {name}s"
