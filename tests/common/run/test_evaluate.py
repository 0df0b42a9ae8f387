import numpy as np
import pytest
import torch

from common.run.evaluate import Evaluator, mean_actions, summary_table
from tests import released

ARGUMENTS = {"task": "walker_walk", "action_repeat": 8, "episode_steps": 64, "seed": 3}


class LinearPolicy:
    """A policy that looks at the pixels: each action is a sum of pixels, so any difference in them shows."""

    device = torch.device("cpu")

    def __init__(self):
        self.weights = torch.randn(9 * 84 * 84, 6, generator=torch.Generator().manual_seed(0)) / 1e4

    def act(self, obs, sample):
        assert not sample
        return torch.tanh(torch.stack([single.flatten().float() @ self.weights for single in obs]))


@pytest.fixture(scope="module")
def one_by_one():
    evaluator = Evaluator(ARGUMENTS, ("train", "video_hard", "color_hard"), episodes=3, envs=1, processes=0)
    yield evaluator.run(LinearPolicy(), number=2)
    evaluator.close()


@pytest.mark.parametrize(("envs", "processes"), [(9, 2), (5, 0)])
def test_returns_do_not_depend_on_how_many_environments_step_together(one_by_one, envs, processes):
    evaluator = Evaluator(
        ARGUMENTS, ("train", "video_hard", "color_hard"), episodes=3, envs=envs, processes=processes
    )
    together = evaluator.run(LinearPolicy(), number=2)
    evaluator.close()

    def key(record):
        return record["shift"], record["episode"]

    assert sorted(together, key=key) == sorted(one_by_one, key=key)


def test_every_shift_plays_the_same_episodes_and_each_evaluation_others(one_by_one):
    assert [record["length"] for record in one_by_one] == [8] * 9
    evaluator = Evaluator(ARGUMENTS, ("train",), episodes=3, envs=3, processes=0)
    returns = {number: [r["return"] for r in evaluator.run(LinearPolicy(), number)] for number in (2, 3)}
    evaluator.close()
    assert returns[2] == [r["return"] for r in one_by_one if r["shift"] == "train"]
    assert returns[2] != returns[3]


def test_table_shows_mean_spread_and_the_papers_number():
    records = [{"shift": "video_hard", "return": value} for value in (700.0, 800.0)]
    table = summary_table(records, "smg", "walker_walk")
    assert "750.0 ± 70.7" in table and "814 ± 51 (SMG poster)" in table
    assert "2 episodes of one seed" in table


def test_actions_do_not_depend_on_the_batch_they_are_chosen_in():
    agent = released.agent("sac", released.numbers("sac"))
    obs = np.random.default_rng(0).integers(0, 256, (21, 9, 84, 84), dtype=np.uint8)
    together = mean_actions(agent, obs)
    alone = np.concatenate([mean_actions(agent, single[None]) for single in obs])
    assert together.shape == (21, 3) and np.array_equal(together, alone)
    np.testing.assert_allclose(together, agent.act(torch.from_numpy(obs), sample=False).numpy(), atol=1e-6)
