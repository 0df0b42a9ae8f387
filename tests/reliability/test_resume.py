"""Runs that stop anywhere go on as if they had not."""

import itertools
import json
import os
import re
import shlex
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import common.run.train
import common.run.trainer
from common import cli
from common.config.loading import load_run_config
from common.config.registry import AGENTS
from common.data.replay import Replay
from common.run import checkpoint, run_folder
from common.run.foreground import foreground_share
from common.run.run_folder import RunFolder, recorded_sessions
from common.run.trainer import Trainer
from tests import runs
from tests.reliability import tiny
from tests.reliability.conftest import Moments

pytestmark = pytest.mark.slow


def test_the_unbroken_run_logs_every_step_once(unbroken: Path):
    logged = [line["step"] for line in runs.metrics(unbroken) if "loss/bellman" in line]
    assert logged == list(range(9, 25))
    assert [line["step"] for line in runs.metrics(unbroken) if "episode/return" in line] == [5, 10, 15, 20]
    assert [record["step"] for record in runs.evaluations(unbroken)] == [12, 24]


@pytest.mark.parametrize(
    ("event", "count", "ahead", "number"),
    [
        pytest.param("step", 3, 1, signal.SIGHUP, id="random steps"),
        pytest.param("burst", 2, 1, signal.SIGUSR2, id="burst"),
        pytest.param("episode", 2, 1, signal.SIGXCPU, id="an episode's end"),
        pytest.param("evaluating", 1, 1, signal.SIGUSR1, id="evaluation"),
        pytest.param("step", 20, 0, signal.SIGTERM, id="checkpoint, in this process"),
        pytest.param("step", 20, 1, signal.SIGTERM, id="checkpoint"),
    ],
)
def test_stopped_by_a_scheduler_or_a_terminal_and_resumed(
    event: str, count: int, ahead: int, number: signal.Signals, unbroken: Path, folder: Path, moments: Moments
):
    def warn() -> None:
        # A scheduler signals every process of a job.
        for process in [*tiny.workers(), os.getpid()]:
            os.kill(process, number)

    moments.at(event, count, warn)
    assert tiny.start(folder, f"env.ahead={ahead}") == 75
    expected = f"stopped by {number.name} and saved; continue with: {tiny.resume_command(folder)}"
    assert moments.said[-1] == expected
    assert tiny.resume(folder) == 0
    tiny.assert_equal(folder, unbroken)


@pytest.mark.parametrize("agent", [name for name in AGENTS if name != "sac"])
def test_every_agent_resumes_exactly(agent: str, folder: Path, tmp_path: Path, moments: Moments):
    short = ("train.steps=15", "eval.every=15", "network.strides=[2,1,1]")
    assert tiny.start(tmp_path / "unbroken", *short, agent=agent) == 0
    moments.at("step", 15 + 11, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert tiny.start(folder, *short, agent=agent) == 75
    assert tiny.resume(folder) == 0
    tiny.assert_equal(folder, tmp_path / "unbroken")


def test_ctrl_c_saves_and_a_second_one_leaves_at_once(unbroken: Path, folder: Path, moments: Moments):
    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    moments.at("step", 6, interrupt)
    assert tiny.start(folder) == 130
    assert moments.said[-1].startswith("stopped by SIGINT and saved")
    # Twice within an update: nothing waits for its end.
    moments.at("burst", 1, lambda: (interrupt(), interrupt()))
    assert tiny.resume(folder) == 130
    assert tiny.resume(folder) == 0
    tiny.assert_equal(folder, unbroken)


@pytest.mark.parametrize("say", [tiny.resume, tiny.start], ids=["resume", "the same command"])
def test_a_finished_run_is_shown_again_and_left_alone(
    say: Callable[[Path], int],
    unbroken: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    before = {path: path.read_bytes() for path in unbroken.rglob("*") if path.is_file()}
    monkeypatch.setattr(common.run.train, "build", None)  # it must not come to that
    assert say(unbroken) == 0
    shown = capsys.readouterr().out
    [last] = [record for record in runs.evaluations(unbroken) if record["step"] == 24]
    assert "sac on finger_spin after 24 agent steps" in shown
    assert f"{last['return']:.1f}" in next(line for line in shown.splitlines() if line.startswith("train "))
    assert shown.endswith(f"run folder: {unbroken}\n")
    assert before == {path: path.read_bytes() for path in unbroken.rglob("*") if path.is_file()}


def test_lines_after_the_checkpoint_and_a_half_written_one_are_written_anew(stopped: Path, unbroken: Path):
    lines = (unbroken / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    with (stopped / "metrics.jsonl").open("ab") as file:
        file.write(b"".join(lines[-5:-1]) + lines[-1][:20])
    with (stopped / "eval.jsonl").open("ab") as file:
        file.write(b'{"step": 24, "shi')
    assert tiny.resume(stopped) == 0
    tiny.assert_equal(stopped, unbroken)


def test_lost_lines_are_said_to_be_lost(stopped: Path, moments: Moments):
    (stopped / "metrics.jsonl").write_bytes(b"")
    assert tiny.resume(stopped) == 0
    assert any("metrics.jsonl lacks its last" in line for line in moments.said)


def test_checkpoints_by_steps_and_by_duration(
    folder: Path, tmp_path: Path, moments: Moments, monkeypatch: pytest.MonkeyPatch
):
    saved = []
    save = checkpoint.save
    monkeypatch.setattr(
        checkpoint, "save", lambda at, step, *rest: (saved.append(step), save(at, step, *rest))
    )
    assert tiny.start(folder, "checkpoint.every=7") == 0
    assert saved == [7, 14, 21, 24]

    saved.clear()
    # A minute per step, whatever the calendar says.
    monkeypatch.setattr(common.run.trainer, "time", SimpleNamespace(monotonic=lambda: 60.0 * moments.step))
    moments.step = 0
    assert tiny.start(tmp_path / "by duration", "checkpoint.every=10min") == 0
    assert saved == [10, 20, 24]


def test_a_long_burst_is_saved_on_the_way(
    unbroken: Path, folder: Path, moments: Moments, monkeypatch: pytest.MonkeyPatch
):
    in_burst = []
    save = checkpoint.save

    def recorded(at: Path, step: int, state: dict[str, Any], replay: Replay) -> None:
        save(at, step, state, replay)
        if step == 8 and 0 < state["updates"] < 5:
            in_burst.append(state["updates"])
            shutil.copytree(folder, folder.with_name(f"killed{len(in_burst)}"))

    monkeypatch.setattr(checkpoint, "save", recorded)
    # Ten minutes per update of the burst.
    now = iter(range(0, 10**6, 600))
    monkeypatch.setattr(common.run.trainer, "time", SimpleNamespace(monotonic=lambda: next(now)))
    assert tiny.start(folder, "checkpoint.every=20min") == 0
    assert len(in_burst) >= 2
    assert tiny.resume(folder.with_name("killed2")) == 0
    tiny.assert_equal(folder.with_name("killed2"), unbroken)


def test_the_calendar_may_jump(unbroken: Path, folder: Path, monkeypatch: pytest.MonkeyPatch):
    jumps = itertools.cycle([2e9, 0.0, 1e9, 3e9, 1.0])
    for clock in ("time.time", "tqdm.std.time"):
        monkeypatch.setattr(clock, lambda: next(jumps))
    assert tiny.start(folder, "checkpoint.every=1h") == 0
    tiny.assert_equal(folder, unbroken)
    assert all(0 <= line.get("seconds", 0) < 600 for line in runs.read_json_lines(folder / "metrics.jsonl"))


def updates_of(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Where the step and the number of transitions held at each update will be noted."""
    noted: list[tuple[int, int]] = []
    update = Trainer.update

    def watched(trainer: Trainer, step: int, last: bool) -> None:
        noted.append((trainer.progress.step, len(trainer.replay)))
        update(trainer, step, last)

    monkeypatch.setattr(Trainer, "update", watched)
    return noted


def test_without_the_replay_updates_wait_until_it_has_filled(
    folder: Path, moments: Moments, monkeypatch: pytest.MonkeyPatch
):
    moments.at("step", 10, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert tiny.start(folder, "checkpoint.replay=none") == 75
    assert not (folder / "checkpoint" / "replay").exists()
    updates = updates_of(monkeypatch)
    assert tiny.resume(folder) == 0
    assert updates == [(step, step - 10) for step in range(18, 24)]  # as many as the first 8 random steps
    assert [record["step"] for record in runs.evaluations(folder)] == [12, 24]
    told = [line for line in runs.metrics(folder) if "replay_refills_until" in line]
    assert told == [{"step": 11, "replay_refills_until": 18}]
    assert any("updates go on at step 18" in line for line in moments.said)
    assert json.loads((folder / "provenance.json").read_text())["replay_emptied"] == ["at step 10"]


def test_without_the_replay_the_burst_waits_likewise(
    folder: Path, moments: Moments, monkeypatch: pytest.MonkeyPatch
):
    moments.at("step", 6, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert tiny.start(folder, "checkpoint.replay=none") == 75
    updates = updates_of(monkeypatch)
    assert tiny.resume(folder) == 0
    assert updates == [(14, 8)] * 5 + [(step, step - 6) for step in range(15, 24)]
    assert moments.count("burst") == 5


@pytest.mark.parametrize(("saved", "wanted"), [("full", "none"), ("none", "full")])
def test_saving_the_replay_may_begin_or_end_with_a_resume(
    saved: str, wanted: str, folder: Path, moments: Moments
):
    moments.at("step", 17, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert tiny.start(folder, f"checkpoint.replay={saved}") == 75
    assert tiny.resume(folder, f"checkpoint.replay={wanted}") == 0
    assert [line["step"] for line in runs.metrics(folder) if "loss/bellman" in line] == list(range(9, 25))
    emptied = any("replay_refills_until" in line for line in runs.metrics(folder))
    assert emptied  # what is not saved, or not asked for


def test_a_share_may_be_measured_at_a_resume(folder: Path, moments: Moments, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(foreground_share, "__defaults__", (5,))
    moments.at("step", 17, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert tiny.start(folder, agent="sgqn") == 75
    assert tiny.resume(folder, "sgqn.quantile=auto") == 0
    quantile = load_run_config(folder).settings.quantile
    assert 0.8 < quantile < 1
    by_hand, measured = recorded_sessions(folder)
    assert by_hand["measured_shares"] == {} and measured["measured_shares"] == {"quantile": quantile}
    # It stays measured when the run is prolonged, and is no longer when a number is set.
    assert tiny.resume(folder, "train.steps=25") == 0
    assert recorded_sessions(folder)[-1]["measured_shares"] == {"quantile": quantile}
    assert tiny.resume(folder, "train.steps=26", "sgqn.quantile=0.9") == 0
    assert recorded_sessions(folder)[-1]["measured_shares"] == {}


def test_two_processes_on_one_folder(stopped: Path, unbroken: Path, capsys: pytest.CaptureFixture[str]):
    before = {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}
    with RunFolder(stopped):
        assert tiny.resume(stopped) == 2
        assert "another process is training in this run folder" in capsys.readouterr().err
        assert tiny.start(stopped) == 2
        assert "another process" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}
    assert tiny.resume(stopped) == 0
    tiny.assert_equal(stopped, unbroken)


def test_moved_and_resumed_with_a_path_that_would_write_elsewhere(
    stopped_once: Path, unbroken: Path, tmp_path: Path
):
    moved = tmp_path / "moved"
    shutil.copytree(stopped_once, moved)
    stored = load_run_config(moved)
    assert stored.run_folder() == stopped_once
    before = {path: path.read_bytes() for path in stopped_once.rglob("*") if path.is_file()}
    assert tiny.resume(moved) == 0
    assert before == {path: path.read_bytes() for path in stopped_once.rglob("*") if path.is_file()}
    tiny.assert_equal(moved, unbroken)


def test_the_folder_tells_with_what_a_run_went_on(stopped: Path):
    before = (stopped / "config.yaml").read_bytes()
    assert tiny.resume(stopped, "train.steps=20") == 0
    assert load_run_config(stopped).train.steps == 20
    assert (stopped / "config-until-17.yaml").read_bytes() == before
    assert max(line["step"] for line in runs.metrics(stopped)) == 20


def test_the_folder_tells_by_which_code_each_part_was_learnt(stopped: Path, monkeypatch: pytest.MonkeyPatch):
    earlier = json.loads((stopped / "provenance.json").read_text())
    monkeypatch.setattr(run_folder, "git_commit", lambda: "newer")
    assert tiny.resume(stopped) == 0
    assert json.loads((stopped / "provenance-until-17.json").read_text()) == earlier
    assert json.loads((stopped / "provenance.json").read_text()) == earlier | {"git_commit": "newer"}
    assert not (stopped / "config-until-17.yaml").exists()


def test_another_configuration_is_refused_in_one_line(stopped: Path, capsys: pytest.CaptureFixture[str]):
    before = (stopped / "config.yaml").read_bytes()
    assert tiny.resume(stopped, "network.hidden=8") == 2
    assert (stopped / "config.yaml").read_bytes() == before
    assert "not one of this configuration" in capsys.readouterr().err.splitlines()[-1]


def test_the_same_command_goes_on_with_the_same_data_only(
    folder: Path,
    tmp_path: Path,
    moments: Moments,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    for name, count in (("one", 4), ("other", 7)):
        (tmp_path / name).mkdir()
        for number in range(count):
            pixels = np.full((32, 32, 3), 30 * number, np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    shutil.copytree(tmp_path / "one", tmp_path / "moved")
    moments.at("step", 17, lambda: os.kill(os.getpid(), signal.SIGTERM))
    monkeypatch.setenv("SMG_OVERLAY", str(tmp_path / "one"))
    assert tiny.start(folder, agent="svea") == 75

    monkeypatch.setenv("SMG_OVERLAY", str(tmp_path / "other"))
    kept = {path: path.read_bytes() for path in folder.glob("*.*")}
    shutil.copytree(folder, tmp_path / "on purpose")
    assert tiny.start(folder, agent="svea") == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert re.search(r"overlay images: 4 files, names' hash \w+, not 7 files, names' hash \w+", message)
    assert "SMG_OVERLAY" in message and "--resume" in message
    monkeypatch.delenv("SMG_OVERLAY")
    assert tiny.start(folder, agent="svea") == 2
    assert re.search(r"not \d+ procedural", capsys.readouterr().err.splitlines()[-1])
    assert kept == {path: path.read_bytes() for path in folder.glob("*.*")}

    assert tiny.start(folder, f"data.overlay={json.dumps(str(tmp_path / 'moved'))}", agent="svea") == 0
    assert not any("other data" in line for line in moments.said)

    folder = tmp_path / "on purpose"
    assert tiny.start(folder, f"data.overlay={json.dumps(str(tmp_path / 'other'))}", agent="svea") == 2
    command = capsys.readouterr().err.splitlines()[-1].partition("these data: smg ")[2]
    assert cli.main(shlex.split(command)) == 0
    assert any("goes on with other data: overlay images: 4 files" in line for line in moments.said)
    assert load_run_config(folder).data.overlay == str(tmp_path / "other")
    assert json.loads((folder / "provenance.json").read_text())["overlay"]["images"] == 7
    assert json.loads((folder / "provenance-until-17.json").read_text())["overlay"]["images"] == 4


def test_before_anything_is_learnt_data_may_be_forgotten(
    folder: Path, tmp_path: Path, moments: Moments, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "images").mkdir()
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "images" / "0.png")
    moments.at("step", 6, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert tiny.start(folder, agent="svea") == 75
    monkeypatch.setenv("SMG_OVERLAY", str(tmp_path / "images"))
    assert tiny.start(folder, agent="svea") == 0
    assert json.loads((folder / "provenance.json").read_text())["overlay"]["images"] == 1
    assert not list(folder.glob("*-until-*"))


def test_a_run_that_begins_anew_tells_with_what(folder: Path, moments: Moments):
    def fail() -> None:
        raise ZeroDivisionError

    moments.at("step", 3, fail)
    with pytest.raises(ZeroDivisionError):
        tiny.start(folder, "checkpoint.every=1h")
    assert not checkpoint.exists(folder / "checkpoint")
    assert tiny.resume(folder, "sac.discount=0.5") == 0
    assert load_run_config(folder).sac.discount == 0.5
    assert not list(folder.glob("*-until-*"))


def test_exported_scores_are_a_finished_run(
    unbroken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    scores = tmp_path / "scores"
    assert cli.main(["export", str(unbroken), str(scores), "--scores"]) == 0
    before = {path: path.read_bytes() for path in scores.glob("*.*")}
    capsys.readouterr()
    assert tiny.resume(scores) == 0
    assert "sac on finger_spin after 24 agent steps" in capsys.readouterr().out
    assert tiny.resume(scores, "train.steps=30") == 2
    assert "was exported at step 24, without the checkpoint" in capsys.readouterr().err
    assert all(path.read_bytes() == content for path, content in before.items())


def test_a_finished_run_without_its_replay_has_nothing_to_refill(folder: Path, moments: Moments):
    moments.at("step", 24, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert tiny.start(folder, "checkpoint.replay=none") == 75
    assert tiny.resume(folder) == 0
    assert not any("replay_refills_until" in line for line in runs.metrics(folder))
    assert tiny.resume(folder, "train.steps=30") == 0
    assert any("no update is left, as the run ends at step 30" in line for line in moments.said)
