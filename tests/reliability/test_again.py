"""The same command begins a run, goes on with it, prolongs it, or finds it finished."""

import os
import shutil
from pathlib import Path

import pytest

from common.config.loading import load_run_config
from common.run import checkpoint, train
from common.run.run_folder import RunFolder
from common.run.weights import export
from tests import runs
from tests.reliability import tiny
from tests.reliability.conftest import Moments

pytestmark = pytest.mark.slow

LONG = 36
"""Agent steps of a run that begins as long as others become."""


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an unbroken run of that many steps."""
    folder = tmp_path_factory.mktemp("long") / "run"
    assert tiny.start(folder, f"train.steps={LONG}") == 0
    return folder


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_same_command_goes_on(stopped: Path, unbroken: Path):
    assert tiny.start(stopped) == 0
    tiny.assert_equal(stopped, unbroken)


def test_what_says_how_to_compute_may_change(stopped: Path, unbroken: Path):
    assert tiny.start(stopped, "checkpoint.every=3", "env.ahead=0", "eval.processes=1") == 0
    tiny.assert_equal(stopped, unbroken)
    assert load_run_config(stopped).checkpoint.every == 3


@pytest.mark.parametrize(
    ("overrides", "agent", "differences"),
    [
        (["seed=1", "train.batch=5"], "sac", "seed is 0, not 1; train.batch is 4, not 5"),
        (["optim.critic.lr=1e-4"], "sac", "optim.critic.lr is 0.001, not 0.0001"),
        (["train.steps=20"], "sac", "train.steps is 24, not 20; replay.capacity is 24, not 20"),
        (["replay.capacity=20"], "sac", "replay.capacity is 24, not 20"),
        ([], "smg", "agent is 'sac', not 'smg'"),
    ],
)
def test_other_settings_are_refused_by_name(
    overrides: list[str],
    agent: str,
    differences: str,
    stopped: Path,
    capsys: pytest.CaptureFixture[str],
):
    before = files(stopped)
    assert tiny.start(stopped, *overrides, agent=agent) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == (
        f"smg: {stopped} holds a run with other settings ({differences}): give another run.dir or run.name, "
        f"or let that run go on as it is with --resume {stopped}"
    )
    assert files(stopped) == before


def test_code_that_a_folder_names_is_not_imported_for_another_agents_command(
    stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "stranger.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    config = stopped / "config.yaml"
    config.write_text(config.read_text().replace("agent: sac", "agent: stranger:Agent"))
    assert tiny.start(stopped) == 2
    assert "agent is 'stranger:Agent', not 'sac'" in capsys.readouterr().err


def test_an_unfinished_run_is_prolonged_as_if_it_had_begun_so_long(stopped: Path, long: Path):
    assert tiny.start(stopped, f"train.steps={LONG}") == 0
    tiny.assert_equal(stopped, long)
    assert load_run_config(stopped).replay.capacity == LONG
    manifest = checkpoint.read_manifest(stopped / "checkpoint" / "latest.json")
    assert manifest["replay"]["capacity"] == LONG
    assert manifest["replay"]["transition_count"] - manifest["replay"]["oldest"] == LONG


def test_a_finished_run_is_prolonged_as_if_it_had_begun_so_long(unbroken: Path, long: Path, folder: Path):
    shutil.copytree(unbroken, folder)
    assert tiny.resume(folder, f"train.steps={LONG}") == 0
    tiny.assert_equal(folder, long)
    assert load_run_config(folder).replay.capacity == LONG
    assert load_run_config(unbroken).replay.capacity == 24
    assert (folder / "config-until-24.yaml").read_bytes() == (unbroken / "config.yaml").read_bytes()


def test_an_evaluation_at_an_end_between_intervals_leaves_the_later_ones_as_they_are(
    folder: Path, long: Path
):
    assert tiny.start(folder, "train.steps=15") == 0
    assert tiny.start(folder, f"train.steps={LONG}") == 0
    assert runs.metrics(folder) == runs.metrics(long)
    found = runs.evaluations(folder)
    assert [record["step"] for record in found] == [12, 15, 24, 36]
    assert [record for record in found if record["step"] != 15] == runs.evaluations(long)


def test_a_capacity_that_was_chosen_stays(folder: Path, moments: Moments):
    moments.at("step", 17, lambda: os.kill(os.getpid(), tiny.SIGTERM))
    assert tiny.start(folder, "replay.capacity=10") == 75
    assert tiny.start(folder, "replay.capacity=10", "train.steps=28") == 0
    assert load_run_config(folder).replay.capacity == 10


def test_a_run_that_is_further_is_not_taken_back(stopped: Path, capsys: pytest.CaptureFixture[str]):
    before = files(stopped)
    assert tiny.resume(stopped, "train.steps=16") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == f"smg: {stopped} has learnt for 17 agent steps already, more than train.steps=16"
    assert files(stopped) == before


@pytest.mark.parametrize(
    ("overrides", "keys"),
    [
        (["train.batch=5", "eval.episodes=3"], "train.batch, eval.episodes"),
        (["network.hidden=8"], "network.hidden"),
    ],
)
def test_a_run_that_has_ended_is_not_shown_as_one_of_other_settings(
    overrides: list[str], keys: str, unbroken: Path, capsys: pytest.CaptureFixture[str]
):
    before = files(unbroken)
    assert tiny.resume(unbroken, *overrides) == 2
    shown = capsys.readouterr()
    assert shown.err.splitlines()[-1] == (
        f"smg: {unbroken} has ended at step 24, so that {keys} would change nothing: go on with more "
        f"train.steps, evaluate it with `smg eval {unbroken}`, or give another run.dir"
    )
    assert "after 24 agent steps" not in shown.out
    assert tiny.resume(unbroken, "checkpoint.every=3", "eval.processes=1", "train.steps=24") == 0
    assert "after 24 agent steps" in capsys.readouterr().out
    assert files(unbroken) == before


def test_a_loss_that_is_switched_off_is_not_logged_on(folder: Path, moments: Moments):
    moments.at("step", 17, lambda: os.kill(os.getpid(), tiny.SIGTERM))
    assert tiny.start(folder, agent="smg") == 75
    assert tiny.resume(folder, "losses.background=0") == 0
    assert steps_with(folder, "loss/background") == list(range(9, 18))
    # Its update comes at every second step, so the first line of the new session is without.
    assert steps_with(folder, "loss/reconstruction") == [*range(9, 18), *range(19, 25)]


def steps_with(folder: Path, metric: str) -> list[int]:
    return [line["step"] for line in runs.metrics(folder) if metric in line]


@pytest.mark.parametrize(
    ("settings", "learns"),
    [
        (["train.steps=8"], False),
        (["train.steps=9"], True),
        (["train.steps=11", "train.batch=11"], False),
        (["train.steps=12", "train.batch=11"], True),
    ],
)
def test_a_run_too_short_to_learn_anything_says_so(
    settings: list[str], learns: bool, folder: Path, moments: Moments
):
    assert tiny.start(folder, *settings) == 0
    assert bool(steps_with(folder, "loss/bellman")) is learns
    said = [line for line in moments.said if line.startswith(f"nothing will be learnt in {settings[0]}: ")]
    assert len(said) == (not learns)


def test_an_exported_run_is_finished_and_cannot_go_on(
    unbroken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    exported = tmp_path / "exported"
    export(unbroken, exported)
    assert tiny.start(exported) == 0
    assert "sac on finger_spin after 24 agent steps" in capsys.readouterr().out
    before = files(exported)
    assert tiny.start(exported, f"train.steps={LONG}") == 2
    assert "was exported at step 24, without the checkpoint" in capsys.readouterr().err.splitlines()[-1]
    assert files(exported) == before


def test_a_running_folder_is_refused_before_anything_is_built(
    stopped: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(train, "build", None)
    with RunFolder(stopped):
        assert tiny.start(stopped) == 2
    assert "another process is training in this run folder" in capsys.readouterr().err
