"""What is explained is the same simulator state under the shift and in training's looks."""

import numpy as np
import pytest

from common.envs.benchmark import BenchmarkEnv
from common.explain.recording import Stage, again

ARGUMENTS = {"task": "walker_walk", "seed": 3, "episode_steps": 24, "data_root": None}


@pytest.fixture
def actions():
    return np.random.RandomState(0).uniform(-1, 1, (6, 6)).astype(np.float32)


def recorded(shift, actions, every=1):
    stage = Stage(ARGUMENTS, shift)
    try:
        return stage.record(again(actions), episode=1, episodes=2, every=every)
    finally:
        stage.close()


@pytest.mark.slow
def test_a_shift_and_training_show_the_same_states(actions, monkeypatch):
    monkeypatch.delenv("SMG_DATA", raising=False)
    shifted, plain = recorded("video_hard", actions), recorded("train", actions)
    np.testing.assert_array_equal(shifted.plain, plain.obs)
    np.testing.assert_array_equal(shifted.truth, plain.truth)
    np.testing.assert_array_equal(shifted.rewards, plain.rewards)
    assert (shifted.obs != plain.obs).mean() > 0.5
    expected = {"return": plain.rewards.sum(), "length": 6}
    assert plain.summary == expected | {"background": None}
    name = shifted.summary["background"]
    assert shifted.summary == expected | {"background": name} and name.startswith("procedural/")


def test_another_camera_has_no_twin(actions):
    moved, plain = recorded("view_moving", actions), recorded("train", actions)
    assert moved.plain is None
    np.testing.assert_array_equal(moved.rewards, plain.rewards)
    assert (moved.obs != plain.obs).any()


@pytest.mark.slow
def test_an_episode_is_named_by_all_that_its_shift_drew(actions, monkeypatch):
    monkeypatch.delenv("SMG_DATA", raising=False)
    turned = recorded("rotate_hard", actions)
    env = BenchmarkEnv(**ARGUMENTS, shift="rotate_hard")
    _, info = env.reset(options={"evaluation": 0, "episode": 1, "episodes": 2})
    env.close()
    assert turned.summary.keys() == {"return", "length", "background", "turn"}
    assert turned.summary["turn"] == info["turn"]
    both = recorded("color_video_hard", actions).summary
    assert both["background"].startswith("procedural/") and both["colours"] is not None


def test_frames_are_evenly_spaced_from_the_first(actions):
    every, all_of_them = recorded("train", actions, every=4), recorded("train", actions)
    assert every.steps.tolist() == [0, 4]
    np.testing.assert_array_equal(every.obs, all_of_them.obs[::4])
    np.testing.assert_array_equal(every.truth, all_of_them.truth[::4])
    np.testing.assert_array_equal(every.rewards, all_of_them.rewards)
