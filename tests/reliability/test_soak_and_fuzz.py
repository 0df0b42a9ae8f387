"""Short forms of benchmarks/soak.py and benchmarks/fuzz.py."""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import common.config.loading
from benchmarks import fuzz, soak
from common.errors import UserError

pytestmark = pytest.mark.slow


def test_killed_and_resumed_runs_equal_the_unbroken_one_and_so_does_wandb(tmp_path: Path):
    command = [sys.executable, "-m", "benchmarks.soak", "--kills", "5", "--aimed", "1"]
    command += ["--json", str(tmp_path / "soak.json"), "train.steps=30", "eval.every=15"]
    command += ["eval.shifts=[color_hard]", "env.episode_steps=24"]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    report = json.loads((tmp_path / "soak.json").read_text())
    assert report["kills"] == sum(report["kills_during"].values()) == 5
    assert report["kills_shortly_after_the_begin_of"] == dict.fromkeys(soak.DELICATE, 1)
    assert report["runs_identical"] == report["runs"] >= 1
    assert report["lines_compared"] > 20


@pytest.fixture(scope="module")
def guard() -> fuzz.Guard:
    return fuzz.Guard()


@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_readers_return_or_refuse(target, guard: fuzz.Guard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    known = cache(common.config.loading._suite_tasks)
    known()
    monkeypatch.setattr(common.config.loading, "_suite_tasks", known)
    outcomes = fuzz.fuzz(target, 100, 0, tmp_path, guard)
    assert outcomes.total() >= 100
    assert outcomes["refused"] > 20


def test_the_guard_and_the_oracle_of_fuzzing_catch_what_they_are_for(guard: fuzz.Guard, tmp_path: Path):
    def broken(folder: Path):
        def read(number: int) -> None:
            if number > 1000:
                raise KeyError(number)

        return fuzz.st.integers(), read

    with pytest.raises(KeyError, match="1001"):  # the smallest
        fuzz.fuzz(broken, 500, 0, tmp_path, guard)

    def outside(folder: Path):
        return fuzz.st.just(0), lambda _: (tmp_path.parent / "outside").write_text("")

    with pytest.raises(AssertionError, match=r"write to .*outside"):
        fuzz.fuzz(outside, 5, 0, tmp_path, guard)

    def wordy() -> None:
        error = UserError("")
        error.args = ("two\nlines",)
        raise error

    with pytest.raises(AssertionError, match="not one line"):
        fuzz.documented(wordy)
