"""The examples run as they stand."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import runs

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


def example(name: str, *arguments: str | Path) -> str:
    """What an example prints."""
    command = [sys.executable, ROOT / "examples" / name, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_a_loop_of_ones_own_learns() -> None:
    printed = example("own_loop.py", "sgqn", "60")
    # Episodes of 20 steps; updates from step 20 on.
    assert [line.split(":")[0] for line in printed.splitlines()] == ["step 19", "step 39", "step 59"]
    losses = [float(value) for value in re.findall(r"loss/bellman ([0-9.]+)", printed)]
    assert len(losses) == 2 and all(np.isfinite(losses))


def test_a_recorded_run_is_looked_at(tmp_path: Path) -> None:
    folder = runs.run(tmp_path / "run", "smg", "train.steps=24", "eval.shifts=[train]", "eval.every=24")
    printed = example("look_at_a_run.py", folder, tmp_path / "look.png")
    assert re.fullmatch(r"smg after 24 steps returns [0-9]+\n", printed)
    picture = np.asarray(Image.open(tmp_path / "look.png"))
    assert picture.std() > 10 and picture.shape[0] > 200
