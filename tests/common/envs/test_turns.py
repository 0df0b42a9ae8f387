"""DMC-GB2's geometric shifts: their matrices, their order, and that the frame is the task's, turned."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.config.shifts import COLOR_VIDEO_SHIFTS, GEOMETRIC_SHIFTS
from common.envs import turns
from common.envs.benchmark import BenchmarkEnv
from common.errors import UserError

# Limits in degrees of p and of q, most and least, in the hard shifts.
LIMITS = {
    "walker_walk": (10, -10, 10, -10),
    "cheetah_run": (10, -10, 10, -10),
    "cartpole_swingup": (8, -8, 10, -10),
    "finger_spin": (6, -6, 12, -6),
    "ball_in_cup_catch": (6, -6, 12, -6),
}


def roll(degrees: float) -> np.ndarray:
    """Rz, written out."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def aside(p: float, q: float) -> np.ndarray:
    """Ry(p)·Rx(q), multiplied out by hand."""
    cp, sp = math.cos(math.radians(p)), math.sin(math.radians(p))
    cq, sq = math.cos(math.radians(q)), math.sin(math.radians(q))
    return np.array([[cp, sp * sq, sp * cq], [0, cq, -sq], [-sp, cp * sq, cp * cq]])


def test_a_hard_rotation_goes_once_round_and_an_easy_one_half() -> None:
    hard, easy = (turns.turns_of(shift, "reacher_easy") for shift in ("rotate_hard", "rotate_easy"))
    assert hard.shape == easy.shape == (100, 3, 3)
    np.testing.assert_allclose(hard[0], [[-1, 0, 0], [0, -1, 0], [0, 0, 1]], atol=1e-15)
    np.testing.assert_allclose(hard[25], [[0, 1, 0], [-1, 0, 0], [0, 0, 1]], atol=1e-15)
    np.testing.assert_allclose(hard[75], [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-15)
    np.testing.assert_allclose(hard[99], roll(176.4), atol=1e-12)
    np.testing.assert_allclose(easy[0], [[0, 1, 0], [-1, 0, 0], [0, 0, 1]], atol=1e-15)
    np.testing.assert_allclose(easy[99], roll(88.2), atol=1e-12)
    for each, step in ((hard, 3.6), (easy, 1.8)):
        np.testing.assert_allclose(each[50], np.eye(3), atol=1e-15)
        np.testing.assert_allclose(each[51], roll(step), atol=1e-12)


@pytest.mark.parametrize("task", LIMITS)
def test_a_shift_walks_round_the_rectangle_of_the_domains_limits(task: str) -> None:
    for shift, divisor in (("shift_hard", 1.0), ("shift_easy", 1.5)):
        p_most, p_least, q_most, q_least = (limit / divisor for limit in LIMITS[task])
        found = turns.turns_of(shift, task)
        assert found.shape == (100, 3, 3)
        corners = {
            0: (p_least, q_least),
            25: (p_most, q_least),
            50: (p_most, q_most),
            75: (p_least, q_most),
        }
        for index, corner in corners.items():
            np.testing.assert_allclose(found[index], aside(*corner), atol=1e-12)
        along_p, along_q = (p_most - p_least) / 25, (q_most - q_least) / 25
        np.testing.assert_allclose(found[1], aside(p_least + along_p, q_least), atol=1e-12)
        np.testing.assert_allclose(found[26], aside(p_most, q_least + along_q), atol=1e-12)
        np.testing.assert_allclose(found[51], aside(p_most - along_p, q_most), atol=1e-12)
        np.testing.assert_allclose(found[99], aside(p_least, q_least + along_q), atol=1e-12)


def test_both_at_once_are_the_shift_and_then_the_rotation_of_the_same_number() -> None:
    hard = turns.turns_of("rotate_shift_hard", "finger_spin")
    np.testing.assert_allclose(hard[0], aside(-6, -6) @ roll(-180), atol=1e-12)
    np.testing.assert_allclose(hard[60], aside(6 - 10 * 12 / 25, 12) @ roll(36), atol=1e-12)
    easy = turns.turns_of("rotate_shift_easy", "cartpole_swingup")
    np.testing.assert_allclose(easy[75], aside(-8 / 1.5, 10 / 1.5) @ roll(45), atol=1e-12)
    np.testing.assert_allclose(easy[99], aside(-8 / 1.5, (-10 + 20 / 25) / 1.5) @ roll(88.2), atol=1e-12)


def test_a_hundred_episodes_show_every_turn_once_in_the_order_of_the_seed() -> None:
    order = list(range(100))
    np.random.RandomState(7).shuffle(order)
    assert [turns.turn_of_episode(7, number) for number in range(100)] == order
    assert order[:4] != [0, 1, 2, 3]
    assert [turns.turn_of_episode(7, number) for number in (100, 299)] == [order[0], order[99]]
    assert turns.turn_of_episode(8, 0) != order[0]


@pytest.mark.slow
@pytest.mark.parametrize("shift", [*GEOMETRIC_SHIFTS, *COLOR_VIDEO_SHIFTS])
def test_state_and_reward_are_trainings_to_the_bit_over_an_episode(shift: str, data_folder: Path) -> None:
    arguments: dict[str, Any] = {"seed": 5, "action_repeat": 8, "image_size": 16, "shadow_size": 32}
    own, other = (BenchmarkEnv("cheetah_run", name, **arguments) for name in ("train", shift))
    options = {"evaluation": 0, "episode": 2, "episodes": 3}
    frames = [env.reset(options=options)[0] for env in (own, other)]
    random = np.random.RandomState(0)
    truncated = False
    while not truncated:
        action = random.uniform(-1, 1, own.action_size)
        frames[0], *plain, _ = own.step(action)
        frames[1], *turned, _ = other.step(action)
        assert plain == turned
        np.testing.assert_array_equal(own.simulator_state(), other.simulator_state())
        truncated = turned[2]
    assert (frames[0] != frames[1]).mean() > 0.3
    data = [env._simulator.physics.data for env in (own, other)]
    np.testing.assert_array_equal(data[0].cam_xmat, data[1].cam_xmat)
    for env in (own, other):
        env.close()


def looked_up(turn: np.ndarray, fovy: float, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Which pixel of the task's own picture each one of the turned shows: rows and columns, (size, size).

    A pinhole camera looks along its -z; turning it about itself moves rays, not what they meet.
    """
    half = math.tan(math.radians(fovy) / 2)
    places = (np.arange(size) + 0.5) / size * 2 - 1
    right, down = np.meshgrid(places * half, places * half)
    rays = np.stack([right, -down, -np.ones_like(right)], axis=-1) @ turn.T
    columns = (rays[..., 0] / -rays[..., 2] / half + 1) / 2 * size - 0.5
    rows = (rays[..., 1] / rays[..., 2] / half + 1) / 2 * size - 0.5
    return np.rint(rows).astype(int), np.rint(columns).astype(int)


@pytest.mark.parametrize(
    ("task", "shift", "number", "turn"),
    [
        ("walker_walk", "shift_hard", 50, aside(10, 10)),
        ("walker_walk", "rotate_easy", 80, roll(54)),
        ("cheetah_run", "rotate_shift_hard", 90, aside(-10, 10 - 15 * 20 / 25) @ roll(144)),
        ("finger_spin", "shift_easy", 75, aside(-4, 8)),
    ],
)
def test_frame_and_true_foreground_are_what_the_turned_camera_sees(
    task: str, shift: str, number: int, turn: np.ndarray
) -> None:
    """The task's own picture, looked up ray by ray, after steps by which tracking cameras have moved."""
    size = 168
    own, turned = (BenchmarkEnv(task, name, seed=3, image_size=size) for name in ("train", shift))
    episode = next(k for k in range(100) if turns.turn_of_episode(3, k) == number)
    options = {"evaluation": 0, "episode": episode, "episodes": 100}
    for env in (own, turned):
        env.reset(options=options)
    random = np.random.RandomState(1)
    frames = {}
    for _ in range(8):
        action = random.uniform(-1, 1, own.action_size)
        frames = {env.shift: env.step(action)[0][-3:].astype(int) for env in (own, turned)}
    rows, columns = looked_up(turn, float(own._simulator.physics.model.cam_fovy[0]), size)
    inside = (rows >= 0) & (rows < size) & (columns >= 0) & (columns < size)
    assert inside.mean() > 0.5
    rows, columns = rows[inside], columns[inside]
    expected, found = frames["train"][:, rows, columns], frames[shift][:, inside]
    # Other pixels of the textures are hit, and outlines run elsewhere between pixels.
    assert np.median(np.abs(expected - found)) <= 3
    assert np.abs(expected - found).mean() < 8 < np.abs(frames["train"] - frames[shift]).mean()
    truth, own_truth = turned.segmentation()[inside], own.segmentation()[rows, columns]
    assert (truth & own_truth).sum() / (truth | own_truth).sum() > 0.85
    assert truth.mean() > 0.02
    for env in (own, turned):
        env.close()


def test_the_order_is_of_the_order_seed_in_evaluation_and_training_alike() -> None:
    env = BenchmarkEnv("walker_walk", "rotate_shift_easy", seed=50, order_seed=8, image_size=16)
    order = list(range(100))
    np.random.RandomState(8).shuffle(order)
    assert [env.reset()[1]["turn"] for _ in range(3)] == order[:3]
    # Backwards, after whatever was played.
    for number in reversed(range(4)):
        evaluation, episode = divmod(number, 2)
        options = {"evaluation": evaluation, "episode": episode, "episodes": 2}
        assert env.reset(options=options)[1]["turn"] == order[number]
    assert env.step(np.zeros(6))[4]["turn"] == order[0]
    env.close()
    alone = BenchmarkEnv("walker_walk", "rotate_easy", seed=50, image_size=16)
    assert alone.reset(seed=8)[1]["turn"] == order[0]
    alone.close()


def test_tasks_without_limits_can_be_rotated_but_not_shifted() -> None:
    env = BenchmarkEnv("reacher_easy", "rotate_hard", image_size=16)
    assert env.reset()[1]["turn"] in range(100)
    env.close()
    for shift in ("shift_easy", "rotate_shift_hard"):
        message = (
            f"unknown shift '{shift}' for reacher_easy: DMC-GB2 limits it for walker, cheetah, cartpole, "
            "finger, ball_in_cup only; choose from rotate_easy, rotate_hard"
        )
        with pytest.raises(UserError, match=message):
            BenchmarkEnv("reacher_easy", shift)
    with pytest.raises(UserError, match=r"unknown shift 'shift_easy' for robot_reach: .*test1"):
        BenchmarkEnv("robot_reach", "shift_easy")
