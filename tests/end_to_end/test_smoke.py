"""The command line from training to evaluation, with the benchmark's clips."""

import json
import os
import subprocess
import sys

import pytest
import torch

from common.config.shifts import SHIFTS
from tests import runs

pytestmark = pytest.mark.skipif(
    "SMG_DATA" not in os.environ, reason="needs the benchmark's clips in $SMG_DATA"
)


def smg(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "common.cli", *map(str, arguments)], capture_output=True, text=True, **options
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("agent", "task"), [("sac", "cartpole_swingup"), ("sgqn", "ball_in_cup_catch"), ("smg", "walker_walk")]
)
def test_train_and_evaluate_under_five_shifts(agent, task, tmp_path):
    folder = tmp_path / "a run"
    trained = smg(
        "train",
        "--agent",
        agent,
        "--task",
        task,
        "--preset",
        "smoke",
        f"run.dir={json.dumps(str(folder))}",
    )
    assert trained.returncode == 0, trained.stderr
    assert "Traceback" not in trained.stderr
    for shift in SHIFTS:
        assert shift in trained.stdout
    last = [record for record in runs.evaluations(folder) if record["step"] == 60]
    assert [record["shift"] for record in last] == list(SHIFTS)
    backgrounds = {record["shift"]: record["background"] for record in last}
    assert backgrounds["video_hard"].endswith(".mp4") and isinstance(backgrounds["color_easy"], int)
    steps = [line["step"] for line in runs.metrics(folder) if "loss/bellman" in line]
    assert steps == [30, 40, 50, 60]

    evaluated = smg("eval", folder, "--shifts", "train,video_hard", "--episodes", 2)
    assert evaluated.returncode == 0, evaluated.stderr
    assert "2 episodes" in evaluated.stdout


def test_a_folder_without_a_run_is_refused(tmp_path):
    refused = smg("eval", tmp_path)
    assert refused.returncode == 2
    assert "not a run folder" in refused.stderr and "Traceback" not in refused.stderr


@pytest.mark.slow
def test_checkpoint_is_readable_without_running_code(tmp_path):
    folder = runs.run(tmp_path / "run", "smg", "train.steps=25", "eval.every=25", "eval.shifts=[train]")
    manifest = json.loads((folder / "checkpoint" / "latest.json").read_text())
    state = torch.load(folder / "checkpoint" / manifest["state"], weights_only=True)
    assert state["step"] == 25 and state["finished"]
