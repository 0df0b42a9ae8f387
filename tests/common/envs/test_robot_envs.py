"""The robotic tasks as gymnasium environments: spaces, episodes, cameras, saving and resuming, errors."""

import copy
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import common.envs  # noqa: F401 - registers the ids
from common.config.shifts import ROBOT_SHIFTS, ROBOT_TASKS
from common.envs.benchmark import BenchmarkEnv
from common.envs.robot.controller import scripted_action
from common.errors import UserError


def make(task: str, **arguments: object) -> BenchmarkEnv:
    return BenchmarkEnv(task, action_repeat=1, episode_steps=50, **arguments)  # type: ignore[arg-type]


def scripted(env: BenchmarkEnv) -> np.ndarray:
    environment = env._simulator.environment
    return scripted_action(environment.task, environment.physics)


def plain(value: Any) -> bool:
    """Whether a state holds only what checkpoints may hold."""
    if isinstance(value, dict | list):
        return all(map(plain, value.values() if isinstance(value, dict) else value))
    return value is None or type(value) in (bool, int, float, str, np.ndarray)


def test_every_look_of_both_tasks_is_registered() -> None:
    for task in ROBOT_TASKS:
        for shift in ROBOT_SHIFTS:
            spec = gymnasium.spec(f"DMCGB/{task}-{shift}-v0")
            assert spec.kwargs == {"task": task, "shift": shift, "action_repeat": 1, "episode_steps": 50}


@pytest.mark.parametrize(("task", "values"), [("robot_reach", 2), ("robot_peg_in_box", 3)])
def test_gymnasium_accepts_the_environment(task: str, values: int) -> None:
    env = gymnasium.make(f"DMCGB/{task}-test1-v0", disable_env_checker=True).unwrapped
    check_env(env, skip_render_check=True)
    assert env.action_space == gymnasium.spaces.Box(-1, 1, (values,), np.float32)
    assert env.observation_space == gymnasium.spaces.Box(0, 255, (9, 84, 84), np.uint8)
    env.close()


@pytest.mark.slow
def test_an_episode_is_fifty_steps_and_ends_by_time_alone() -> None:
    env = make("robot_peg_in_box", seed=1)
    first, _ = env.reset()
    np.testing.assert_array_equal(first[:3], first[6:])
    before = first
    for step in range(1, 51):
        obs, _, terminated, truncated, info = env.step(scripted(env))
        np.testing.assert_array_equal(obs[:6], before[3:])
        before = obs
        assert not terminated
        assert truncated == (step == 50)
    assert info["success"] and info["inserted"]
    env.close()


def test_action_axes_choose_what_an_action_moves() -> None:
    for task in ROBOT_TASKS:
        for axes, values in (("xy", 2), ("xyz", 3)):
            env = make(task, action_axes=axes)
            assert env.action_space.shape == (values,)
            env.close()


def test_the_first_person_camera_shows_the_same_simulation() -> None:
    third, first = make("robot_peg_in_box", seed=2), make("robot_peg_in_box", seed=2, camera="first_person")
    frames = [env.reset()[0] for env in (third, first)]
    assert np.abs(frames[0].astype(int) - frames[1]).mean() > 10
    for _ in range(3):
        action = scripted(third)
        rewards = [env.step(action)[1] for env in (third, first)]
        assert rewards[0] == rewards[1]
        np.testing.assert_array_equal(third.simulator_state(), first.simulator_state())
    # The hand's camera looks down on peg and box from above.
    assert first.segmentation().mean() > third.segmentation().mean()
    for env in (third, first):
        env.close()


@pytest.mark.slow
@pytest.mark.parametrize(("task", "shift"), [("robot_reach", "test2"), ("robot_peg_in_box", "test5")])
@pytest.mark.parametrize("saved_after", [0, 17, 50])
def test_a_resumed_environment_continues_to_the_bit(task: str, shift: str, saved_after: int) -> None:
    env, resumed = make(task, shift=shift, seed=3), make(task, shift=shift, seed=99)
    env.reset()
    random = np.random.RandomState(0)
    # The peg is in the box, in contact, when the state is saved.
    for _ in range(saved_after):
        env.step(np.clip(scripted(env) + random.uniform(-0.2, 0.2, env.action_size), -1, 1))
    state = env.state_dict()
    assert plain(state)
    resumed.load_state_dict(copy.deepcopy(state))
    np.testing.assert_array_equal(resumed.segmentation(), env.segmentation())
    for step in range(8):
        if (saved_after == 50 and step == 0) or step == 6:
            observations = [each.reset()[0] for each in (env, resumed)]
        else:
            action = random.uniform(-1, 1, env.action_size)
            results = [each.step(action) for each in (env, resumed)]
            observations = [result[0] for result in results]
            assert results[0][1:] == results[1][1:]
        np.testing.assert_array_equal(observations[0], observations[1])
        np.testing.assert_array_equal(env.simulator_state(), resumed.simulator_state())
    for each in (env, resumed):
        each.close()


def test_the_count_of_steps_inside_is_saved() -> None:
    env, resumed = make("robot_peg_in_box", seed=3), make("robot_peg_in_box", seed=4)
    _, info = env.reset()
    while not info["success"]:
        *_, info = env.step(scripted(env))
    for _ in range(2):
        env.step(scripted(env))
    resumed.load_state_dict(env.state_dict())
    for _ in range(6):
        action = scripted(env)
        infos = [each.step(action)[-1] for each in (env, resumed)]
        assert infos[0] == infos[1]
    assert infos[0]["inserted"]
    for each in (env, resumed):
        each.close()


def test_evaluation_episodes_are_functions_of_their_numbers() -> None:
    env, other = make("robot_reach", seed=7), make("robot_reach", seed=7)
    env.reset()
    env.step(np.ones(2))
    options = {"evaluation": 2, "episode": 3, "episodes": 5}
    np.testing.assert_array_equal(env.reset(options=options)[0], other.reset(options=options)[0])
    np.testing.assert_array_equal(env.simulator_state(), other.simulator_state())
    other.reset(options=options | {"episode": 4})
    assert not np.array_equal(env.simulator_state(), other.simulator_state())
    for each in (env, other):
        each.close()


@pytest.mark.parametrize(
    ("task", "arguments", "message"),
    [
        ("robot_reach", {"shift": "test6"}, "unknown shift 'test6' for robot_reach: .*test5"),
        ("robot_reach", {"shift": "video_easy"}, "unknown shift 'video_easy' for robot_reach"),
        ("robot_reach", {"action_axes": "yz"}, "unknown env.action_axes 'yz': .*xyz"),
        ("robot_reach", {"camera": "third_persn"}, "unknown env.camera 'third_persn': .*third_person"),
        ("walker_walk", {"action_axes": "xy"}, "env.action_axes is for the robotic tasks"),
        ("walker_walk", {"camera": "first_person"}, "env.camera: walker_walk has no camera"),
        ("walker_walk", {"shift": "test1"}, "unknown shift 'test1' for walker_walk"),
        ("robot_reech", {}, "unknown task 'robot_reech': .*robot_reach"),
    ],
)
def test_impossible_arguments_are_user_errors(task: str, arguments: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(task, **arguments)
