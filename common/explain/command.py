"""`smg explain`: pictures, videos, numbers and a page of what the agents of one or several runs see."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common import gl
from common.config.schema import Config
from common.config.shifts import ROBOT_TASKS
from common.errors import UserError
from common.explain.draw import Panels, grid, panels
from common.explain.explainer import ATTRIBUTIONS, QUANTILE, SEEN, Explainer
from common.explain.files import Video, save_picture
from common.explain.numbers import Tally
from common.explain.page import Shown, write_page
from common.explain.recording import Recording, Stage, again, by
from common.run.checkpoint import write_atomically
from common.run.derived import env_arguments, episode_length, evaluation_arguments
from common.run.device import for_trained
from common.run.nvidia import training_gpu
from common.run.records import Record
from common.run.trained import load_agent
from common.run.wandb_mirror import WandbMirror

BATCH = 10
"""Observations that are explained together."""
MOMENTS = 4
"""Frames on a shift's contact sheet."""
SHARED = (*SEEN, "binarised", *ATTRIBUTIONS)
"""Columns beside each other's for several runs."""
SAME = ("model", "action_repeat", "episode_steps", "action_axes")
"""Keys of `env:` on which the simulator's states depend."""


@dataclass(frozen=True)
class Options:
    """What `smg explain` was asked for; None stands for the usual."""

    episodes: int = 1
    frames: int = 50
    methods: tuple[str, ...] | None = None
    output: Path | None = None
    html: bool = False


@dataclass(frozen=True)
class Run:
    """A run whose agent is explained."""

    config: Config
    folder: Path
    step: int
    explainer: Explainer


def explain(configs: Sequence[Config], folders: Sequence[Path], options: Options) -> int:
    """Explain the newest checkpoints of runs on the same frames: those of the first run's episodes.

    Raises:
        UserError: a run has no checkpoint, runs differ in their simulation, or a method is not offered.
    """
    for name, value in (("--episodes", options.episodes), ("--frames", options.frames)):
        if value < 1:
            raise UserError(f"{name} is {value}; it must be at least 1")
    configs = [for_trained(config) for config in configs]
    gl.select_backend(training_gpu(configs[0].device))
    _check_comparable(configs, folders)
    runs = _load(configs, folders)
    columns = _columns(runs, options.methods)
    output = options.output or _output(folders)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{output} cannot be made ({error.strerror}); set --output") from error

    shown, record = {}, {run.explainer.label: _identity(run) | {"shifts": {}} for run in runs}
    for shift in configs[0].eval.shifts:
        shown[shift], found = _explain_shift(runs, shift, columns, options, output)
        for label, numbers in found.items():
            record[label]["shifts"][shift] = numbers
    write_atomically(output / "explain.json", json.dumps(record, indent=1, allow_nan=False).encode())
    print(output / "explain.json")
    if options.html:
        print(*write_page(output, shown, record, columns), sep="\n")
    print(save_picture(output / "sheet.png", _overview(shown)))
    _mirror(runs, output, record)
    return 0


def _mirror(runs: Sequence[Run], output: Path, record: dict[str, Record]) -> None:
    """Give W&B the numbers, as a run of their own in the first run's group."""
    config, folder, step = runs[0].config, runs[0].folder, runs[0].step
    row = {
        "/".join(["explain", *([label] if len(runs) > 1 else []), shift, name]): value
        for label, run in record.items()
        for shift, found in run["shifts"].items()
        for name, value in found["numbers"].items()
        if value is not None
    }
    # The mirror takes up the W&B run that this file names, and its rows; every explanation is a new one.
    (output / "mirrored.json").unlink(missing_ok=True)
    named = config.wandb.model_copy(update={"name": f"{config.wandb.name or folder.name} explained"})
    mirror = WandbMirror(config.model_copy(update={"wandb": named}), output)
    mirror.update([{"step": step, "sheet": output / "sheet.png"} | row])
    mirror.finish()


def _load(configs: Sequence[Config], folders: Sequence[Path]) -> list[Run]:
    quantiles = (getattr(config.settings, "quantile", None) for config in configs)
    quantile = next((value for value in quantiles if value is not None), QUANTILE)
    runs = []
    for label, config, folder in zip(_labels(configs, folders), configs, folders, strict=True):
        agent, _, step = load_agent(config, folder, "explain")
        runs.append(Run(config, folder, step, Explainer(label, agent, quantile, agent.images(1))))
    return runs


def _labels(configs: Sequence[Config], folders: Sequence[Path]) -> list[str]:
    """As short as tells the runs apart: agents, else the ends of the folders' names."""
    candidates = [[config.agent for config in configs]]
    paths = [folder.resolve() for folder in folders]
    deepest = max(len(path.parts) for path in paths)
    candidates += [["/".join(path.parts[-depth:]) for path in paths] for depth in range(2, deepest + 1)]
    for labels in candidates:
        if len(set(labels)) == len(labels):
            return labels
    raise UserError(f"{folders[0]} is given more than once")


def _check_comparable(configs: Sequence[Config], folders: Sequence[Path]) -> None:
    first = configs[0]
    for config, folder in zip(configs, folders, strict=True):
        if config.task != first.task:
            raise UserError(
                f"{folder} is a run of {config.task}, {folders[0]} of {first.task}: explain each task apart"
            )
        for key in SAME:
            here, there = _simulated(config, key), _simulated(first, key)
            if here != there:
                raise UserError(
                    f"{folder} has env.{key} {here}, {folders[0]} {there}: they cannot see the same states"
                )


def _simulated(config: Config, key: str) -> Any:
    """A value of `env:`, the task's own where none is set."""
    value = getattr(config.env, key)
    if key == "action_axes" and value is None and config.task in ROBOT_TASKS:
        from common.envs.robot import TASKS

        return TASKS[config.task][1]
    return value


def _columns(runs: Sequence[Run], methods: tuple[str, ...] | None) -> tuple[str, ...]:
    if methods is None:
        return runs[0].explainer.usual if len(runs) == 1 else SHARED
    for run in runs:
        run.explainer.check(methods)
    return tuple(dict.fromkeys(methods))


def _output(folders: Sequence[Path]) -> Path:
    return folders[0] / ("explain" if len(folders) == 1 else "explain_beside_others")


def _identity(run: Run) -> Record:
    return {
        "folder": str(run.folder),
        "agent": run.config.agent,
        "task": run.config.task,
        "step": run.step,
        "seed": run.config.seed,
        "binarised_quantile": run.explainer.quantile,
    }


def _explain_shift(
    runs: Sequence[Run], shift: str, columns: tuple[str, ...], options: Options, output: Path
) -> tuple[Shown, dict[str, Record]]:
    """Write a shift's video and sheet; return its first episode and, by run, its numbers."""
    first = runs[0].config
    every = max(1, -(-episode_length(first) // options.frames))
    stages = _stages(runs, shift)
    tallies = {run.explainer.label: Tally() for run in runs}
    episodes: list[Record] = []
    shown: Shown | None = None
    try:
        with Video(output / f"{shift}.mp4") as video:
            for episode in range(options.episodes):
                print(f"\r{shift}: episode {episode + 1}/{options.episodes} ", end="", file=sys.stderr)
                recordings = _record(runs, stages, episode, options.episodes, every)
                episodes.append(recordings[0].summary)
                current = _explained(runs, recordings, columns, tallies)
                shown = shown or current
                for index in range(len(recordings[0].obs)):
                    video.add(grid({label: row[index] for label, row in current.rows.items()}))
    finally:
        for stage in stages.values():
            stage.close()
    assert shown is not None
    print(file=sys.stderr)
    print(output / f"{shift}.mp4")
    print(save_picture(output / f"{shift}.png", _sheet(shown)))
    found = {
        label: {"episodes": episodes, "numbers": tally.means(), "curves": tally.curves()}
        for label, tally in tallies.items()
    }
    return shown, found


def _stages(runs: Sequence[Run], shift: str) -> dict[str, Stage]:
    """An environment for each way of rendering that the runs ask for, by `_rendering`."""
    first = runs[0].config
    return {
        _rendering(run): Stage(_arguments(run.config, first), shift)
        for run in {_rendering(r): r for r in runs}.values()
    }


def _rendering(run: Run) -> str:
    env = run.config.env
    return f"{env.frame_size} {env.frames} {env.camera} {env.shadow_size}"


def _arguments(config: Config, first: Config) -> Record:
    """What the agent of `config` sees of the first run's episodes."""
    theirs = evaluation_arguments(first)
    shared = ("seed", "order_seed", "clips", "data_root", "view_strength")
    return env_arguments(config) | {name: theirs[name] for name in shared}


def _record(
    runs: Sequence[Run], stages: dict[str, Stage], episode: int, episodes: int, every: int
) -> list[Recording]:
    """An episode of the first run's policy as each run's agent sees it."""
    own = _rendering(runs[0])
    recorded = {own: stages[own].record(by(runs[0].explainer.agent), episode, episodes, every)}
    for key, stage in stages.items():
        if key != own:
            recorded[key] = stage.record(again(recorded[own].actions), episode, episodes, every)
    return [recorded[_rendering(run)] for run in runs]


def _explained(
    runs: Sequence[Run], recordings: Sequence[Recording], columns: tuple[str, ...], tallies: dict[str, Tally]
) -> Shown:
    shown = Shown(recordings[0])
    for run, recording in zip(runs, recordings, strict=True):
        explainer = run.explainer
        row: list[Panels] = []
        values: list[float] = []
        for start in range(0, len(recording.obs), BATCH):
            part = slice(start, start + BATCH)
            explained = explainer.explain(recording.obs[part], recording.truth[part], columns)
            if recording.plain is not None:
                plain = explainer.masks(recording.plain[part], explained.action)
            else:
                plain = explained.masks if recording.shift == "train" else None
            tallies[explainer.label].add(explained, plain, explainer.q)
            row += [panels(explained, index, columns) for index in range(len(explained.q))]
            values += explained.q.tolist()
        shown.rows[explainer.label] = row
        shown.q[explainer.label] = values
    return shown


def _sheet(shown: Shown) -> np.ndarray:
    """A row per run and moment of a shift's first episode."""
    count = len(shown.recording.steps)
    moments = np.unique(np.linspace(0, count - 1, MOMENTS + 2).round().astype(int)[1:-1])
    several = len(shown.rows) > 1
    rows = {}
    for moment in moments:
        for label, row in shown.rows.items():
            step = f"step {shown.recording.steps[moment]}"
            rows[f"{label}, {step}" if several else step] = row[moment]
    return grid(rows)


def _overview(shown: dict[str, Shown]) -> np.ndarray:
    """A row per shift, and run, a quarter into the episode."""
    rows = {}
    for shift, each in shown.items():
        for label, row in each.rows.items():
            rows[f"{shift}, {label}" if len(each.rows) > 1 else shift] = row[len(row) // 4]
    return grid(rows)
