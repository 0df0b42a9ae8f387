"""Every task of the suite goes on to the bit from a state saved in its second episode, pixels included."""

from typing import Any

import numpy as np
import pytest

from common.config.shifts import ROBOT_TASKS
from common.envs.benchmark import BenchmarkEnv
from common.envs.tasks import SUITE_TASKS
from tests.common.envs.test_env_state import through_a_file


@pytest.mark.slow
@pytest.mark.parametrize("task", (*SUITE_TASKS, *ROBOT_TASKS))
def test_resumes_in_the_second_episode(task: str) -> None:
    arguments: dict[str, Any] = {"task": task, "seed": 3, "action_repeat": 2, "frames": 1}
    arguments |= {"image_size": 32, "shadow_size": 128}
    env, other = BenchmarkEnv(**arguments), BenchmarkEnv(**arguments)
    actions = np.random.default_rng(0).uniform(-1, 1, (7, env.action_size)).astype(np.float32)
    env.reset()
    env.step(actions[0])
    env.reset()
    for action in actions[1:4]:
        env.step(action)
    # The other one has drawn a frame of another episode before.
    other.reset(options={"evaluation": 1, "episode": 0, "episodes": 1})
    other.load_state_dict(through_a_file(env.state_dict()))
    np.testing.assert_array_equal(other._camera.frame(), env._camera.frame())
    for action in actions[4:]:
        for one, two in zip(env.step(action), other.step(action), strict=True):
            np.testing.assert_equal(two, one)
        np.testing.assert_array_equal(other.simulator_state(), env.simulator_state())
    # The third episode draws on from where the second's random numbers ended.
    np.testing.assert_array_equal(other.reset()[0], env.reset()[0])
    np.testing.assert_array_equal(other.simulator_state(), env.simulator_state())
    env.close()
    other.close()


@pytest.mark.slow
def test_a_height_field_reaches_the_renderer() -> None:
    """quadruped_escape draws new terrain in every episode, of which the renderer keeps a copy."""
    arguments: dict[str, Any] = {"task": "quadruped_escape", "seed": 1, "frames": 1, "image_size": 48}
    env, other = BenchmarkEnv(**arguments), BenchmarkEnv(**arguments)
    first, _ = env.reset()
    obs, _ = env.reset()
    state = env.state_dict()
    assert state["simulator"]["model"]["hfield_data"].shape == (201 * 201,)
    np.testing.assert_array_equal(other.reset()[0], first)
    other.reset()  # beyond which its random numbers differ from those that the state was drawn with
    other.load_state_dict(state)
    np.testing.assert_array_equal(other._camera.frame(), obs)
    # The terrain alone makes a difference that can be seen.
    first_terrain = BenchmarkEnv(**arguments)
    first_terrain.reset()
    first_terrain._simulator.show(other.simulator_state())
    assert (first_terrain._camera.frame() != obs).mean() > 0.05
    for each in (env, other, first_terrain):
        each.close()
