"""What a run folder says: done, running, unfinished, failed, corrupt or missing."""

import fcntl
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from common.config.loading import load
from common.run.records import progress
from common.study.definition import PlannedRun
from common.study.folders import State, differences, is_held, read
from tests.common.study.written_runs import evaluations, study, write_lines, write_run


@pytest.fixture
def run(tmp_path: Path) -> PlannedRun:
    return study(tmp_path).runs[0]


def test_a_complete_final_evaluation_makes_a_run_done(run: PlannedRun) -> None:
    write_run(run, {"video_hard": [7.5], "train": [9.0]})
    found = read(run)
    assert (found.state, found.step, found.seconds) == (State.DONE, 60, 30)
    assert found.final_returns("video_hard") == (7.5,)
    assert found.evaluations("train") == [(30, 9.0), (60, 9.0)]


def test_an_archived_run_without_metrics_has_the_step_of_its_last_evaluation(run: PlannedRun) -> None:
    write_run(run)
    (run.folder / "metrics.jsonl").unlink()
    found = read(run)
    assert (found.state, found.step, found.seconds) == (State.DONE, 60, None)
    write_run(run, steps=[30])  # its metrics reach step 30, as its evaluation does
    (run.folder / "metrics.jsonl").unlink()
    assert read(run).step == 30
    write_run(run, steps=[])
    assert read(run).step == 0


def test_only_the_last_evaluation_counts(run: PlannedRun) -> None:
    write_run(run)
    records = evaluations(run, {"train": [100.0]}, [30]) + evaluations(run, {"train": [3.0]}, [60])
    write_lines(run.folder / "eval.jsonl", records)
    assert read(run).final_returns("train") == (3.0,)


def test_no_folder_is_missing_and_a_folder_without_a_configuration_too(run: PlannedRun) -> None:
    assert read(run).state is State.MISSING
    run.folder.mkdir(parents=True)
    (run.folder / "train.log").write_text("starting\n")
    assert read(run).state is State.MISSING


def test_a_run_stopped_early_is_unfinished(run: PlannedRun) -> None:
    write_run(run, steps=[30])
    found = read(run)
    assert (found.state, found.detail) == (State.UNFINISHED, "last evaluated at step 30 of 60")


def test_a_half_written_last_line_is_an_episode_that_is_not_there(run: PlannedRun) -> None:
    write_run(run)
    content = (run.folder / "eval.jsonl").read_bytes()
    (run.folder / "eval.jsonl").write_bytes(content[:-20])
    found = read(run)
    assert found.state is State.UNFINISHED
    assert found.detail == "final evaluation has 0 of 1 episodes under video_hard"


def test_an_evaluation_cut_short_is_no_point_of_the_curve(tmp_path: Path) -> None:
    run = study(tmp_path, "eval.episodes=2").runs[0]
    write_run(run)
    records = evaluations(run, {"train": [1.0, 3.0]}, [30]) + evaluations(run, {"train": [8.0, 9.0]}, [60])
    write_lines(run.folder / "eval.jsonl", records[:-1])
    found = read(run)
    cut, whole = records[-1]["shift"], records[-3]["shift"]
    assert found.state is State.UNFINISHED and cut != whole
    assert [step for step, _ in found.evaluations(cut)] == [30]
    assert [step for step, _ in found.evaluations(whole)] == [30, 60]
    write_lines(run.folder / "eval.jsonl", records)
    assert [step for step, _ in read(run).evaluations(cut)] == [30, 60]


def test_an_evaluated_run_whose_last_weights_were_not_saved_is_unfinished(run: PlannedRun) -> None:
    write_run(run)
    (run.folder / "checkpoint").mkdir()
    manifest = {"step": 30, "state": "state-30.pt", "sha256": "0" * 64, "replay": None}
    (run.folder / "checkpoint/latest.json").write_text(json.dumps(manifest))
    assert read(run).state is State.UNFINISHED
    (run.folder / "checkpoint/latest.json").write_text(json.dumps(manifest | {"step": 60}))
    assert read(run).state is State.DONE


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (
            lambda folder: (folder / "eval.jsonl").write_text("{}\n"),
            "eval.jsonl: line 1 has no proper 'step'",
        ),
        (lambda folder: (folder / "eval.jsonl").write_text("[1]\n"), "eval.jsonl: line 1 is not"),
        (lambda folder: (folder / "eval.jsonl").write_bytes(b"\xff\xfe\n"), "eval.jsonl: line 1 is not"),
        (
            lambda folder: _replace(folder / "eval.jsonl", '"return": 1.0', '"return": NaN'),
            "line 1: its return is not finite",
        ),
        (
            lambda folder: _replace(folder / "eval.jsonl", '"return": 1.0', '"return": "1"'),
            "line 1 has no proper 'return'",
        ),
        (
            lambda folder: _replace(folder / "eval.jsonl", '"return": 1.0', f'"return": {10**400}'),
            "line 1: its return is not finite",
        ),
        (lambda folder: _replace(folder / "eval.jsonl", '"seed": 42', '"seed": 43'), "seed 43, not 42"),
        (
            lambda folder: _replace(folder / "provenance.json", "CPU, 2 threads", r"\ud800"),
            "holds what is no text",
        ),
        (lambda folder: _repeat_a_line(folder / "eval.jsonl"), "appears twice"),
        (lambda folder: (folder / "provenance.json").write_text("{"), "provenance.json cannot be read"),
        (lambda folder: (folder / "provenance.json").unlink(), "provenance.json cannot be read"),
        (lambda folder: (folder / "config.yaml").write_text("agent: ["), "not valid YAML"),
        (lambda folder: _replace(folder / "config.yaml", "batch: 8", "batch: x"), "train.batch"),
        (lambda folder: _replace(folder / "config.yaml", "seed: 0", "seed: 1"), "its seed is 1, not 0"),
        (
            lambda folder: _replace(folder / "config.yaml", "walker_walk", "walker_run"),
            "its task is walker_run",
        ),
    ],
)
def test_damage_is_told_and_never_averaged(
    run: PlannedRun, damage: Callable[[Path], object], told: str
) -> None:
    write_run(run)
    damage(run.folder)
    found = read(run)
    assert found.state is State.CORRUPT
    assert told in found.detail
    assert found.episodes == ()


def test_a_failed_attempt_shows_its_last_words(run: PlannedRun) -> None:
    write_run(run, steps=[30])
    (run.folder / "attempts.jsonl").write_text('{"status": 0}\n{"status": 2}\n')
    (run.folder / "train.log").write_text("50%|\r60%|\nsmg: the GPU's memory is full\n")
    found = read(run)
    assert found.state is State.FAILED
    assert found.detail == "exit status 2: smg: the GPU's memory is full (step 30 of 60)"
    (run.folder / "attempts.jsonl").write_text('{"status": -9}\n')
    assert read(run).detail.startswith("killed by SIGKILL")
    # A damaged record of attempts says nothing of the run.
    (run.folder / "attempts.jsonl").write_text('nonsense\n{"status": 2}\n')
    assert read(run).state is State.UNFINISHED
    # A scheduler's stop is no failure.
    (run.folder / "attempts.jsonl").write_text('{"status": 75}\n')
    assert read(run).state is State.UNFINISHED


@pytest.mark.parametrize("name", [".claim", ".lock"])
def test_a_locked_folder_is_running(run: PlannedRun, name: str) -> None:
    write_run(run, steps=[30])
    with (run.folder / name).open("w") as lock:
        assert not is_held(run.folder)
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert read(run).state is State.RUNNING
        assert read(run, claimed=True).state is State.UNFINISHED


def test_progress_is_that_of_the_newest_line_with_seconds(run: PlannedRun) -> None:
    assert progress(run.folder) == (0, None)
    write_run(run)
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 64, "episode/return": 3}\n{"step": 7')
    assert progress(run.folder) == (60, 30)


def test_metrics_that_cannot_be_parsed_are_no_progress(run: PlannedRun) -> None:
    write_run(run)
    (run.folder / "metrics.jsonl").write_text('{"step": 7, "seconds": 3}\n' + "[" * 10_000 + "\n")
    assert progress(run.folder) == (7, 3)
    assert read(run).state is State.DONE


def test_differences_are_those_that_change_a_result() -> None:
    usual = load("sac", "walker_walk", "smoke")
    elsewhere = load(
        "sac",
        "walker_walk",
        "smoke",
        overrides=[
            "seed=5",
            "device=cpu",
            "eval.processes=1",
            "wandb.mode=disabled",
            "run.dir=x",
            "amp=off",
            "threads=7",
        ],
    )
    other = load("sac", "walker_walk", "smoke", overrides=["optim.actor.lr=0.01", "eval.clips=[0, 4]"])
    assert list(differences(usual, elsewhere)) == []
    assert list(differences(usual, other)) == [
        ("eval.clips", None, [0, 4]),
        ("optim.actor.lr", 0.001, 0.01),
    ]


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def _repeat_a_line(path: Path) -> None:
    first, *rest = path.read_text().splitlines(keepends=True)
    path.write_text("".join([first, first, *rest]))
