"""Studies that really run, and what befalls them."""

import csv
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from signal import SIGCONT, SIGSTOP, SIGTERM
from threading import Barrier, Event

import pytest
import torch

from common import cli
from common.errors import UserError
from common.run.signals import Interruption, Signals
from common.study.attempt import attempt
from common.study.command import share_of_threads
from common.study.definition import PlannedRun
from common.study.folders import State, read
from common.study.runner import LOSSES, Lost, Runner, check_folders
from tests.common.study import real_runs
from tests.common.study.real_runs import (
    assert_finished_once,
    at_work,
    attempts,
    log,
    meet_half_way,
    returns,
    studying,
    until,
)
from tests.common.study.written_runs import PROVENANCE, study, write_run


def bring(
    runs: Sequence[PlannedRun],
    outcomes: Callable[[PlannedRun, Event], int | None],
    retries: int = 2,
    workers: int = 1,
) -> list[str]:
    """Names of the runs that a `Runner` gives up, with attempts that train nothing."""
    found_runs = [read(run) for run in runs]
    with Signals() as signals:
        given_up = Runner(outcomes, workers, retries, lambda _: "", signals).bring_to_end(found_runs)
    return [run.name for run in given_up]


class Scripted:
    """Attempts that end as they are told to, one after the other, and at last with a finished run."""

    def __init__(self, outcomes: dict[str, Sequence[int | Exception | None]]) -> None:
        self._outcomes = {name: list(each) for name, each in outcomes.items()}
        self.order: list[str] = []

    def __call__(self, run: PlannedRun, stopping: Event) -> int | None:
        self.order.append(run.column)
        if not self._outcomes.get(run.column):
            write_run(run)
            return 0
        outcome = self._outcomes[run.column].pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


@pytest.fixture
def runs(tmp_path: Path) -> Sequence[PlannedRun]:
    """SAC, DrQ and SMG on one task."""
    return study(tmp_path, "tasks=[walker_walk]", "seeds=[0]").runs


def test_failures_are_counted_for_each_run_while_the_others_go_on(
    runs: Sequence[PlannedRun], capfd: pytest.CaptureFixture[str]
) -> None:
    attempts = Scripted({"sac": [2, RuntimeError("no room"), -9], "drq": [2, 1]})
    assert bring(runs, attempts) == ["walker_walk/sac/seed0"]
    assert attempts.order[:3] == ["sac", "drq", "smg"]
    assert Counter(attempts.order) == {"sac": 3, "drq": 3, "smg": 1}
    said = capfd.readouterr().err
    assert said.count("; tried again") == 4
    assert "walker_walk/sac/seed0: no room; tried again" in said
    assert said.count(f"given up, see {runs[0].folder / 'train.log'}") == 1


def test_a_stop_a_lost_machine_and_another_process_are_no_failures(
    runs: Sequence[PlannedRun], capfd: pytest.CaptureFixture[str]
) -> None:
    attempts = Scripted({"sac": [75, -SIGTERM, 130, Lost("the node was lost")], "drq": [None]})
    assert bring(runs, attempts, retries=0) == []
    said = capfd.readouterr().err
    assert said.count("walker_walk/sac/seed0: stopped by a signal at step 0; it goes on") == 3
    assert "walker_walk/sac/seed0: the node was lost; it goes on" in said
    assert attempts.order.count("drq") == 2 and said.count("walker_walk/drq/seed0: done") == 1


def test_a_run_that_is_always_stopped_is_given_up(runs: Sequence[PlannedRun]) -> None:
    attempts = Scripted({"sac": [75] * (LOSSES + 1)})
    assert bring(runs[:1], attempts) == ["walker_walk/sac/seed0"]
    assert len(attempts.order) == LOSSES + 1


@pytest.mark.parametrize("outcome", [3, UserError("the folder cannot be written")])
def test_what_no_run_can_do_without_ends_the_study(
    runs: Sequence[PlannedRun], outcome: int | Exception
) -> None:
    attempts = Scripted({"sac": [outcome]})
    with pytest.raises(UserError):
        bring(runs, attempts, retries=5)
    assert "sac" not in attempts.order[1:]


def test_a_signal_stops_all_attempts_and_the_study_waits_for_them(runs: Sequence[PlannedRun]) -> None:
    saved, both = [], Barrier(2)

    def until_stopped(run: PlannedRun, stopping: Event) -> int:
        if both.wait(60) == 0:
            os.kill(os.getpid(), SIGTERM)
        saved.append((run.column, stopping.wait(60)))
        return 75

    with pytest.raises(Interruption) as stop:
        bring(runs, until_stopped, workers=2)
    assert stop.value.status == 75
    assert sorted(saved) == [("drq", True), ("sac", True)]


@pytest.mark.slow
def test_a_study_that_is_done_starts_nothing_and_prints_its_table(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    planned = study(tmp_path)
    for run in planned.runs:
        write_run(run)
    assert cli.main(["study", "run", str(tmp_path / "small.yaml"), f"folder={planned.folder}"]) == 0
    printed = capfd.readouterr()
    assert "12 runs: 12 done; estimate: 0.0 hours" in printed.err
    assert not list(planned.folder.glob("**/train.log"))
    assert (planned.folder / "small.md").read_text().strip() in printed.out
    assert r"\bottomrule" in (planned.folder / "small.tex").read_text()
    assert all(run.name in (planned.folder / "small.html").read_text() for run in planned.runs)


def test_several_runs_at_a_time_share_the_threads_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert share_of_threads(2) == {}
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert share_of_threads(1) == {}
    assert [share_of_threads(jobs)["OMP_NUM_THREADS"] for jobs in (2, 3, 8)] == ["3", "2", "1"]


@pytest.mark.parametrize("arguments", [("--jobs", "0"), ("--jobs", "2", "--engine", "ray")])
def test_jobs_that_cannot_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    study(tmp_path)
    assert cli.main(["study", "run", str(tmp_path / "small.yaml"), *arguments]) == 2
    assert "should be at least 1, and goes with --engine local" in capsys.readouterr().err


@pytest.mark.slow
def test_a_study_killed_stopped_and_started_again_does_every_run_once(tmp_path: Path) -> None:
    planned = study(tmp_path, text=real_runs.STUDY)
    sac, drq = planned.runs
    command = (tmp_path / "small.yaml", f"folder={planned.folder}", "--retries", "0")

    with ExitStack() as thaw:
        with studying(*command, "--jobs", "2") as killed:
            meet_half_way(drq)
            # Both trainers are asked to stop when their study dies; this one cannot before it is let go on.
            frozen = meet_half_way(sac)
            os.kill(frozen, SIGSTOP)
            thaw.callback(os.kill, frozen, SIGCONT)
            killed.kill()
        until(lambda: not at_work(drq), "the orphan's end")
        assert "stopped by SIGTERM and saved" in log(drq)
        assert [read(run).state for run in planned.runs] == [State.RUNNING, State.UNFINISHED]
        assert attempts(sac) == attempts(drq) == []
        begun = log(sac)

        with studying(*command) as stopped:
            until(lambda: f"{drq.name}: resumed" in stopped.printed(), "resuming the run that is free")
            stopped.signal(SIGTERM)
            assert stopped.wait() == 75
            assert "stopped by SIGTERM and saved; the same command goes on from there" in stopped.printed()
        assert attempts(drq) in ([75], [-SIGTERM])
        assert not list(planned.folder.glob("small.*"))

        with studying(*command) as last:
            until(lambda: f"{drq.name}: done" in last.printed(), "the end of the run that is free")
            assert last.running() and at_work(sac) and log(sac) == begun
            thaw.close()
            assert last.wait() == 0
            assert f"{sac.name}: resumed" in last.printed()
    assert "stopped by SIGTERM and saved" in log(sac)
    assert attempts(sac) == [0]
    for run in planned.runs:
        assert_finished_once(run)
    rows = csv.DictReader((planned.folder / "small.csv").read_text().splitlines())
    assert {row["agent"]: float(row["mean"]) for row in rows if row["task"]} == {
        run.column: pytest.approx(returns(run)[0]) for run in planned.runs
    }


@pytest.mark.slow
def test_failing_and_damaged_runs_are_told_with_the_table_of_the_others(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    agents = "{diverging: {agent: sac, optim.critic.lr: 1.0e+30}, damaged: {agent: sac}, drq: {}}"
    text = real_runs.STUDY.replace("agents: [sac, drq]", f"agents: {agents}")
    planned = study(tmp_path, "train.burst_updates=1", text=text)
    diverging, damaged, drq = planned.runs
    write_run(damaged)
    (damaged.folder / "eval.jsonl").write_text("nonsense\n")
    write_run(drq, {"train": [5.0]}, steps=[real_runs.STEPS])
    arguments = [str(tmp_path / "small.yaml"), f"folder={planned.folder}", "train.burst_updates=1"]

    assert cli.main(["study", "run", *arguments, "--retries", "0"]) == 1
    printed = capfd.readouterr()
    told = f"{diverging.name}: exit status 2: smg: at step"
    assert printed.err.count(told) == 1
    assert f"given up, see {diverging.folder / 'train.log'}" in printed.err
    assert f"{damaged.folder}: left alone, it is damaged" in printed.err
    assert attempts(diverging) == [2]
    assert attempts(damaged) == attempts(drq) == []
    assert f"- {diverging.name}: failed (exit status 2: smg: at step" in printed.out
    assert f"- {damaged.name}: corrupt (" in printed.out
    lines = ["| walker_walk | diverging | - | - |", "|  | damaged | - | - |", "|  | drq | 5 | 1 × 1 |"]
    assert "\n".join(lines) in printed.out


def test_a_trainer_stopped_before_it_began_has_not_failed(tmp_path: Path) -> None:
    [run, *_] = study(tmp_path, text=real_runs.STUDY).runs
    stopping = Event()
    stopping.set()
    status = attempt(run, stopping, {})
    assert status in (75, -SIGTERM)
    assert attempts(run) == [status]
    assert read(run).state is State.MISSING


def test_runs_with_other_settings_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planned = study(tmp_path)
    write_run(planned.runs[1])
    arguments = [
        str(tmp_path / "small.yaml"),
        f"folder={planned.folder}",
        "train.batch=9",
        "sac.discount=0.9",
    ]
    assert cli.main(["study", "run", *arguments]) == 2
    message = capsys.readouterr().err
    assert f"{planned.runs[1].folder} holds a run with other settings" in message
    assert "train.batch is 8, not 9; sac.discount is 0.99, not 0.9" in message
    assert "folder=" in message
    assert len(message.splitlines()) == 1
    assert not planned.runs[0].folder.exists()


@pytest.mark.parametrize(("measured", "other"), [({}, True), ({"rho": 0.06}, False), (None, False)])
def test_a_share_set_by_hand_is_not_one_that_the_study_measures(
    measured: dict[str, float] | None, other: bool, tmp_path: Path
) -> None:
    planned = study(tmp_path, "agents=[smg]", "tasks=[walker_walk]", "smg.rho=auto")
    run = planned.runs[0]
    chosen = study(tmp_path, "agents=[smg]", "tasks=[walker_walk]", "smg.rho=0.06").runs[0]
    known = {} if measured is None else {"measured_shares": measured}
    write_run(chosen, provenance=PROVENANCE | known)
    if other:
        with pytest.raises(UserError, match=r"settings\.rho is 0\.06, not 'auto'"):
            check_folders([read(run)])
    else:
        check_folders([read(run)])


def test_runs_that_would_share_a_folder_are_refused(tmp_path: Path) -> None:
    text = """
    shifts: [video_hard]
    seeds: [1, 11]
    preset: smoke
    tasks: [walker_walk]
    agents: {sac: {}, sac1: {agent: sac}}
    """
    told = "walker_walk/sac1/seed1 and walker_walk/sac/seed11 would share the folder .*/walker_walksac11"
    with pytest.raises(UserError, match=told):
        study(tmp_path, "layout='{task}{agent}{seed}'", text=text)


def test_a_share_of_several_gpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"resources.gpus: 1.5 is neither a share of one GPU nor a whole number"
    ):
        study(tmp_path, "resources.gpus=1.5")


def test_the_ray_engine_without_ray_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    planned = study(tmp_path)
    arguments = [str(tmp_path / "small.yaml"), f"folder={planned.folder}", "--engine", "ray"]
    assert cli.main(["study", "run", *arguments]) == 2
    assert capsys.readouterr().err == "smg: --engine ray needs Ray: pip install 'smg-sgqn[cluster]'\n"


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planned = study(tmp_path)
    planned.folder.write_text("a file\n")
    assert cli.main(["study", "run", str(tmp_path / "small.yaml"), f"folder={planned.folder}"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"smg: run folder {planned.runs[0].folder} cannot be written (Not a directory)")


def test_a_plotting_library_that_is_broken_shows_before_the_first_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in ("common.study.report", "common.report.plots"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    planned = study(tmp_path)
    assert cli.main(["study", "run", str(tmp_path / "small.yaml"), f"folder={planned.folder}"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("smg: the report could not be written at the end (import of matplotlib halted")
    assert "pip install -c constraints.txt" in message
    assert not any(run.folder.exists() for run in planned.runs)
