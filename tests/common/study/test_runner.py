"""Studies that really run, and what befalls them."""

import csv
import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from signal import SIGCONT, SIGSTOP, SIGTERM
from threading import Event

import pytest

from common import cli
from common.errors import UserError
from common.study.attempt import attempt
from common.study.folders import State, read
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
from tests.common.study.written_runs import study, write_run


def test_two_shards_killed_and_stopped_half_way_do_every_run_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    planned = study(tmp_path, text=real_runs.STUDY)
    sac, drq = planned.runs
    file, folder = tmp_path / "small.yaml", f"folder={planned.folder}"

    with ExitStack() as thaw:
        with studying(file, folder, "--shard", "0/2") as one, studying(file, folder, "--shard", "1/2") as two:
            trainer = meet_half_way(sac)
            # The trainer is asked to stop when its study dies, but cannot before it is let go on.
            os.kill(trainer, SIGSTOP)
            thaw.callback(os.kill, trainer, SIGCONT)
            one.kill()
            meet_half_way(drq)
            two.signal(SIGTERM)
            assert two.wait() == 75
            assert "stopped by SIGTERM and saved; the same command goes on from there" in two.printed()
        assert read(sac).state is State.RUNNING
        assert read(drq).state is State.UNFINISHED
        assert attempts(drq) == [75]
        assert "stopped by SIGTERM and saved" in log(drq)
        assert not list(planned.folder.glob("small.*"))

        begun = log(sac)
        again = ("--retries", "0")
        with (
            studying(file, folder, "--shard", "0/2", *again) as one,
            studying(file, folder, "--shard", "1/2", *again) as two,
        ):
            until(lambda: "0 of 1 runs are done" in one.printed(), "the study's first look")
            time.sleep(2)  # two rounds of its loop
            assert one.running()
            assert at_work(sac)
            assert log(sac) == begun
            thaw.close()
            until(lambda: f"{sac.name}: resumed" in one.printed(), "resuming the run")
            assert "stopped by SIGTERM and saved" in log(sac)
            # A trainer that is stopped by others goes on, which is no retry.
            until(lambda: log(sac).count(f"{sac.folder}: sac on") == 2, "the resumed run's start")
            os.kill(meet_half_way(sac), SIGTERM)
            assert one.wait() == 0
            assert two.wait() == 0
            assert f"{sac.name}: stopped by a signal at step " in one.printed()
    # The kill left no record; what was asked to stop later did.
    assert attempts(sac) == [75, 0]
    assert attempts(drq) == [75, 0]
    for run in planned.runs:
        assert_finished_once(run)

    assert cli.main(["study", "run", str(file), folder]) == 0
    printed = capfd.readouterr()
    assert "2 runs: 2 done; estimate: 0.0 hours" in printed.err
    assert "2 of 2 runs are done" in printed.err
    assert [attempts(run) for run in planned.runs] == [[75, 0], [75, 0]]
    cells = {
        row["agent"]: float(row["mean"])
        for row in csv.DictReader((planned.folder / "small.csv").read_text().splitlines())
        if row["task"]
    }
    assert cells == {run.column: pytest.approx(returns(run)[0]) for run in planned.runs}
    assert (planned.folder / "small.md").read_text().strip() in printed.out
    assert r"\bottomrule" in (planned.folder / "small.tex").read_text()
    assert all(run.name in (planned.folder / "small.html").read_text() for run in planned.runs)


def test_failing_and_damaged_runs_are_given_up_while_others_finish(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    agents = "{diverging: {agent: sac, optim.critic.lr: 1.0e+30}, damaged: {agent: sac}, drq: {}}"
    text = real_runs.STUDY.replace("agents: [sac, drq]", f"agents: {agents}")
    planned = study(tmp_path, "train.burst_updates=1", text=text)
    diverging, damaged, drq = planned.runs
    write_run(damaged)
    (damaged.folder / "eval.jsonl").write_text("nonsense\n")
    arguments = [str(tmp_path / "small.yaml"), f"folder={planned.folder}", "train.burst_updates=1"]

    assert cli.main(["study", "run", *arguments, "--retries", "1"]) == 1
    printed = capfd.readouterr()
    assert printed.err.count(f"{diverging.name}: exit status 2: smg: at step") == 2
    assert printed.err.count("; tried again") == 1
    assert f"given up, see {diverging.folder / 'train.log'}" in printed.err
    assert f"{damaged.folder}: left alone, it is damaged" in printed.err
    assert attempts(diverging) == [2, 2]
    assert attempts(damaged) == []
    assert_finished_once(drq)
    assert f"- {diverging.name}: failed (exit status 2: smg: at step" in printed.out
    assert f"- {damaged.name}: corrupt (" in printed.out


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
