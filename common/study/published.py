"""The papers' numbers, to stand beside ours."""

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


@cache
def tables() -> dict[str, Any]:
    """Every published table by name; see the comments in published.yaml."""
    return yaml.safe_load(PATH.read_text(encoding="utf-8"))


def published_score(agent: str, task: str, shift: str) -> Score | None:
    """The paper's number for an agent, from its own paper where both papers have one.

    SGQN's rows for cartpole and finger are those with action repeat 8 and 2, as configs/tasks/ has them.
    """
    stored = tables()
    smg = ("SMG poster", stored["smg_video_hard"] if shift == "video_hard" else {})
    starred = ("SGQN table 5", stored["sgqn_table5_starred"].get(shift, {}))
    table1 = ("SGQN table 1", stored["sgqn_table1"].get(shift, {}))
    ablation = ("SGQN table 2", {name: shifts.get(shift, {}) for name, shifts in stored["sgqn_table2_ablation"].items()})
    robot = [
        (f"{paper} table", {task: cells.get(shift, {})})
        for paper, task_name, cells in (
            ("SMG peg-in-box", "robot_peg_in_box", stored["smg_peg_in_box"]),
            ("SGQN table 6", "robot_peg_in_box", stored["sgqn_table6_robot"]["peg_in_box"]),
            ("SGQN table 6", "robot_reach", stored["sgqn_table6_robot"]["reach"]),
        )
        if task == task_name
    ]
    suite = [smg, starred, table1, ablation] if agent == "smg" else [starred, table1, ablation, smg]
    for source, table in suite + robot:
        cell = table.get(task, {}).get(agent)
        if cell:
            return Score(cell[0], cell[1] if len(cell) > 1 else None, source)
    return None
