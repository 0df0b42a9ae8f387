"""Camera shifts: where each puts the camera, and that nothing but pixels changes."""

import copy

import numpy as np
import pytest

from common.config import shifts
from common.envs import views
from common.envs.benchmark import BenchmarkEnv
from common.envs.views import Pose, Shift
from common.errors import UserError

DISTANCE = 2.5
# A camera at (0, -2, 1) that looks along +y with the horizon level: right is +x, up is +z, back is -y.
LEVEL = Pose(np.array([0.0, -2.0, 1.0]), np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]], float), 45.0)
# The same, tilted down by 30 degrees.
COS, SIN = np.sqrt(3) / 2, 0.5
TILTED = LEVEL._replace(axes=np.array([[1, 0, 0], [0, SIN, -COS], [0, COS, SIN]]))
DRAWS = range(200)


def target(pose: Pose, distance: float = DISTANCE) -> np.ndarray:
    return pose.position - distance * pose.axes[:, 2]


def azimuth(pose: Pose) -> float:
    """Degrees round the target, seen from above; 0 for the poses above."""
    x, y, _ = pose.position - target(pose)
    return float(np.degrees(np.arctan2(x, -y)))


def elevation(pose: Pose) -> float:
    """Degrees above the target."""
    return float(np.degrees(np.arcsin((pose.position - target(pose))[2] / DISTANCE)))


def assert_rotation(matrix: np.ndarray) -> None:
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(3), atol=1e-12)
    assert np.linalg.det(matrix) > 0


@pytest.mark.parametrize("pose", [LEVEL, TILTED])
def test_a_novel_view_goes_round_and_above_what_the_camera_looks_at(pose: Pose) -> None:
    around, above = [], []
    for draw in DRAWS:
        new = views.novel(pose, Shift(DISTANCE, 1.0, draw, 0))
        assert_rotation(new.axes)
        np.testing.assert_allclose(target(new), target(pose), atol=1e-12)
        assert new.axes[2, 0] == pytest.approx(0, abs=1e-12)  # level horizon
        assert new.fovy == pose.fovy
        # The viewpoint stays for the episode.
        later = views.novel(pose, Shift(DISTANCE, 1.0, draw, 77))
        np.testing.assert_array_equal(later.position, new.position)
        around.append(azimuth(new))
        above.append(elevation(new) - elevation(pose))
    size = np.abs(around)
    assert 15 <= size.min() < 16 and 29 < size.max() <= 30
    assert 60 < np.sum(np.greater(around, 0)) < 140
    assert -1e-9 <= min(above) < 1 and 14 < max(above) <= 15 + 1e-9


def test_strength_multiplies_the_angles_of_a_novel_view() -> None:
    for draw in range(5):
        whole, half = (views.novel(LEVEL, Shift(DISTANCE, strength, draw, 0)) for strength in (1.0, 0.5))
        assert azimuth(half) == pytest.approx(azimuth(whole) / 2)
        assert elevation(half) == pytest.approx(elevation(whole) / 2)


def test_a_moving_view_swings_with_a_period_of_100_steps() -> None:
    starts = []
    for draw in range(50):
        swing = [azimuth(views.moving(LEVEL, Shift(DISTANCE, 1.0, draw, step))) for step in range(200)]
        np.testing.assert_allclose(swing[:100], swing[100:], atol=1e-9)
        # A sine: its mirror image half a period later.
        np.testing.assert_allclose(swing[:100], np.negative(swing[50:150]), atol=1e-9)
        assert 29.9 < max(swing) <= 30 and -30 <= min(swing) < -29.9
        assert np.abs(np.diff(swing)).max() < 30 * 2 * np.pi / 100 + 1e-9
        starts.append(swing[0])
    assert min(starts) < -20 and max(starts) > 20
    assert elevation(views.moving(LEVEL, Shift(DISTANCE, 1.0, 3, 40))) == pytest.approx(0, abs=1e-9)


def test_a_shaking_view_jolts_each_step_within_bounds() -> None:
    poses = [views.shaking(TILTED, Shift(DISTANCE, 1.0, 9, step)) for step in range(400)]
    moved = np.array([TILTED.axes.T @ (pose.position - TILTED.position) for pose in poses])
    assert np.abs(moved).max() <= 0.02 * DISTANCE
    assert np.abs(moved).max(axis=0).min() > 0.019 * DISTANCE
    assert np.abs(moved.mean(axis=0)).max() < 0.003 * DISTANCE
    # No memory: a step's jolt tells nothing of the next.
    assert np.abs(np.corrcoef(moved[:-1, 0], moved[1:, 0])[0, 1]) < 0.2
    for pose in poses:
        assert_rotation(pose.axes)
    angles = [np.degrees(np.arccos((np.trace(TILTED.axes.T @ pose.axes) - 1) / 2)) for pose in poses]
    assert max(angles) <= 2 * np.sqrt(3) + 1e-9
    assert max(angles) > 2


def test_a_field_of_view_shift_scales_the_image_by_up_to_two_fifths() -> None:
    scales = []
    for draw in DRAWS:
        new = views.fov(TILTED, Shift(DISTANCE, 1.0, draw, 5))
        np.testing.assert_array_equal(new.position, TILTED.position)
        np.testing.assert_array_equal(new.axes, TILTED.axes)
        scales.append(np.tan(np.radians(new.fovy / 2)) / np.tan(np.radians(45 / 2)))
    size = np.maximum(scales, np.reciprocal(scales))
    assert 1.2 <= size.min() < 1.21 and 1.39 < size.max() <= 1.4
    assert 60 < np.sum(np.greater(scales, 1)) < 140
    half = views.fov(TILTED, Shift(DISTANCE, 0.5, 0, 5))
    assert np.tan(np.radians(half.fovy / 2)) / np.tan(np.radians(45 / 2)) == pytest.approx(np.sqrt(scales[0]))


@pytest.mark.parametrize("name", shifts.VIEW_SHIFTS)
def test_no_strength_is_the_tasks_own_view(name: str) -> None:
    new = views.VIEWS[name](TILTED, Shift(DISTANCE, 0.0, 4, 30))
    np.testing.assert_allclose(new.position, TILTED.position, atol=1e-12)
    np.testing.assert_allclose(new.axes, TILTED.axes, atol=1e-12)
    assert new.fovy == pytest.approx(TILTED.fovy)


def make(shift: str, task: str = "walker_walk", **arguments: float) -> BenchmarkEnv:
    return BenchmarkEnv(task, shift, **{"seed": 1, **arguments})  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("shift", shifts.VIEW_SHIFTS)
def test_views_change_pixels_and_nothing_else(shift: str) -> None:
    own, seen = make("train"), make(shift)
    frames = [env.reset()[0] for env in (own, seen)]
    random = np.random.RandomState(0)
    for _ in range(6):
        action = random.uniform(-1, 1, own.action_size)
        results = [env.step(action) for env in (own, seen)]
        frames = [result[0] for result in results]
        assert results[0][1:] == results[1][1:]
        np.testing.assert_array_equal(own.simulator_state(), seen.simulator_state())
    assert np.abs(frames[0][-3:].astype(int) - frames[1][-3:]).mean() > 3
    # The camera is back where the task has it, and the true foreground is what the moved camera sees.
    for name in ("cam_xpos", "cam_xmat"):
        physics = [getattr(env._simulator.physics.data, name) for env in (own, seen)]
        np.testing.assert_array_equal(*physics)
    np.testing.assert_array_equal(*(env._simulator.physics.model.cam_fovy for env in (own, seen)))
    masks = [env.segmentation() for env in (own, seen)]
    assert (masks[0] != masks[1]).mean() > 0.005
    body = seen._stack[-3:].astype(int)
    orange = (body[0] > body[2] + 40) & (body[0] > 90)  # the walker's body; sky and floor are blue
    assert orange.sum() > 100
    assert masks[1][orange].mean() > 0.97
    for env in (own, seen):
        env.close()


def test_no_strength_draws_the_training_frames() -> None:
    own, seen = make("train", "cheetah_run"), make("view_novel", "cheetah_run", view_strength=0.0)
    np.testing.assert_array_equal(own.reset()[0], seen.reset()[0])
    for env in (own, seen):
        env.close()


def test_the_view_is_a_function_of_the_seed_and_of_the_episodes_number() -> None:
    env, same, other = make("view_novel"), make("view_novel"), make("view_novel", seed=2)
    options = {"evaluation": 1, "episode": 0, "episodes": 2}
    first = env.reset()[0]
    np.testing.assert_array_equal(first, same.reset()[0])
    second = env.reset()[0]
    assert not np.array_equal(first, second)
    evaluated = env.reset(options=options)[0]
    np.testing.assert_array_equal(evaluated, same.reset(options=options)[0])
    assert not np.array_equal(evaluated, other.reset(options=options)[0])
    for each in (env, same, other):
        each.close()


@pytest.mark.parametrize("shift", ["view_shaking", "view_moving"])
def test_a_resumed_view_continues_to_the_bit(shift: str) -> None:
    env, resumed = make(shift, "finger_spin"), make(shift, "finger_spin", seed=5)
    env.reset()
    random = np.random.RandomState(0)
    for _ in range(4):
        env.step(random.uniform(-1, 1, 2))
    resumed.load_state_dict(copy.deepcopy(env.state_dict()))
    for _ in range(3):
        action = random.uniform(-1, 1, 2)
        np.testing.assert_array_equal(env.step(action)[0], resumed.step(action)[0])
    np.testing.assert_array_equal(env.reset()[0], resumed.reset()[0])
    for each in (env, resumed):
        each.close()


def test_a_negative_strength_is_a_user_error() -> None:
    with pytest.raises(UserError, match=r"env\.view_strength is -1"):
        make("view_novel", view_strength=-1.0)


def test_groups_stand_for_shifts() -> None:
    benchmark = ("train", "color_easy", "color_hard", "video_easy", "video_hard")
    moved = ("view_novel", "view_moving", "view_shaking", "view_fov")
    assert shifts.expand(["all"], "walker_walk") == benchmark
    assert shifts.expand(["views"], "walker_walk") == moved
    assert shifts.expand(["video_hard", "all", "views"], "cheetah_run") == (
        "video_hard",
        *(shift for shift in benchmark if shift != "video_hard"),
        *moved,
    )
    assert shifts.expand(["all"], "robot_reach") == ("train", "test1", "test2", "test3", "test4", "test5")
    photometric = (*benchmark[1:], "color_video_easy", "color_video_hard")
    rotated = ("rotate_easy", "rotate_hard")
    geometric = (*rotated, "shift_easy", "shift_hard", "rotate_shift_easy", "rotate_shift_hard")
    assert shifts.expand(["photometric"], "walker_walk") == photometric
    assert shifts.expand(["geometric"], "walker_walk") == geometric
    assert shifts.expand(["dmcgb2"], "walker_walk") == (*photometric, *geometric)
    assert set(shifts.shifts_of("walker_walk")) == {*benchmark, *photometric, *geometric, *moved}
    assert set(shifts.shifts_of("dog_walk")) == {*benchmark, *photometric, *rotated, *moved}
    assert shifts.shifts_of("robot_reach") == shifts.expand(["all"], "robot_reach")


def test_means_are_of_complete_kinds_of_shifts_only() -> None:
    everything = shifts.expand(["train", "dmcgb2"], "walker_walk")
    assert {name: len(found) for name, found in shifts.whole_groups(everything).items()} == {
        "photometric": 6,
        "geometric": 6,
    }
    without = [shift for shift in everything if shift != "rotate_hard"]
    assert list(shifts.whole_groups(without)) == ["photometric"]
    assert shifts.whole_groups(shifts.SHIFTS) == {}


def test_clips_and_presets_of_shifts() -> None:
    found = {
        shift: (shifts.clips_of(shift), shifts.presets_of(shift)) for shift in shifts.shifts_of("walker_walk")
    }
    shown = {shift: each for shift, each in found.items() if each != (None, None)}
    assert shown == {
        "color_easy": (None, "color_easy"),
        "color_hard": (None, "color_hard"),
        "video_easy": ("video_easy", None),
        "video_hard": ("video_hard", None),
        "color_video_easy": ("video_easy", "color_easy"),
        "color_video_hard": ("video_hard", "color_hard"),
    }
