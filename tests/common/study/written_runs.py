"""Run folders written as `smg train` leaves them, without training."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.config.loading import to_yaml
from common.run.records import Record
from common.study.definition import PlannedRun, Study, load_study

STUDY = """
published: smg_video_hard
shifts: [video_hard]
seeds: [0, 1]
preset: smoke
tasks: [walker_walk, finger_spin]
agents: [sac, drq, smg]
"""

PROVENANCE = {
    "git_commit": "0123456789abcdef",
    "device": "CPU, 2 threads",
    "data": {
        "source": "files",
        "video_easy": {"clips": 10, "hash": "aa"},
        "video_hard": {"clips": 100, "hash": "bb"},
        "color_easy": {"presets": 100, "hash": "cc"},
        "color_hard": {"presets": 100, "hash": "dd"},
    },
}


def study(folder: Path, *overrides: str, text: str = STUDY) -> Study:
    """A small study whose runs lie in `folder`/runs."""
    file = folder / "small.yaml"
    file.write_text(text)
    return load_study(file, [f"folder={json.dumps(str(folder / 'runs'))}", *overrides])


def write_run(
    run: PlannedRun,
    returns: Mapping[str, Sequence[float]] | None = None,
    steps: Sequence[int] = (30, 60),
    provenance: Mapping[str, Any] = PROVENANCE,
) -> None:
    """A run that was evaluated at `steps`, with `returns` by shift each time; unnamed shifts returned 1."""
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / "config.yaml").write_text(to_yaml(run.config))
    (run.folder / "provenance.json").write_text(json.dumps(provenance))
    metrics = [{"step": step, "seconds": step / 2} for step in range(10, steps[-1] + 1, 10)] if steps else []
    write_lines(run.folder / "metrics.jsonl", metrics)
    write_lines(run.folder / "eval.jsonl", evaluations(run, returns or {}, steps))


def evaluations(
    run: PlannedRun, returns: Mapping[str, Sequence[float]], steps: Sequence[int]
) -> list[Record]:
    """Records of complete evaluations."""
    episodes = run.config.eval.episodes
    return [
        {"step": step, "evaluation": number, "shift": shift, "seed": run.seed + 42, "episode": episode}
        | {"return": returns.get(shift, [1.0] * episodes)[episode], "length": 20, "background": None}
        for number, step in enumerate(steps)
        for shift in run.config.eval.shifts
        for episode in range(episodes)
    ]


def write_lines(path: Path, records: Sequence[Record]) -> None:
    """A JSON-lines file."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
