"""DMC-GB2's distributions through a run: what is evaluated, recorded, checked and printed."""

import json

import numpy as np
import pytest

from common import cli
from common.envs.backgrounds import check_clips
from common.run import build
from common.run.records import read_json_lines
from tests import runs

GEOMETRIC = (
    "rotate_easy",
    "rotate_hard",
    "shift_easy",
    "shift_hard",
    "rotate_shift_easy",
    "rotate_shift_hard",
)


@pytest.mark.slow
def test_a_run_is_evaluated_under_the_geometric_shifts(tmp_path, capsys):
    folder = runs.run(tmp_path / "run", "sac", "eval.shifts=[train]", "train.steps=12", "eval.episodes=1")
    capsys.readouterr()
    arguments = ("--shifts", "geometric", "--episodes", "2", "--seed", "4", "eval.processes=0")
    assert cli.main(["eval", str(folder), *arguments]) == 0
    printed = capsys.readouterr().out
    records = read_json_lines(folder / "evaluations.jsonl")
    assert sorted((record["shift"], record["episode"]) for record in records) == sorted(
        (shift, episode) for shift in GEOMETRIC for episode in range(2)
    )
    # The simulator's seed is that of evaluation, the order of the turns the run's own.
    order = list(range(100))
    np.random.RandomState(4).shuffle(order)
    for record in records:
        assert (record["seed"], record["turn"]) == (46, order[record["episode"]])
    mean = np.mean([record["return"] for record in records])
    assert f"mean over the 6 geometric shifts: {mean:.1f}" in printed
    assert [line.split()[0] for line in printed.splitlines()[3:9]] == list(GEOMETRIC)
    assert cli.main(["eval", str(folder), "--shifts", "geometrics"]) == 2
    assert "did you mean 'geometric'?" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_trains_and_records_the_new_shifts_shares(tmp_path):
    shifts = "eval.shifts=[train,color_video_hard,rotate_shift_hard]"
    folder = runs.run(tmp_path / "run", "smg", shifts, "train.steps=12", "eval.episodes=1")
    shares = json.loads((folder / "provenance.json").read_text())["shifts"]
    assert shares.keys() == {"color_video_hard", "rotate_shift_hard"}
    assert min(shares.values()) > 0.5
    last = {record["shift"]: record for record in runs.evaluations(folder)[-3:]}
    assert last["color_video_hard"].keys() - last["train"].keys() == {"colours"}
    assert last["rotate_shift_hard"].keys() - last["train"].keys() == {"turn"}
    assert last["train"]["explained"].keys() == last["rotate_shift_hard"]["explained"].keys()


@pytest.mark.parametrize(
    ("shifts", "shown"),
    [
        # The seed's first number is drawn from 0 to 99: of seed 0 it is 44.
        ("video_hard", {0, 1, 2, 3}),
        ("color_video_hard", {44, 45, 46, 47}),
        ("color_video_hard,video_hard", {0, 1, 2, 3, 44, 45, 46, 47}),
    ],
)
def test_the_clips_that_evaluations_will_show_are_checked(tmp_path, monkeypatch, shifts, shown):
    assert np.random.RandomState(0).randint(100) == 44
    asked = []

    def record(root, source, clips, episodes, size):
        asked.append((source, set(episodes)))
        return check_clips(None, source, clips, episodes, size)

    monkeypatch.setattr("common.envs.backgrounds.check_clips", record)
    config = runs.smoke(tmp_path, "sac", f"eval.shifts=[{shifts}]", "eval.episodes=2", "seed=0")
    assert build.check_clips(config, evaluations=2) == len(shown)
    assert asked == [("video_hard", shown)]
