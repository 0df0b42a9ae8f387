"""What the robotic tasks' files set for each agent, and how env keys reach the environment."""

import pytest

from common.config import loading as config
from common.errors import UserError
from common.run import derived

TASKS = ("robot_reach", "robot_peg_in_box")


@pytest.mark.parametrize("task", TASKS)
def test_the_papers_settings(task: str) -> None:
    sac, sgqn, smg = (config.load(agent, task, "paper") for agent in ("sac", "sgqn", "smg"))
    for loaded in (sac, sgqn, smg):
        assert loaded.train.steps == 250_000
        assert derived.episode_length(loaded) == 50
        assert loaded.eval.shifts == ("train", "test1", "test2", "test3", "test4", "test5")
    assert sac.augmentation is None
    assert sgqn.augmentation == "random_convolution" and smg.augmentation == "mixture"
    assert sgqn.losses["consistency"] == 1.0 and sgqn.settings.quantile == 0.95  # type: ignore[union-attr]
    # On the benchmark's tasks both differ.
    walker = config.load("sgqn", "walker_walk", "paper")
    assert walker.augmentation == "overlay" and walker.losses["consistency"] == 0.5


def test_keys_of_the_environment_reach_it() -> None:
    overrides = ["env.action_axes=xyz", "env.camera=first_person", "env.view_strength=0.5"]
    arguments = derived.env_arguments(config.load("smg", "robot_reach", "laptop", overrides=overrides))
    assert arguments["action_axes"] == "xyz"
    assert arguments["camera"] == "first_person"
    assert arguments["view_strength"] == 0.5


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("env.action_axes=yx", "env.action_axes: should be 'xy' or 'xyz'"),
        ("env.camera=side", "env.camera: should be 'third_person' or 'first_person'"),
        ("env.view_strength=-1", "env.view_strength: should be at least 0"),
        ("eval.shifts=views", "robot_reach has no shift 'view_novel'"),
        ("eval.shifts=video_hard", "robot_reach has no shift 'video_hard'"),
    ],
)
def test_impossible_values_name_their_key(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        config.load("smg", "robot_reach", "laptop", overrides=[override])
