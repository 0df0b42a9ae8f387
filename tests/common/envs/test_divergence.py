"""A simulation that diverges ends its episode, here and in a process of its own, and nothing more."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from common.envs.benchmark import BenchmarkEnv
from common.envs.processes import EnvironmentDied, EnvPool, TrainingEnv
from common.envs.simulator import Simulator

TASK: dict[str, Any] = {"task": "cheetah_run", "seed": 5, "image_size": 32, "shadow_size": 128}
ACTION = np.full(6, 0.5, np.float32)


def diverging(state: dict[str, Any]) -> dict[str, Any]:
    """An environment's state with a velocity that no simulation survives."""
    integration = state["simulator"]["integration"].copy()
    integration[1 + 9] = 1e12  # after the time and nine positions
    return state | {"simulator": state["simulator"] | {"integration": integration}}


def test_the_episode_is_truncated_with_the_last_good_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    env, twin = BenchmarkEnv(**TASK), BenchmarkEnv(**TASK)
    env.reset()
    twin.reset()
    before, *_ = env.step(ACTION)
    # One good simulator step, then one that diverges, then two that are not made any more.
    rewards = []
    step = Simulator.step

    def sabotaged(simulator: Simulator, action: np.ndarray) -> Any:
        if len(rewards) == 1:
            simulator.physics.data.qvel[:] = np.nan
        outcome = step(simulator, action)
        rewards.append(outcome.reward)
        return outcome

    monkeypatch.setattr(Simulator, "step", sabotaged)
    obs, reward, terminated, truncated, info = env.step(ACTION)
    monkeypatch.undo()
    assert (terminated, truncated, info["diverged"]) == (False, True, True)
    assert len(rewards) == 2 and rewards[1] == 0
    assert reward == rewards[0] and np.isfinite(reward)
    np.testing.assert_array_equal(obs[:6], before[3:])
    np.testing.assert_array_equal(obs[6:], before[6:])
    # The next episode is the one that would have followed any other end.
    np.testing.assert_array_equal(env.reset()[0], twin.reset()[0])
    for one, two in zip(env.step(ACTION), twin.step(ACTION), strict=True):
        np.testing.assert_equal(one, two)
    np.testing.assert_array_equal(env.simulator_state(), twin.simulator_state())
    assert "diverged" not in env.step(ACTION)[-1]


@pytest.fixture(params=[False, True])
def env(request: pytest.FixtureRequest) -> Iterator[TrainingEnv]:
    """A training environment here, and one in a process of its own."""
    made = TrainingEnv(TASK, request.param)
    yield made
    made.close()


def test_a_training_environment_goes_on(env: TrainingEnv) -> None:
    first = env.reset()
    env.load_state_dict(diverging(env.state_dict()))
    env.send(ACTION)
    outcome = env.receive()
    assert (outcome.reward, outcome.terminated, outcome.truncated) == (0, False, True)
    assert outcome.info["diverged"] is True
    np.testing.assert_array_equal(outcome.obs[-3:], first[-3:])
    # It happens again and again, and is no death.
    for _ in range(2):
        env.reset()
        env.load_state_dict(diverging(env.state_dict()))
        env.send(ACTION)
        assert env.receive().info["diverged"]
    assert (env.reset()[-3:] != first[-3:]).any()
    env.send(ACTION)
    assert not env.receive().truncated


@pytest.mark.parametrize("processes", [0, 1])
def test_the_other_environments_of_a_pool_do_not_notice(processes: int) -> None:
    pool = EnvPool([TASK, TASK | {"seed": 6}], processes)
    alone = EnvPool([TASK | {"seed": 6}], 0)
    options = {"evaluation": 0, "episode": 0, "episodes": 1}
    pool.reset([0, 1], [options, options])
    alone.reset([0], [options])
    server: Any = pool._hosts[0]
    server.send("state_dict")
    states = server.receive()
    server.send("load_state_dict", [diverging(states[0]), states[1]])
    server.receive()
    step, other = pool.step(np.stack([ACTION, ACTION])), alone.step(ACTION[None])
    assert step.truncated.tolist() == [True, False]
    assert step.infos[0]["diverged"] and "diverged" not in step.infos[1]
    assert step.rewards[1] == other.rewards[0]
    np.testing.assert_array_equal(step.obs[1], other.obs[0])
    pool.close()
    alone.close()


def test_a_policys_nan_is_no_divergence(env: TrainingEnv) -> None:
    env.reset()
    env.send(np.full(6, np.nan, np.float32))
    with pytest.raises(EnvironmentDied, match="the action is not finite"):
        env.receive()


def test_a_robotic_task_reports_what_it_saw_last() -> None:
    env = BenchmarkEnv("robot_reach", action_repeat=1, episode_steps=50, image_size=32, seed=1)
    env.reset()
    action = np.ones(2, np.float32)
    good = env.step(action)[-1]
    env._simulator.physics.data.qvel[:] = np.nan
    _, reward, terminated, truncated, info = env.step(action)
    assert (reward, terminated, truncated) == (0, False, True)
    assert info == good | {"diverged": True}
    obs, info = env.reset()
    assert obs.any() and "diverged" not in info
    assert not env.step(action)[3]
    env.close()
