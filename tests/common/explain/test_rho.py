"""`smg rho`: whose actions it measures, and what it prints."""

import numpy as np
import pytest
import torch

from common import cli
from common.config.loading import load, to_yaml
from common.envs.benchmark import BenchmarkEnv
from common.explain.rho import table
from common.run.derived import env_arguments
from common.run.foreground import Share, foreground_share
from tests import runs


class Still:
    """Acts with what it is given, and remembers what it saw."""

    device = torch.device("cpu")

    def __init__(self, action):
        self.action = action
        self.seen = []

    def act(self, obs, sample):
        assert not sample and obs.dtype == torch.uint8
        self.seen.append(obs)
        return self.action[None]


def test_the_share_is_that_of_the_policys_frames(tmp_path):
    config = runs.smoke(tmp_path, "smg", "env.episode_steps=12", task="cartpole_swingup")
    policy = Still(torch.ones(1))
    share = foreground_share(config, 3, policy=policy)
    env = BenchmarkEnv(**env_arguments(config), shift="train", seed=config.seed)
    obs, _ = env.reset()
    shares = []
    for _ in range(2):  # 12 simulator steps are two agent steps of 8 and 4
        np.testing.assert_array_equal(policy.seen[len(shares)][0], obs)
        obs, *_ = env.step(np.ones(1, np.float32))
        shares.append(env.segmentation().mean())
    env.reset()
    env.step(np.ones(1, np.float32))
    shares.append(env.segmentation().mean())
    env.close()
    assert share == pytest.approx((np.mean(shares), np.std(shares)))


def test_the_table_suggests_and_compares():
    config = load("smg", "walker_walk", "paper")
    lines = table(config, 500, {"random actions": Share(0.06714, 0.0123)}).splitlines()
    assert lines[0] == "walker_walk, camera 0, env.model dmcgb, 84x84, 500 agent steps"
    assert lines[2].split() == ["random", "actions", "0.0671", "±", "0.0123", "0.067", "0.933"]
    assert lines[3].split() == ["configs/", "0.06", "0.95"]


def test_a_runs_policy_is_measured_on_the_runs_model(tmp_path, monkeypatch):
    measured = []
    monkeypatch.setattr("common.explain.rho.rho", lambda config, steps, run: measured.append(run[0]) or 0)
    config = load("smg", "cartpole_swingup", "smoke", overrides=["env.model=smg"])
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    for overrides in ([], ["env.model=dmcgb"]):
        assert cli.main(["rho", "cartpole_swingup", "--run", str(tmp_path), *overrides]) == 0
    assert [each.env.model for each in measured] == ["smg", "dmcgb"]


def test_bad_input_is_one_line(capsys):
    assert cli.main(["rho", "walker_wlak"]) == 2
    assert "did you mean 'walker_walk'?" in capsys.readouterr().err
    assert cli.main(["rho", "walker_walk", "--steps", "0"]) == 2
    assert "--steps is 0" in capsys.readouterr().err
