"""The papers' numbers, to stand beside ours."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

PATH = Path(__file__).with_name("published.yaml")


class Score(NamedTuple):
    """A printed cell: mean and standard deviation over seeds, and where it is printed."""

    mean: float
    deviation: float | None
    source: str
    seeds: int | None
    usable: bool
    """Whether the deviation can be computed with: it is printed, and is this cell's own."""


@dataclass(frozen=True)
class Table:
    """How a printed table is stored: which of task and shift lead to its cells, in which order."""

    source: str
    keys: tuple[str, ...]
    seeds: int | None
    otherwise: str | None = None
    """The table that has the cells which this one does not repeat."""
    shift: str | None = None
    """The shift of a table that shows only one."""
    task: str | None = None


TABLES = {
    "sgqn_table1": Table("SGQN table 1", ("shift", "task"), 5),
    "sgqn_table5_starred": Table("SGQN table 5", ("shift", "task"), 5, otherwise="sgqn_table1"),
    "sgqn_table2_ablation": Table("SGQN table 2", ("task", "shift"), 5),
    "sgqn_table6_robot": Table("SGQN table 6", ("task", "shift"), 5),
    "sgqn_table7_rho": Table("SGQN table 7", ("shift", "task"), 5),
    "sgqn_table8_svea_soda": Table("SGQN table 8", ("shift", "task"), 5, otherwise="sgqn_table5_starred"),
    "sgqn_benchmark_page": Table("benchmark page", ("shift", "task"), None),
    "smg_video_hard": Table("SMG poster", ("task",), 4, shift="video_hard"),
    "smg_peg_in_box": Table("SMG poster", ("shift",), 4, task="robot_peg_in_box"),
}
"""The tables that a study can stand beside, by their names in published.yaml."""


@cache
def tables() -> dict[str, Any]:
    """Every published table by name; see the comments in published.yaml."""
    return yaml.safe_load(PATH.read_text(encoding="utf-8"))


def printed(table: str, agent: str, task: str, shift: str) -> Score | None:
    """A table's cell, or None where the table has none."""
    layout = TABLES[table]
    if layout.shift in (None, shift) and layout.task in (None, task):
        found: Any = tables()[table]
        for key in layout.keys:
            found = found.get(task.removeprefix("robot_") if key == "task" else shift, {})
        if agent in found:
            mean, *deviation = found[agent]
            # The deviations of SGQN's peg-in-box rows repeat those of its reach rows.
            copied = table == "sgqn_table6_robot" and task == "robot_peg_in_box"
            spread = deviation[0] if deviation else None
            return Score(mean, spread, layout.source, layout.seeds, spread is not None and not copied)
    return printed(layout.otherwise, agent, task, shift) if layout.otherwise else None


def published_score(agent: str, task: str, shift: str) -> Score | None:
    """The paper's number for an agent, from its own paper where both papers have one.

    SGQN's rows for cartpole and finger are those with action repeat 8 and 2, as configs/tasks/ has them.
    """
    sgqn = ("sgqn_table5_starred", "sgqn_table8_svea_soda", "sgqn_table2_ablation", "sgqn_table6_robot")
    smg = ("smg_video_hard", "smg_peg_in_box")
    # Peg-in-box with three axes, as configs/tasks/ has it, is SMG's.
    smg_first = agent == "smg" or task == "robot_peg_in_box"
    for table in (*smg, *sgqn) if smg_first else (*sgqn, *smg):
        score = printed(table, agent, task, shift)
        if score is not None:
            return score
    return None
