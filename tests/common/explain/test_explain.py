"""`smg explain` on runs of initial weights: files, numbers, and what it refuses."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import av
import pytest
from PIL import Image

from common import cli
from common.config.loading import load
from common.errors import UserError
from common.explain import command
from common.run.derived import evaluation_arguments
from tests.common.explain.conftest import STEPS

pytestmark = pytest.mark.slow


def numbers(folder, label, shift):
    return json.loads((folder / "explain.json").read_text())[label]["shifts"][shift]


def test_one_run_under_two_shifts(untrained, capsys):
    folder = untrained("smg")
    assert cli.main(["explain", str(folder), "--frames", "4", "--episodes", "2"]) == 0
    output = folder / "explain"
    printed = [output / name for name in ("train.mp4", "train.png", "video_hard.mp4", "video_hard.png")]
    printed += [output / "explain.json", output / "sheet.png"]
    assert capsys.readouterr().out.split() == [str(path) for path in printed]

    with av.open(str(output / "video_hard.mp4")) as video, Image.open(output / "sheet.png") as sheet:
        assert video.streams.video[0].frames == 2 * 4
        # observation, truth, attribution, mask, foreground, background, reconstruction, augmented
        assert sheet.width > 8 * 168 and video.streams.video[0].width > 8 * 168

    train, hard = numbers(output, "smg", "train"), numbers(output, "smg", "video_hard")
    assert train["numbers"]["mask/stability"] == 1 and 0 <= hard["numbers"]["mask/stability"] <= 1
    assert 0.02 < train["numbers"]["truth/share"] < 0.15
    assert {"mask/iou", "binarised/average_precision", "reconstruction/foreground_error"} <= train[
        "numbers"
    ].keys()
    assert [episode["length"] for episode in train["episodes"]] == [STEPS, STEPS]
    assert len(hard["curves"]["attribution/deletion"]) == 11


def test_stability_is_not_measured_where_the_camera_moves(untrained):
    folder = untrained("smg")
    assert cli.main(["explain", str(folder), "--frames", "2", "--shifts", "view_novel"]) == 0
    found = numbers(folder / "explain", "smg", "view_novel")["numbers"]
    assert "mask/iou" in found and "mask/stability" not in found


class Recorder:
    """Stands in for W&B: keeps what it is sent."""

    sent: ClassVar[list] = []

    def __init__(self, config, folder):
        self.name = config.wandb.name

    def update(self, rows):
        self.sent.append((self.name, rows))

    def finish(self):
        pass


def test_several_runs_see_the_same_frames_each_at_its_size(untrained, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "WandbMirror", Recorder)
    folders = [untrained(agent) for agent in ("sac", "rad", "sgqn")]  # rad crops from larger frames
    methods = "observation,truth,binarised,gradient,guided_gradcam,occlusion"
    arguments = [
        "--methods",
        methods,
        "--shifts",
        "video_hard",
        "--frames",
        "2",
        "--output",
        str(tmp_path / "beside"),
    ]
    assert cli.main(["explain", *map(str, folders), *arguments]) == 0
    found = {label: numbers(tmp_path / "beside", label, "video_hard") for label in ("sac", "rad", "sgqn")}
    episodes = [each["episodes"] for each in found.values()]
    assert episodes[0] == episodes[1] == episodes[2]
    shares = {label: each["numbers"]["truth/share"] for label, each in found.items()}
    assert shares["sac"] == shares["sgqn"]
    assert shares["rad"] != shares["sac"] and shares["rad"] == pytest.approx(shares["sac"], rel=0.8)
    assert {"occlusion/foreground_mass", "gradient/pointing"} <= found["rad"]["numbers"].keys()
    assert "saliency/iou" in found["sgqn"]["numbers"]
    [(name, [row])] = Recorder.sent
    assert name == "sac explained" and row["step"] == 30
    assert row["explain/rad/video_hard/truth/share"] == shares["rad"]


def test_labels_are_as_short_as_tells_runs_apart():
    def labels(*runs):
        configs: Any = [SimpleNamespace(agent=agent) for agent, _ in runs]
        return command._labels(configs, [Path(folder) for _, folder in runs])

    assert labels(("sac", "a/sac/seed0"), ("smg", "a/smg/seed0")) == ["sac", "smg"]
    ablated = labels(("sgqn", "a/sgqn/seed0"), ("sgqn", "a/sgqn-no_consistency/seed0"))
    assert ablated == ["sgqn/seed0", "sgqn-no_consistency/seed0"]
    with pytest.raises(UserError, match="more than once"):
        labels(("sac", "a"), ("sac", "a"))


def test_a_tasks_own_action_axes_are_the_same_as_when_they_are_named():
    folders = [Path("a"), Path("b")]
    own, named, other = (
        load("sac", "robot_reach", "smoke", overrides=[f"env.action_axes={axes}"])
        for axes in ("null", "xy", "xyz")
    )
    command._check_comparable([own, named], folders)
    with pytest.raises(UserError, match=r"env\.action_axes xyz, a xy"):
        command._check_comparable([own, other], folders)


def test_all_runs_see_the_first_ones_camera_shifts():
    first, other = (
        load("sac", "walker_walk", "smoke", overrides=[f"env.view_strength={strength}"])
        for strength in (1, 3)
    )
    assert command._arguments(other, first)["view_strength"] == 1


def test_a_run_is_explained_on_the_episodes_that_it_is_evaluated_on():
    config = load(
        "sac", "walker_walk", "smoke", overrides=["seed=3", "eval.clips=[2, 6]", "eval.seed_offset=7"]
    )
    assert command._arguments(config, config) == evaluation_arguments(config)


def refused(capsys, *arguments):
    assert cli.main(["explain", *map(str, arguments)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("smg: ") and error.count("\n") == 1
    return error


def test_refusals_are_one_line_that_says_what_can_be_shown(untrained, capsys):
    sac = untrained("sac")
    error = refused(capsys, sac, "--methods", "observation,mask")
    assert "sac cannot show 'mask'" in error
    assert "observation, truth, attribution, gradient, guided_gradcam, occlusion, binarised" in error
    assert "sac cannot show 'heat'" in refused(capsys, sac, "--methods", "heat")
    assert "--frames is 0" in refused(capsys, sac, "--frames", "0")
    assert "more than once" in refused(capsys, sac, sac)
    assert not (sac / "explain").exists()

    other = untrained("sgqn", task="cartpole_swingup")
    assert "a run of cartpole_swingup" in refused(capsys, sac, other)
    slower = untrained("drq", "env.action_repeat=4")
    assert "env.action_repeat 4" in refused(capsys, sac, slower)
    for path in (sac / "checkpoint").iterdir():
        path.unlink()
    assert "neither a checkpoint nor weights" in refused(capsys, sac)
    assert "not a run folder" in refused(capsys, sac.parent)
