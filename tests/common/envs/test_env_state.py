"""Saving an environment in the middle of an episode and going on, to the bit, in another."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.envs.benchmark import BenchmarkEnv
from common.envs.random_states import derived, load_random_state_dict, random_state_dict
from common.errors import UserError

# Integrators, contacts, model fields changed per episode, and each kind of shift all have their turn.
CASES = [
    ("walker_walk", "video_hard", 50),
    ("cartpole_swingup", "color_hard", 50),
    ("ball_in_cup_catch", "video_easy", 20),
    ("finger_turn_hard", "color_easy", 20),
    ("cheetah_run", "train", 20),
    ("finger_spin", "video_hard", 20),
    ("cheetah_run", "rotate_shift_hard", 20),
    ("walker_walk", "color_video_hard", 20),
]


def through_a_file(state: Any) -> Any:
    """Save and load as checkpoints do, with nothing but data allowed in the file."""

    def as_tensors(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: as_tensors(item) for key, item in value.items()}
        if isinstance(value, np.ndarray):
            return torch.from_numpy(value.copy())
        assert value is None or type(value) in (bool, int, float, str, bytes), type(value)
        return value

    def as_arrays(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: as_arrays(item) for key, item in value.items()}
        return value.numpy() if isinstance(value, torch.Tensor) else value

    file = io.BytesIO()
    torch.save(as_tensors(state), file)
    file.seek(0)
    return as_arrays(torch.load(file, weights_only=True))


@pytest.mark.slow
@pytest.mark.parametrize(("task", "shift", "steps"), CASES)
def test_resumes_bit_for_bit(task: str, shift: str, steps: int, data_folder: Path) -> None:
    arguments: dict[str, Any] = {"task": task, "shift": shift, "seed": 3, "data_root": str(data_folder)}
    # The episode ends on the way, so that the next one's random draws are compared as well.
    arguments |= {"episode_steps": 80, "action_repeat": 4}
    env, other = BenchmarkEnv(**arguments), BenchmarkEnv(**arguments)
    actions = np.random.default_rng(0).uniform(-1, 1, (8 + steps, env.action_size)).astype(np.float32)

    def step(env: BenchmarkEnv, action: np.ndarray) -> tuple[Any, ...]:
        obs, reward, terminated, truncated, info = env.step(action)
        if truncated:
            obs, info = env.reset()
        return obs, reward, terminated, truncated, info, env.simulator_state()

    # The other one has a past that must not shine through.
    other.reset(options={"evaluation": 2, "episode": 1, "episodes": 3})
    other.step(-actions[0])
    env.reset()
    env.reset()
    for action in actions[:8]:
        step(env, action)
    other.load_state_dict(through_a_file(env.state_dict()))
    truncations = 0
    for action in actions[8:]:
        expected, resumed = step(env, action), step(other, action)
        for one, two in zip(expected, resumed, strict=True):
            np.testing.assert_equal(two, one)
        truncations += expected[3]
    assert truncations == (8 + steps) // 20 > 0
    env.close()
    other.close()


def test_a_state_of_another_task_or_without_its_clip_is_refused(data_folder: Path, tmp_path: Path) -> None:
    small: dict[str, Any] = {"image_size": 16}
    env = BenchmarkEnv("walker_walk", "video_hard", data_root=str(data_folder), **small)
    env.reset()
    state = env.state_dict()
    with pytest.raises(UserError, match="task is walker_walk, not walker_stand"):
        BenchmarkEnv("walker_stand", "video_hard", data_root=str(data_folder), **small).load_state_dict(state)
    with pytest.raises(UserError, match="shift is video_hard, not train"):
        BenchmarkEnv("walker_walk", "train", **small).load_state_dict(state)
    without = BenchmarkEnv("walker_walk", "video_hard", data_root=str(data_folder), clips=(3, 7), **small)
    with pytest.raises(UserError, match=r"background video2\.mp4 is no longer"):
        without.load_state_dict(state)


def test_random_states_go_on_where_they_were() -> None:
    random = np.random.RandomState(5)
    random.normal(size=3)  # leaves half of a pair of normal draws behind
    state = through_a_file(random_state_dict(random))
    expected = random.normal(size=5), random.randint(1 << 30, size=5)
    other = np.random.RandomState(0)
    load_random_state_dict(other, state)
    np.testing.assert_array_equal(other.normal(size=5), expected[0])
    np.testing.assert_array_equal(other.randint(1 << 30, size=5), expected[1])


def test_derived_random_states_depend_on_every_word() -> None:
    words = [(1, 2, 3), (1, 2, 4), (1, 3, 3), (2, 2, 3), (3, 2, 1)]
    draws = [derived(*each).randint(1 << 30, size=4).tolist() for each in words]
    assert len({tuple(draw) for draw in draws}) == len(words)
    assert derived(1, 2, 3).randint(1 << 30, size=4).tolist() == draws[0]
