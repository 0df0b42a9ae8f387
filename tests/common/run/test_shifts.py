"""What a run says of shifts that its task's picture hardly shows, and what it records."""

import json

import pytest

from common.run import shifts
from common.run.shifts import hardly_shown, recorded_shares, shift_shares
from tests import runs

EASY = "eval.shifts=[train,video_easy,video_hard]"


def test_a_shift_below_a_tenth_is_named_and_the_others_are_not():
    line = hardly_shown("reacher_easy", {"color_hard": 0.1, "video_easy": 0.0, "view_fov": 0.0999})
    assert line is not None
    assert line.startswith("reacher_easy's picture hardly shows some shifts")
    assert line.endswith("Share of pixels that each changes: video_easy 0.0%, view_fov 10.0%")
    assert hardly_shown("walker_walk", {"video_easy": 0.55}) is None
    assert hardly_shown("walker_walk", {}) is None


def test_only_numbers_are_taken_from_a_provenance():
    shares = {"video_easy": 0.004, "video_hard": None, "color_hard": "0"}
    assert recorded_shares({"shifts": shares}) == {"video_easy": 0.004}
    assert recorded_shares({}) == recorded_shares({"shifts": [0.1]}) == {}


@pytest.mark.slow
def test_shares_are_measured_once_with_the_runs_camera(tmp_path, monkeypatch):
    said = []
    asked = []
    measure = shifts.changed_shares

    def record(*arguments, **keywords):
        asked.append(keywords["camera"])
        return measure(*arguments, **keywords)

    monkeypatch.setattr(shifts, "changed_shares", record)
    config = runs.smoke(tmp_path, "sac", EASY, task="quadruped_walk")
    for _ in range(2):
        shares = shift_shares(config, said.append)
    # Camera 2 looks at the horizon, camera 0 down from above.
    assert shares["video_easy"] > 0.1 and shares["video_hard"] > 0.9
    assert "train" not in shares
    above = shift_shares(
        runs.smoke(tmp_path, "sac", EASY, "env.camera=0", task="quadruped_walk"), said.append
    )
    assert above["video_easy"] != shares["video_easy"]
    assert asked == [2, 0]


@pytest.mark.slow
@pytest.mark.parametrize("task", ["reacher_easy"])
def test_a_run_says_and_records_it(tmp_path, capsys, task):
    folder = runs.run(tmp_path / "run", "sac", EASY, "train.steps=12", "eval.episodes=1", task=task)
    recorded = json.loads((folder / "provenance.json").read_text())["shifts"]
    assert recorded.keys() == {"video_easy", "video_hard"}
    assert recorded["video_easy"] == 0 and recorded["video_hard"] > 0.9
    assert capsys.readouterr().err.count("each changes: video_easy 0.0%") == 1
