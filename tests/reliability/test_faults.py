"""Things that break while a run is on: it goes on, or ends in one line with its last checkpoint intact."""

import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from signal import SIGSTOP
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from common.config.loading import load
from common.envs import processes
from common.envs.benchmark import BenchmarkEnv
from common.rl.sac import SAC
from common.run import checkpoint
from common.run.wandb_mirror import WandbMirror
from tests import runs
from tests.common.envs.written_clips import flat, write_clip
from tests.reliability import tiny
from tests.reliability.conftest import Moments

pytestmark = pytest.mark.slow

# Disk


@pytest.fixture
def file_limit() -> Iterator[None]:
    """Puts back the limit on the size of files: what a disk without room does where none can be mounted."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def limit_files(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@pytest.mark.usefixtures("file_limit")
def test_no_room_for_a_checkpoint_costs_a_message(unbroken: Path, folder: Path, moments: Moments):
    moments.at("step", 8, lambda: limit_files(8_000))
    moments.at("step", 18, lambda: limit_files(resource.RLIM_INFINITY))
    assert tiny.start(folder) == 0
    tiny.assert_equal(folder, unbroken)
    assert [line.split(" (")[0] for line in moments.said if line.startswith("no checkpoint")] == [
        "no checkpoint written at step 10",
        "no checkpoint written at step 15",
    ]


@pytest.mark.usefixtures("file_limit")
def test_no_room_for_metrics_ends_in_one_line(
    unbroken: Path, folder: Path, moments: Moments, capsys: pytest.CaptureFixture[str]
):
    moments.at("step", 18, lambda: limit_files((folder / "metrics.jsonl").stat().st_size + 9))
    assert tiny.start(folder) == 2
    limit_files(resource.RLIM_INFINITY)
    error = "metrics.jsonl cannot be written (File too large): make room, then give the command again"
    assert capsys.readouterr().err.splitlines()[-1].endswith(error)
    assert (folder / "metrics.jsonl").read_bytes()[-1:] != b"\n"  # half a line
    assert tiny.resume(folder) == 0
    tiny.assert_equal(folder, unbroken)


@pytest.mark.usefixtures("file_limit")
def test_no_room_for_the_run_folder_leaves_nothing(folder: Path, capsys: pytest.CaptureFixture[str]):
    limit_files(100)
    assert tiny.start(folder) == 2
    limit_files(resource.RLIM_INFINITY)
    assert "cannot be written (File too large)" in capsys.readouterr().err.splitlines()[-1]
    assert not folder.exists()


def test_full_disk(unbroken: Path, tmp_path: Path, moments: Moments, capsys: pytest.CaptureFixture[str]):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a small disk needs root's rights")
    try:
        ballast = disk / "ballast"

        def leave(size: int) -> None:
            with ballast.open("ab") as file:
                file.write(bytes(shutil.disk_usage(disk).free - size))

        moments.at("step", 8, lambda: leave(32_768))  # too little for a checkpoint
        moments.at("step", 12, lambda: leave(0))
        folder = disk / "run"
        assert tiny.start(folder) == 2
        [failed] = [line for line in moments.said if line.startswith("no checkpoint")]
        assert "written at step 10 ([Errno 28] No space left on device" in failed
        error = capsys.readouterr().err.splitlines()[-1]
        assert "eval.jsonl cannot be written (No space left on device): make room, then give" in error
        assert checkpoint.load(folder / "checkpoint", None)[0]["step"] == 5
        ballast.unlink()
        assert tiny.resume(folder) == 0
        tiny.assert_equal(folder, unbroken)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# Processes


@pytest.mark.parametrize(
    ("event", "count"),
    [("step", 13), ("burst", 2), ("episode", 1), ("step", 15)],
    ids=["step", "burst", "reset", "checkpoint"],
)
def test_a_killed_environment_is_replaced_once(
    event: str, count: int, folder: Path, moments: Moments, monkeypatch: pytest.MonkeyPatch
):
    seeds: list[int] = []
    replace = processes.TrainingEnv.restart

    def noted(env: processes.TrainingEnv, seed: int) -> None:
        seeds.extend((env._arguments["seed"], seed))
        replace(env, seed)

    monkeypatch.setattr(processes.TrainingEnv, "restart", noted)
    moments.at(event, count, lambda: tiny.kill(*tiny.workers()))
    assert tiny.start(folder, "env.ahead=1") == 0
    [restart] = [line for line in runs.metrics(folder) if "environment_restarted" in line]
    assert "was killed by signal 9" in restart["environment_restarted"]
    assert sum("restarted with a fresh episode" in line for line in moments.said) == 1
    assert [line["step"] for line in runs.metrics(folder) if "loss/bellman" in line] == list(range(9, 25))
    assert [record["step"] for record in runs.evaluations(folder)] == [12, 24]
    # The episode that was lost is no episode; the burst was done once.
    lengths = [line["episode/length"] for line in runs.metrics(folder) if "episode/length" in line]
    assert lengths == [5] * len(lengths)
    # With its first seed it would begin the run's first episodes again.
    assert len(set(seeds)) == len(seeds) == 2


def test_an_environment_that_hangs_is_replaced_and_the_run_goes_on(
    folder: Path, moments: Moments, monkeypatch: pytest.MonkeyPatch
):
    def hang() -> None:
        [worker] = tiny.workers()
        os.kill(worker, SIGSTOP)
        monkeypatch.setattr(processes, "ANSWER_SECONDS", 2)

    moments.at("step", 13, hang)
    assert tiny.start(folder, "env.ahead=1") == 0
    [restart] = [line for line in runs.metrics(folder) if "environment_restarted" in line]
    assert "gave no answer for 4 s" in restart["environment_restarted"]
    assert [line["step"] for line in runs.metrics(folder) if "loss/bellman" in line] == list(range(9, 25))


DIVERGING = ("env.ahead=0", "eval.processes=0", "eval.envs=1", "eval.episodes=2")


@pytest.fixture
def diverging(monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulation of an odd episode diverges at its third step."""
    step = BenchmarkEnv.step

    def unstable(env: BenchmarkEnv, action: np.ndarray) -> Any:
        obs, reward, terminated, truncated, info = step(env, action)
        if env._episodes % 2 == 0 or env._position < 3:
            return obs, reward, terminated, truncated, info
        return np.zeros_like(obs), 0.25, False, True, info | {"diverged": True}

    monkeypatch.setattr(BenchmarkEnv, "step", unstable)


@pytest.mark.usefixtures("diverging")
def test_a_simulation_that_diverges_ends_its_episode_and_nothing_else(folder: Path, moments: Moments):
    assert tiny.start(folder, *DIVERGING) == 0
    # Episodes of 3 steps, which end diverged, and of 5 take turns: 3, 5, 3, 5, 3, 5 (whole at step 24).
    episodes = [line for line in runs.metrics(folder) if "episode/return" in line]
    assert [line["step"] for line in episodes] == [3, 8, 11, 16, 19, 24]
    assert [line.get("episode/diverged", False) for line in episodes] == [True, False] * 3
    assert sum("the simulation diverged at step" in line for line in moments.said) == 3
    assert not any("restarted" in line for line in moments.said)
    # What is seen of a simulation that diverged does not follow from the action: it is not learnt from.
    manifest = checkpoint.read_manifest(folder / "checkpoint" / "latest.json")
    assert manifest["replay"]["transition_count"] == 24 - 3
    for record in runs.evaluations(folder):
        odd = record["episode"] == 0  # of each evaluation, which one environment plays
        assert record.get("diverged", False) == odd
        assert record["length"] == (3 if odd else 5)
    assert moments.said.count("the simulation diverged in 1 of 2 evaluation episodes") == 2


@pytest.mark.usefixtures("diverging")
def test_a_simulation_that_diverges_again_and_again_is_resumed_exactly(
    folder: Path, tmp_path: Path, moments: Moments
):
    assert tiny.start(tmp_path / "whole", *DIVERGING) == 0
    for step in (10, 18):
        moments.at("step", 24 + step, lambda: os.kill(os.getpid(), tiny.SIGTERM))
    assert tiny.start(folder, *DIVERGING) == 75
    assert tiny.resume(folder) == 75
    assert tiny.resume(folder) == 0
    tiny.assert_equal(folder, tmp_path / "whole")


def test_a_simulation_that_fails_in_this_process_is_replaced_once(
    folder: Path, moments: Moments, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    step = BenchmarkEnv.step
    failures = iter([False] * 12 + [True] + [False] * 3 + [True])

    def unstable(env: BenchmarkEnv, action: np.ndarray) -> Any:
        if next(failures):
            raise ValueError("NaN in qacc")
        return step(env, action)

    monkeypatch.setattr(BenchmarkEnv, "step", unstable)
    assert tiny.start(folder, "env.ahead=0", "eval.every=24") == 2
    [restart] = [line for line in runs.metrics(folder) if "environment_restarted" in line]
    assert restart["environment_restarted"] == "the simulation failed: ValueError: NaN in qacc"
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("smg: the environment failed again (the simulation failed: ValueError")
    assert "--resume" not in error  # which would replay it


def test_the_second_death_of_the_environment_is_the_end(
    folder: Path, moments: Moments, capsys: pytest.CaptureFixture[str]
):
    for step in (11, 14):
        moments.at("step", step, lambda: tiny.kill(*tiny.workers()))
    assert tiny.start(folder, "env.ahead=1") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("smg: the environment died again (the environment process")
    assert error.endswith(f"was killed by signal 9); continue with: {tiny.resume_command(folder)}")
    # A resumed run may lose one again.
    moments.at("step", moments.count("step") + 3, lambda: tiny.kill(*tiny.workers()))
    assert tiny.resume(folder) == 0
    assert [line["step"] for line in runs.metrics(folder) if "loss/bellman" in line] == list(range(9, 25))


@pytest.mark.parametrize("deaths", [1, 2])
def test_a_killed_evaluation_worker_costs_a_repetition(
    deaths: int,
    unbroken: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
):
    calls = 0
    act = SAC.act

    def deadly(agent: SAC, obs: torch.Tensor, sample: bool) -> torch.Tensor:
        nonlocal calls
        calls += not sample
        if not sample and calls in (3, 6)[:deaths]:
            tiny.kill(*tiny.workers())
        return act(agent, obs, sample)

    monkeypatch.setattr(SAC, "act", deadly)
    status = tiny.start(folder, "eval.processes=1")
    assert "its episodes are played again" in caplog.text
    if deaths == 1:
        assert status == 0
        tiny.assert_equal(folder, unbroken)
    else:
        assert status == 2
        assert "was killed by signal 9" in capsys.readouterr().err.splitlines()[-1]
        state, _ = checkpoint.load(folder / "checkpoint", None)
        assert state["step"] == 12  # nothing was lost, though a checkpoint was due only at 10
        assert tiny.resume(folder) == 0
        tiny.assert_equal(folder, unbroken)


# Data


def test_a_clip_that_becomes_unreadable_stops_the_run_until_it_is_back(
    folder: Path, tmp_path: Path, moments: Moments, capsys: pytest.CaptureFixture[str]
):
    data = tmp_path / "data"
    (data / "video_easy").mkdir(parents=True)
    for number in range(3):
        frames = [flat(60 * number + time) for time in range(4)]
        write_clip(data / "video_easy" / f"video{number}.mp4", frames)
    settings = ("eval.shifts=[video_easy]", f"data.root={json.dumps(str(data))}")
    assert tiny.start(tmp_path / "unbroken", *settings) == 0
    shutil.copytree(data, tmp_path / "copy")

    def cut_off() -> None:
        for path in (data / "video_easy").iterdir():
            path.write_bytes(path.read_bytes()[:1000])

    moments.at("step", 24 + 14, cut_off)
    assert tiny.start(folder, *settings) == 2
    assert "video2.mp4 is" in capsys.readouterr().err.splitlines()[-1]
    shutil.rmtree(data)
    shutil.copytree(tmp_path / "copy", data)
    moments.step = 0
    assert tiny.resume(folder) == 0
    assert moments.step == 0  # no step of training was lost
    tiny.assert_equal(folder, tmp_path / "unbroken")


def test_clips_that_only_later_evaluations_show_are_checked_before_training(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    clips = tmp_path / "data" / "video_easy"
    clips.mkdir(parents=True)
    for number in range(4):
        write_clip(clips / f"video{number}.mp4", [flat(60 * number)] * 4)
    # Two evaluations of one episode show video1 and video2.
    settings = ("eval.shifts=[video_easy]", "eval.episodes=1", f"data.root={json.dumps(str(clips.parent))}")
    (clips / "video3.mp4").write_bytes(b"not shown")
    (clips / "video2.mp4").write_bytes(b"cut off")
    assert tiny.start(folder, *settings) == 2
    assert "video2.mp4 is corrupt or not a video" in capsys.readouterr().err.splitlines()[-1]
    assert not folder.exists()
    write_clip(clips / "video2.mp4", [flat(60)] * 4)
    assert tiny.start(folder, *settings) == 0


def test_overlay_images_that_become_unreadable_are_passed_over(
    folder: Path, tmp_path: Path, moments: Moments, caplog: pytest.LogCaptureFixture
):
    images = tmp_path / "images"
    images.mkdir()
    noise = np.random.default_rng(0)
    for number in range(24):
        Image.fromarray(noise.integers(0, 256, (32, 32, 3), np.uint8)).save(images / f"{number}.png")

    def damage() -> None:
        for number in range(1, 24):
            (images / f"{number}.png").write_bytes(b"\x89PNG")

    moments.at("step", 8, damage)
    overlays = (f"data.overlay={json.dumps(str(images))}", "data.overlay_bank=8", "train.batch=8")
    assert tiny.start(folder, *overlays, "train.burst_updates=60", agent="smg") == 0
    assert caplog.text.count("is skipped") > 5
    assert [line["step"] for line in runs.metrics(folder) if "loss/bellman" in line] == list(range(9, 25))


# Numbers and memory


def test_divergence_names_the_loss_and_a_weight_and_is_never_saved(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    assert tiny.start(folder, "optim.critic.lr=1e30", "checkpoint.every=1", "train.log_every=24") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "not finite: loss/bellman, " in error and "critic." in error and " more weights" in error
    assert error.endswith(f"the last good checkpoint stays in {folder / 'checkpoint'}")
    for name in ("latest.json", "previous.json"):
        manifest = checkpoint.read_manifest(folder / "checkpoint" / name)
        state = checkpoint.load_tensors(folder / "checkpoint" / manifest["state"])
        weights = [value for value in state["agent"].values() if isinstance(value, torch.Tensor)]
        assert len(weights) > 20 and all(weight.isfinite().all() for weight in weights)


def test_out_of_memory_says_what_to_lower(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert tiny.start(folder, "network.hidden=1_000_000") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "cpu's memory is full (" in error
    assert error.endswith("lower train.batch, network.filters or replay.capacity")
    assert not folder.exists()


# Weights & Biases


def test_wandb_that_refuses_costs_a_warning(
    unbroken: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("WANDB_API_KEY", "not a key")
    assert tiny.start(folder, "wandb.mode=online") == 0
    assert "W&B mirroring stopped (" in caplog.text
    tiny.assert_equal(folder, unbroken)


SILENT_SERVER = """
import os, socket, sys
from pathlib import Path
from common.config.loading import load
from common.run.wandb_mirror import WandbMirror

server = socket.create_server(("127.0.0.1", 0))
port = server.getsockname()[1]
os.environ |= {"WANDB_BASE_URL": f"http://127.0.0.1:{port}", "WANDB_API_KEY": 40 * "a"}
config = load("sac", "walker_walk", "smoke", overrides=["wandb.mode=online"])
mirror = WandbMirror(config, Path(sys.argv[1]), patience=1)
mirror.update([{"step": 1}])
mirror.finish()
print("went on", flush=True)
"""


def test_wandb_that_hangs_costs_a_warning_and_lets_the_process_end(tmp_path: Path):
    command = [sys.executable, "-c", SILENT_SERVER, str(tmp_path)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0 and finished.stdout.endswith("went on\n")
    assert "W&B mirroring stopped (" in finished.stderr


UNDER_ANOTHER = """
import os, sys
from pathlib import Path
from common.config.loading import load
from common.run.wandb_mirror import WandbMirror

os.environ["WANDB_SERVICE"] = "3-1-unix-/nowhere"  # the helper of a process that has used W&B itself
mirror = WandbMirror(load("sac", "walker_walk", "smoke", overrides=["wandb.mode=offline"]), Path(sys.argv[1]))
mirror.update([{"step": 1}])
mirror.finish()
"""


def test_the_helper_process_of_wandb_is_its_own(tmp_path: Path):
    subprocess.run([sys.executable, "-c", UNDER_ANOTHER, str(tmp_path)], check=True, timeout=120)
    [session] = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    assert [row["step"] for row in runs.wandb_history(session)] == [1]


def test_a_session_that_a_kill_cut_short_is_sent_anew_even_while_wandb_still_writes_to_it(tmp_path: Path):
    config = load("sac", "walker_walk", "smoke", overrides=["wandb.mode=offline"])

    def mirror(rows: int) -> None:
        mirror = WandbMirror(config, tmp_path)
        mirror.update([{"step": number} for number in range(rows)])
        mirror.finish()

    mirror(2)
    [finished] = tmp_path.glob("wandb/offline-run-*")
    cut_short = finished.with_name(finished.name.replace("-run-2", "-run-1"))  # of another millennium
    shutil.copytree(finished, cut_short)
    ended = threading.Event()

    def write_on() -> None:
        while not ended.wait(0.001):
            with contextlib.suppress(OSError):
                (cut_short / "files" / str(time.monotonic_ns())).touch()

    writer = threading.Thread(target=write_on)
    writer.start()
    threading.Timer(0.5, ended.set).start()
    mirror(3)
    writer.join()
    assert not cut_short.exists()
    sessions = sorted(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    assert sessions[0].parent == finished and len(sessions) == 2
    assert [row["step"] for session in sessions for row in runs.wandb_history(session)] == [0, 1, 2]


def test_a_damaged_note_of_what_wandb_has_begins_a_new_wandb_run(stopped: Path, unbroken: Path):
    (stopped / "mirrored.json").write_text('{"id": "../../x", "rows": 3, "sessions": [".."]}')
    assert tiny.resume(stopped, "wandb.mode=offline") == 0
    [file] = stopped.glob("wandb/offline-run-*/run-*.wandb")
    assert len(runs.wandb_history(file)) == len(runs.metrics(unbroken)) + 2  # evaluations
