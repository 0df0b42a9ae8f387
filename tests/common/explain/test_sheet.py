"""The sheet and the numbers that training makes of each evaluation."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from common.envs.benchmark import BenchmarkEnv
from common.explain.sheet import Sheet
from common.run.build import build_agent, build_images
from common.run.derived import env_arguments
from common.run.device import resolve_auto
from common.run.evaluate import Evaluator, mean_actions
from common.run.train import train
from tests import runs

pytestmark = pytest.mark.slow

SHIFTS = ("train", "video_hard")
STEPS = 8
DUE = (0, 2, 4, 6)
QUICK = ("eval.shifts=[train,video_hard]", "env.episode_steps=32", "env.action_repeat=4", "eval.episodes=2")


def picture_in(path: Path) -> np.ndarray:
    """uint8 (height, width, 3)."""
    with Image.open(path) as image:
        return np.asarray(image)


class Notes:
    """An observer that only keeps what it is shown."""

    def __init__(self):
        self.frames = []

    def due(self, step):
        return step in DUE

    def observe(self, shift, step, obs, truth):
        self.frames.append((shift, step, obs.copy(), truth))


@pytest.fixture
def agent(tmp_path):
    config = resolve_auto(runs.smoke(tmp_path / "run", "smg", *QUICK, "device=cpu"))
    return build_agent(config, 6, build_images(config))


@pytest.mark.parametrize(("envs", "processes"), [(4, 2), (1, 0)])
def test_an_observer_sees_the_first_episode_of_each_shift_as_it_was_played(agent, envs, processes):
    arguments: dict[str, Any] = env_arguments(agent.config) | {"seed": 5}
    evaluator = Evaluator(arguments, SHIFTS, episodes=2, envs=envs, processes=processes)
    notes = Notes()
    seen_returns = [r["return"] for r in evaluator.run(agent, 1, observer=notes)]
    assert seen_returns == [r["return"] for r in evaluator.run(agent, 1)]
    evaluator.close()

    expected = []
    for shift in SHIFTS:
        env = BenchmarkEnv(**arguments, shift=shift)
        obs, _ = env.reset(options={"evaluation": 1, "episode": 0, "episodes": 2})
        for step in range(STEPS):
            if step in DUE:
                expected.append((shift, step, obs, env.segmentation()))
            obs, *_ = env.step(mean_actions(agent, obs[None])[0])
        env.close()
    found = sorted(notes.frames, key=lambda frame: frame[:2])
    assert [frame[:2] for frame in found] == [frame[:2] for frame in expected]
    for (_, _, obs, truth), (_, _, true_obs, true_truth) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(obs, true_obs)
        np.testing.assert_array_equal(truth, true_truth)
        assert truth.any()


def test_numbers_are_means_over_the_frames_seen_since_the_last_sheet(agent):
    sheet = Sheet(agent, agent.config)
    assert [step for step in range(STEPS) if sheet.due(step)] == list(DUE)
    obs = np.random.default_rng(0).integers(0, 256, (4, 9, 84, 84), dtype=np.uint8)
    truth = np.zeros((4, 84, 84), bool)
    truth[:, :20, :30] = True
    sheet.observe("train", 0, obs[0], truth[0])
    sheet.finish()
    for step, each, true in zip(DUE, obs, truth, strict=True):
        sheet.observe("video_hard", step, each, true)
    numbers, picture = sheet.finish()
    assert list(numbers) == ["video_hard"]
    assert picture.dtype == np.uint8 and picture.shape[2] == 3

    with torch.no_grad():
        mask = agent.foreground.images(agent.critic.encode(torch.from_numpy(obs))).mask[:, -1, 0].numpy()
    true = truth[0]
    ious = [np.sum((each >= 0.5) & true) / np.sum((each >= 0.5) | true) for each in mask]
    assert numbers["video_hard"]["mask/iou"] == pytest.approx(np.mean(ious))
    assert numbers["video_hard"]["truth/share"] == pytest.approx(600 / 84**2)


@pytest.mark.parametrize("name", ["smg", "sgqn", "rad"])
def test_looking_changes_nothing_that_is_learnt(name, tmp_path):
    seeing, blind = (tmp_path / each for each in ("seeing", "blind"))
    quick = (*QUICK, "train.steps=20", "train.random_steps=10", "train.burst_updates=4", "eval.every=12")
    runs.run(seeing, name, *quick)
    runs.run(blind, name, *quick, "eval.sheet=false")
    assert runs.metrics(seeing) == runs.metrics(blind)
    found = runs.evaluations(seeing)
    explained = [record.pop("explained", None) for record in found]
    assert found == runs.evaluations(blind)
    # One evaluation within the run and one at its end: of two shifts the first of two episodes each.
    assert [bool(each) for each in explained].count(True) == 2 * 2 and len(explained) == 2 * 2 * 2
    assert all(0 < each["attribution/average_precision"] <= 1 for each in explained if each)
    assert sorted(path.name for path in (seeing / "sheets").iterdir()) == ["00000012.png", "00000020.png"]
    assert not (blind / "sheets").exists()
    picture = picture_in(seeing / "sheets" / "00000020.png")
    assert picture.shape[0] > 2 * 84 and picture.std() > 10


def test_a_sheet_that_cannot_be_written_costs_a_line(tmp_path: Path, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "sheets").write_text("in the way")
    quick = (*QUICK, "train.steps=12", "train.random_steps=10", "train.burst_updates=2")
    assert train(runs.smoke(folder, "sac", *quick), make_sheet=Sheet) == 0
    assert "no sheet at step 12" in capsys.readouterr().err
    assert len(runs.evaluations(folder)) == 4


def test_wandb_gets_sheet_and_numbers(tmp_path: Path):
    folder = runs.run(
        tmp_path / "run", "sac", *QUICK, "train.steps=12", "train.random_steps=10", "wandb.mode=offline"
    )
    [file] = folder.glob("wandb/offline-run-*/run-*.wandb")
    [row] = [row for row in runs.wandb_history(file) if "eval/train" in row]
    explained = next(r["explained"] for r in runs.evaluations(folder) if "explained" in r)
    assert row["explain/train/attribution/pointing"] == explained["attribution/pointing"]
    sheets = list(file.parent.glob("files/media/images/*.png"))
    assert [picture_in(path).shape for path in sheets] == [
        picture_in(folder / "sheets" / "00000012.png").shape
    ]
