"""The six looks of the robotic tasks: what they change, and that they change nothing else."""

from collections.abc import Iterator
from itertools import combinations

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from common.config.shifts import ROBOT_SHIFTS, ROBOT_TASKS
from common.data.image_files import area_means
from common.envs.benchmark import BenchmarkEnv
from common.envs.robot import textures
from common.envs.robot.controller import scripted_action

TABLE_TOPS = ("wood", "carpet", "concrete", "light_wood", "sponge")
# The published colour of sky, floor and pedestal.
COLOURS = {
    "train": (1, 1, 1),
    "test1": (1, 0.5, 1),
    "test2": (0.5, 0.9, 0.8),
    "test3": (0.5, 0.1, 0.1),
    "test4": (0.1, 0.5, 0.8),
    "test5": (0.3, 0.2, 0),
}


FINE = 10  # times the resolution, to find pixels that show nothing but foreground


def make(task: str, shift: str, image_size: int = 84) -> BenchmarkEnv:
    return BenchmarkEnv(task, shift, action_repeat=1, episode_steps=50, image_size=image_size)


@pytest.fixture(params=ROBOT_TASKS, scope="module")
def looks(request: pytest.FixtureRequest) -> Iterator[dict[str, BenchmarkEnv]]:
    """One environment per look."""
    made = {shift: make(request.param, shift) for shift in ROBOT_SHIFTS}
    yield made
    for env in made.values():
        env.close()


@pytest.fixture
def envs(looks: dict[str, BenchmarkEnv]) -> dict[str, BenchmarkEnv]:
    """One environment per look, all in the same state."""
    for env in looks.values():
        env.reset(seed=5)
    return looks


def neighbours_correlation(grey: np.ndarray, axis: int) -> float:
    ahead = np.roll(grey, 1, axis)
    return float(np.corrcoef(grey.ravel(), ahead.ravel())[0, 1])


@pytest.mark.parametrize("name", TABLE_TOPS)
def test_table_tops_have_spatial_structure(name: str) -> None:
    image = textures.table_top(name).astype(float)
    assert image.shape == (textures.SIZE, textures.SIZE, 3)
    grey = image.mean(axis=2)
    assert 8 < grey.std() < 80
    # Neither a plain colour nor pixel noise: neighbours resemble each other, distant pixels do not.
    assert max(neighbours_correlation(grey, axis) for axis in (0, 1)) > 0.5
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 100
    # Structure survives at the size at which the table is seen, and in every part of it.
    small = area_means(grey, 48)
    blocks = small.reshape(4, 12, 4, 12).swapaxes(1, 2).reshape(16, -1)
    assert blocks.std(axis=1).min() > 2.5


def test_wood_has_grain_along_one_axis_only() -> None:
    for name, along in (("wood", 1), ("light_wood", 0)):
        grey = textures.table_top(name).mean(axis=2)
        change = [np.abs(np.diff(grey, axis=axis)).mean() for axis in (0, 1)]
        assert change[1 - along] > 2 * change[along]


def test_table_tops_differ_and_training_is_plain_white() -> None:
    assert (textures.table_top("white") == 255).all()
    for one, other in combinations(TABLE_TOPS, 2):
        difference = textures.table_top(one).astype(int) - textures.table_top(other)
        assert np.abs(difference).mean() > 20


@pytest.mark.slow
def test_looks_show_the_published_colours_and_textures(envs: dict[str, BenchmarkEnv]) -> None:
    tables: dict[str, str] = dict(zip(ROBOT_SHIFTS, ("white", *TABLE_TOPS), strict=True))
    for shift, env in envs.items():
        model = env._simulator.physics.model.ptr
        sky, table = model.texture("sky").id, model.texture("table").id
        starts = [*model.tex_adr, len(model.tex_data)]
        pixels = model.tex_data[starts[sky] : starts[sky + 1]].reshape(-1, 3)
        np.testing.assert_array_equal(np.unique(pixels, axis=0), [np.round(np.multiply(255, COLOURS[shift]))])
        for material in ("floor", "pedestal"):
            np.testing.assert_allclose(model.mat(material).rgba, (*COLOURS[shift], 1), atol=1e-6)
        image = model.tex_data[starts[table] : starts[table + 1]].reshape(textures.SIZE, textures.SIZE, 3)
        np.testing.assert_array_equal(image, textures.table_top(tables[shift]))
        # Materials multiply textures; the table's must leave its texture as it is.
        np.testing.assert_array_equal(model.mat("table").rgba, (1, 1, 1, 1))


@pytest.mark.slow
def test_state_reward_and_reports_are_equal_to_the_bit(envs: dict[str, BenchmarkEnv]) -> None:
    random = np.random.RandomState(0)
    simulators = [env._simulator for env in envs.values()]
    environment = simulators[0].environment
    for step in range(50):
        action = scripted_action(environment.task, environment.physics)
        if step % 3 == 0:
            action = random.uniform(-1, 1, len(action))
        if step % 8 == 0:  # with a frame drawn, which must change nothing
            outcomes = [env.step(action)[1:] for env in envs.values()]
        else:
            outcomes = [simulator.step(action) for simulator in simulators]
        assert all(outcome == outcomes[0] for outcome in outcomes)
        assert len({env.simulator_state().tobytes() for env in envs.values()}) == 1


@pytest.mark.slow
def test_looks_differ_on_the_table_and_not_on_the_foreground(envs: dict[str, BenchmarkEnv]) -> None:
    frames = {shift: env.step(np.zeros(env.action_size))[0][-3:] for shift, env in envs.items()}
    masks = {shift: env.segmentation() for shift, env in envs.items()}
    foreground = masks["train"]
    assert 0.02 < foreground.mean() < 0.25
    # Antialiasing blends what a pixel shows, and the arm has slits that are narrower than a pixel.
    detailed = make(envs["train"].task, "train", 84 * FINE)
    detailed.reset(seed=5)
    detailed.step(np.zeros(detailed.action_size))
    inside = detailed.segmentation().reshape(84, FINE, 84, FINE).all(axis=(1, 3))
    detailed.close()
    outside = ~sliding_window_view(np.pad(foreground, 1), (3, 3)).any(axis=(2, 3))
    assert inside.sum() > 100
    for shift, frame in frames.items():
        np.testing.assert_array_equal(masks[shift], foreground)
        np.testing.assert_array_equal(frame[:, inside], frames["train"][:, inside])
    for one, other in combinations(frames, 2):
        difference = frames[one].astype(int) - frames[other]
        assert np.abs(difference).max(axis=0)[outside].mean() > 10
    # The lower half shows the table: its texture is visible, and plain in training.
    rows = np.zeros_like(outside)
    rows[55:] = True
    spread = {shift: frame[:, outside & rows].std(axis=1).max() for shift, frame in frames.items()}
    assert min(spread[shift] for shift in ROBOT_SHIFTS[1:]) > 5


@pytest.mark.parametrize("task", ROBOT_TASKS)
def test_the_foreground_is_arm_goal_peg_and_box(task: str) -> None:
    env = make(task, "test4")
    env.reset(seed=5)
    model = env._simulator.physics.model
    hidden = env._simulator.appearance.background_geoms(env._simulator.physics)
    names = {model.id2name(number, "geom") for number in range(model.ngeom) if number not in hidden}
    prefixes = {name.partition("/")[0] for name in names}
    assert prefixes == ({"arm", "goal"} if task == "robot_reach" else {"arm", "box"})
    assert ("arm/hand/peg/peg" in names) == (task == "robot_peg_in_box")
    # Red pixels are goal or box, and belong to the foreground.
    red, green, blue = env.step(np.zeros(env.action_size))[0][-3:].astype(int)
    red_pixels = (red > 90) & (green < red / 4) & (blue < red / 4)
    assert red_pixels.sum() > 20
    assert env.segmentation()[red_pixels].mean() > 0.95
    env.close()


def test_a_look_is_put_on_a_model_that_has_been_drawn() -> None:
    env, fresh = make("robot_reach", "train"), make("robot_reach", "test3")
    first, _ = env.reset(seed=1)
    simulator = env._simulator
    model = simulator.physics.model.ptr
    simulator.appearance.wear(simulator.physics, "test3", None)
    changed, _ = env.reset(seed=1)
    np.testing.assert_array_equal(changed, fresh.reset(seed=1)[0])
    assert not np.array_equal(changed, first)
    simulator.appearance.wear(simulator.physics, "train", None)
    np.testing.assert_array_equal(env.reset(seed=1)[0], first)
    assert simulator.physics.model.ptr is model  # compiled once
    env.close()
    fresh.close()
