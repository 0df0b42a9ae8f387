"""The column "recorded" of docs/metrics.md: where each number lay in the runs of a study.

    python -m benchmarks.recorded studies/laptop_video_hard --agents drq,svea,sgqn,smg

Rewrites the column in place, from `metrics.jsonl` of the runs named walker_stand-AGENT-seedN, which exported
scores lack: per agent the 5% and 95% quantiles after agent step 2,000, and "rising" or "falling" where in
each of its runs Spearman's rank correlation between the value and its order is above 0.7 or below −0.7.
"""

import re
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from common.config.registry import AGENTS
from common.errors import UserError
from common.run.records import read_json_lines
from common.run.weights import TIMES

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "metrics.md"
NAME = re.compile(r"walker_stand-(?P<agent>\w+)-seed\d+")
FROM_STEP = 2_000
TREND = 0.7
COLUMN = 2

Values = dict[str, dict[str, list[list[float]]]]
"""By key, by agent: of each run in the order of steps."""


def collected(runs: Path, agents: Collection[str] = AGENTS) -> Values:
    """Every number that the agents' runs logged after `FROM_STEP`.

    Raises:
        UserError: the folder holds no runs, or one without its metrics.
    """
    values: Values = defaultdict(lambda: defaultdict(list))
    for folder in sorted(runs.iterdir() if runs.is_dir() else ()):
        named = NAME.fullmatch(folder.name)
        if named is None or named["agent"] not in agents:  # notes, and runs of earlier presets
            continue
        series: dict[str, list[float]] = defaultdict(list)
        for line in read_json_lines(folder / "metrics.jsonl", {"step": int}):
            for key, value in line.items():
                if line["step"] > FROM_STEP and isinstance(value, int | float):
                    series[key].append(value)
        if not series.keys() - TIMES:
            raise UserError(f"{folder} has no metrics: it holds scores alone")
        for key, each in series.items():
            values[key][named["agent"]].append(each)
    if not values:
        raise UserError(f"{runs} holds no runs named walker_stand-AGENT-seedN")
    return values


def cell(by_agent: dict[str, list[list[float]]]) -> str:
    """The text of a key's cell."""
    return "; ".join(f"{agent} {summary(runs)}" for agent, runs in by_agent.items()) or "–"


def summary(runs: list[list[float]]) -> str:
    """Range of all runs, and the trend that they share."""
    low, high = (shown(value) for value in np.quantile(np.concatenate(runs), [0.05, 0.95]))
    trends = {trend(values) for values in runs}
    return (low if low == high else f"{low} to {high}") + (trends.pop() if len(trends) == 1 else "")


def trend(values: list[float]) -> str:
    """ ", rising" or ", falling" where a run's values' ranks follow their order."""
    if len(values) < 10 or min(values) == max(values):
        return ""
    ranks = rankdata(values)  # equal values share a rank
    correlation = np.corrcoef(np.arange(len(values)), ranks)[0, 1]
    return ", rising" if correlation > TREND else ", falling" if correlation < -TREND else ""


def shown(value: float) -> str:
    """Two significant digits, integers whole."""
    return f"{value:,.0f}".replace("-", "−") if abs(value) >= 10 else f"{value:.2g}".replace("-", "−")


def rewritten(page: str, values: Values) -> str:
    """The page with its column made anew; rows whose cell is empty keep it so."""
    lines = []
    for line in page.splitlines():
        key = re.match(r"\| `([^`]+)` \|", line)
        cells = line.split(" | ")
        if key and len(cells) > COLUMN and cells[COLUMN].strip(" |"):
            end = " |" if cells[COLUMN].endswith(" |") else ""
            cells[COLUMN] = cell(values.get(key[1], {})) + end
        lines.append(" | ".join(cells))
    return "\n".join(lines) + "\n"


def main(runs: Path, agents: Collection[str]) -> None:
    """Rewrite the page from a folder of runs."""
    page = rewritten(PAGE.read_text(encoding="utf-8"), collected(runs, agents))
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    parser = ArgumentParser(prog="recorded", description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, metavar="RUNS", help="folder of a study's runs")
    parser.add_argument("--agents", default=",".join(AGENTS), help="whose runs; by default all agents'")
    arguments = parser.parse_args()
    try:
        main(arguments.runs, arguments.agents.split(","))
    except UserError as error:
        sys.exit(f"recorded: {error}")
