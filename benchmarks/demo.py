"""The papers' claim at a laptop's size: DrQ, SGQN and SMG with the same budget, a random policy beside them.

    python -m benchmarks.demo [folder=results/laptop] [tasks=[cartpole_swingup]] [key=value]…

Reads the finished runs of the study `laptop` (`bash scripts/demo.sh` makes them first), prints one table and
writes one picture beside them, TASK.png and TASK.pdf: learning curves, and frames of video_hard with SMG's
mask and foreground and SGQN's attribution.
"""

import statistics
import sys
from pathlib import Path

import torch
from torch import Tensor

from common import gl
from common.config.schema import Config
from common.errors import UserError
from common.explain.draw import Panels, grid, panels
from common.explain.explainer import QUANTILE, Explainer
from common.explain.recording import Stage, by
from common.report.plots import Picture, Plot, save
from common.run.build import build_evaluator
from common.run.derived import episode_length, evaluation_arguments
from common.run.device import for_trained
from common.run.trained import load_agent
from common.study.definition import load_study
from common.study.folders import FoundRun
from common.study.report import drawn_runs, learning_curves
from common.study.results import Results, collect

SHIFTS = ("train", "video_easy", "video_hard")
CURVES = ("train", "video_hard")
STRIP = {"smg": ("mask", "foreground"), "sgqn": ("attribution", "saliency")}
MOMENTS = 4


class RandomPolicy:
    """Uniform actions, whatever is seen."""

    device = torch.device("cpu")

    def __init__(self, action_size: int) -> None:
        self._size = action_size
        self._generator = torch.Generator().manual_seed(0)

    def act(self, obs: Tensor, sample: bool) -> Tensor:
        """Actions (N, A) in [−1, 1]."""
        return 2 * torch.rand(len(obs), self._size, generator=self._generator) - 1


def main() -> None:
    """Print the table, draw the picture."""
    gl.select_backend()
    results = collect(load_study("laptop", sys.argv[1:]))
    if not results.done:
        raise UserError(f"no finished runs in {results.study.folder}: bash scripts/demo.sh makes them")
    print(table(results))
    print(*draw(results), sep="\n")


def table(results: Results) -> str:
    """Returns by agent and shift, and what each run took."""
    seeds = sorted({found.run.seed for found in results.done})
    several = len(seeds) > 1
    rows = {"random": (random_returns(settings(results.done[0])), "")}
    for column in results.study.columns:
        cell = results.done_in(results.study.tasks[0], column)
        if cell:
            returns = {shift: [found.final_returns(shift) for found in cell] for shift in SHIFTS}
            rows[column] = (returns, wall_text(cell))
    lines = [f"{'':<8}" + "".join(f"{shift:>16}" for shift in SHIFTS) + f"{'of train':>10}{'wall time':>17}"]
    for name, (returns, wall) in rows.items():
        means = {
            shift: statistics.fmean(map(statistics.fmean, by_seed)) for shift, by_seed in returns.items()
        }
        cells = [f"{means[shift]:.0f}{spread_text(returns[shift], several)}" for shift in SHIFTS]
        share = f"{means['video_hard'] / means['train']:.2f}"
        lines.append(f"{name:<8}" + "".join(f"{cell:>16}" for cell in cells) + f"{share:>10}{wall:>17}")
    config = settings(results.done[0])
    spread = "sd over seed means" if several else f"sd over {config.eval.episodes} episodes"
    lines.append(
        f"{results.study.tasks[0]}, {config.train.steps:,} agent steps, seeds {', '.join(map(str, seeds))}, "
        f"{config.eval.episodes} episodes per shift and seed; mean ± {spread}; video_hard clips "
        + ("all" if config.eval.clips is None else f"{config.eval.clips[0]} to {config.eval.clips[1]}")
    )
    return "\n".join(lines)


def wall_text(cell: list[FoundRun]) -> str:
    """What a run took on average, with the number of those that say so if not all do."""
    known = [found.seconds for found in cell if found.seconds is not None]
    if not known:
        return "unknown"
    counted = f" ({len(known)} of {len(cell)})" if len(known) < len(cell) else ""
    return f"{statistics.fmean(known) / 60:.0f} min{counted}"


def spread_text(by_seed: list[tuple[float, ...]], over_seeds: bool) -> str:
    """± the standard deviation over seeds' means, or over the episodes of one seed; empty for one value."""
    values = [statistics.fmean(returns) for returns in by_seed] if over_seeds else by_seed[0]
    return f" ± {statistics.stdev(values):.0f}" if len(values) > 1 else ""


def random_returns(config: Config) -> dict[str, list[tuple[float, ...]]]:
    """What random actions return in a run's evaluation episodes."""
    evaluator = build_evaluator(config)
    try:
        records = evaluator.run(RandomPolicy(evaluator.action_size), 0)
    finally:
        evaluator.close()
    return {shift: [tuple(r["return"] for r in records if r["shift"] == shift)] for shift in SHIFTS}


def settings(found: FoundRun) -> Config:
    """A finished run's configuration."""
    assert found.config is not None
    return for_trained(found.config)


def draw(results: Results) -> list[Path]:
    """Learning curves above, the strip below; the files' paths."""
    task, frames = results.study.tasks[0], strip(results)
    rows: list[list[Plot]] = [[*learning_curves(drawn_runs(results), task, CURVES)]]
    if frames:
        rows.append([Picture(grid(frames))])
    return save(results.study.folder / task, rows)


def strip(results: Results) -> dict[str, Panels]:
    """Frames of the subject's first episode under video_hard, as SMG and SGQN see them."""
    explainers = {}
    for column in STRIP:
        for found in results.done_in(results.study.tasks[0], column)[:1]:
            agent = load_agent(settings(found), found.run.folder, "show").agent
            quantile = getattr(agent.config.settings, "quantile", QUANTILE)
            explainers[column] = Explainer(column, agent, quantile, agent.images(1))
    if not explainers:
        return {}
    first = next(iter(explainers.values())).agent
    every = -(-episode_length(first.config) // (MOMENTS + 1))
    stage = Stage(evaluation_arguments(first.config), "video_hard")
    try:
        recording = stage.record(by(first), 0, first.config.eval.episodes, every)
    finally:
        stage.close()
    rows: dict[str, Panels] = {}
    for column, explainer in explainers.items():
        columns = (("observation",) if not rows else ()) + STRIP[column]
        explained = explainer.explain(recording.obs, recording.truth, columns)
        for index, step in enumerate(recording.steps[1:], 1):
            shown = panels(explained, index, columns)
            rows.setdefault(f"step {step}", {}).update(
                {name if name == "observation" else f"{column} {name}": each for name, each in shown.items()}
            )
    return rows


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"demo: {error}")
