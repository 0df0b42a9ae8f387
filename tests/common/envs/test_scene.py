"""What is scene and what foreground in every task of the suite, for green screen and truth alike."""

import numpy as np
import pytest

from common.envs import BENCHMARK_TASKS, chroma
from common.envs.benchmark import BenchmarkEnv
from common.envs.shift_shares import changed_shares
from common.envs.tasks import SUITE_TASKS, build

# By hand, from the models' XML; a task's own entry goes before its domain's.
SCENES = {
    "ball_in_cup": {"ground"},
    "cheetah": {"ground"},
    "dog_fetch": {"floor", "wall_px", "wall_py", "wall_nx", "wall_ny"},
    "finger": {"ground"},
    "fish": {"ground"},
    "manipulator": {"floor", "wall1", "wall2", "background"},
    "point_mass": {"ground", "wall_x", "wall_y", "wall_neg_x", "wall_neg_y"},
    "quadruped_escape": {"floor", "terrain"},
    "quadruped_fetch": {"floor", "wall_px", "wall_py", "wall_nx", "wall_ny"},
    "reacher": {"ground", "wall_x", "wall_y", "wall_neg_x", "wall_neg_y"},
    "stacker": {"floor", "wall1", "wall2", "background"},
    "swimmer": {"ground"},
}
REST = {"floor"}  # acrobot, cartpole, dog, hopper, humanoid, lqr, pendulum, quadruped, walker


def simulator(task: str, seed: int = 0):
    return build(task, "dmcgb", np.random.RandomState(seed))


@pytest.fixture(params=SUITE_TASKS)
def task(request: pytest.FixtureRequest) -> str:
    return request.param


def test_the_scene_is_floor_walls_and_terrain(task: str) -> None:
    found = simulator(task)
    names = {
        found.physics.model.id2name(geom, "geom") for geom in found.appearance.background_geoms(found.physics)
    }
    assert names == next((scene for name, scene in SCENES.items() if task.startswith(name)), REST)


@pytest.mark.parametrize("task", BENCHMARK_TASKS)
def test_the_benchmarks_tasks_turn_green_by_their_textures_alone(task: str) -> None:
    found = simulator(task)
    model = found.physics.model
    before = {name: getattr(model, name).copy() for name in ("geom_matid", "geom_rgba", "mat_rgba")}
    for shift in ("video_hard", "video_easy", "train"):
        found.appearance.wear(found.physics, shift, None)
        for name, array in before.items():
            np.testing.assert_array_equal(getattr(model, name), array)
    found.close()


def test_walls_are_green_under_video_hard_only() -> None:
    found = simulator("reacher_easy")
    model = found.physics.named.model
    own = model.geom_matid["wall_x"], model.geom_rgba["wall_x"].tolist()
    found.appearance.wear(found.physics, "video_hard", None)
    assert model.geom_matid["wall_x"] == -1
    np.testing.assert_allclose(model.geom_rgba["wall_x"], [0.2, 0.8, 0.2, 1.0], atol=1e-7)
    assert model.geom_matid["root"] == model.geom_matid["ground"] + 7 == own[0]  # decoration, as it was
    for shift in ("video_easy", "train"):
        found.appearance.wear(found.physics, shift, None)
        assert (model.geom_matid["wall_x"], model.geom_rgba["wall_x"].tolist()) == own
    found.close()


# Height fields, walls of either material, goals that lie in the world body, thin and small foregrounds.
KEYED = (
    "quadruped_walk",
    "quadruped_escape",
    "quadruped_fetch",
    "manipulator_bring_ball",
    "manipulator_insert_peg",
    "stacker_stack_2",
    "reacher_easy",
    "point_mass_easy",
    "fish_swim",
    "swimmer_swimmer6",
    "humanoid_walk",
    "dog_run",
    "lqr_lqr_2_1",
)


def eroded(mask: np.ndarray) -> np.ndarray:
    """The pixels whose eight neighbours are in the mask as well."""
    padded = np.pad(mask, 1, mode="edge")
    height, width = mask.shape
    return np.logical_and.reduce([padded[y : y + height, x : x + width] for y in range(3) for x in range(3)])


@pytest.mark.slow
@pytest.mark.parametrize("task", KEYED)
def test_the_scene_is_keyed_out_and_the_foreground_is_not(task: str) -> None:
    env = BenchmarkEnv(task, "video_hard", seed=1, action_repeat=2)
    env.reset()
    random = np.random.RandomState(0)
    opacity = env._simulator.physics.model.geom_rgba[:, 3]
    for _ in range(3):
        env.step(random.uniform(-1, 1, env.action_size))
        green = chroma.is_green(*env._camera.frame())
        truth = env.segmentation()
        # Rays of quadruped_escape's rangefinders are drawn over the terrain.
        assert green[eroded(~truth)].mean() > (0.95 if task == "quadruped_escape" else 0.995)
        # lqr's origin is a pane of half opacity: the green floor shows through, and is keyed out there.
        number, kind = np.moveaxis(env._camera.objects(), -1, 0)
        solid = truth & ~((kind == 5) & (opacity[number] < 1))  # mjOBJ_GEOM
        assert solid.any() and green[solid].mean() < 0.2
        assert 0.002 < truth.mean() < 0.13
    env.close()


@pytest.mark.parametrize(
    ("task", "geom"),
    [
        ("reacher_easy", "target"),
        ("fish_swim", "target"),
        ("swimmer_swimmer6", "target"),
        ("point_mass_easy", "target"),
        ("cartpole_swingup", "rail2"),
    ],
)
def test_goals_and_rails_are_foreground(task: str, geom: str) -> None:
    env = BenchmarkEnv(task, seed=1, image_size=252)  # rails are thinner than a pixel of 84
    env.reset()
    objects = env._camera.objects()
    number = env._simulator.physics.model.name2id(geom, "geom")
    shown = (objects[..., 0] == number) & (objects[..., 1] == 5)  # mjOBJ_GEOM
    assert shown.any()
    assert env.segmentation()[shown].all()
    env.close()


@pytest.mark.slow
def test_shares_of_pixels_that_shifts_change() -> None:
    shifts = (
        "video_easy",
        "video_hard",
        "color_hard",
        "view_fov",
        "color_video_hard",
        "rotate_hard",
        "shift_easy",
    )
    walker = changed_shares(shifts, task="walker_walk", image_size=64)
    # The same three moments once more.
    env = BenchmarkEnv("walker_walk", image_size=64, seed=0, action_repeat=1)
    env.reset()
    random = np.random.RandomState(0)
    sky, foreground = [], []
    for step in range(1, 31):
        env.step(random.uniform(-1, 1, 6))
        if step % 10 == 0:
            sky.append((env._camera.objects()[..., 1] == -1).mean())
            foreground.append(env.segmentation().mean())
    env.close()
    # The far end of the floor, which fades into the sky, is keyed with it.
    assert walker["video_easy"] == pytest.approx(np.mean(sky), abs=0.02)
    assert walker["video_hard"] == pytest.approx(1 - np.mean(foreground), abs=0.01)
    assert walker["color_hard"] > 0.95 and walker["view_fov"] > 0.8
    assert walker["color_video_hard"] > 0.95 and walker["rotate_hard"] > 0.8 and walker["shift_easy"] > 0.8
    # From above there is no sky, and of the terrain neither sky nor floor nor body.
    reacher = changed_shares(("train", "video_easy", "video_hard"), task="reacher_easy", image_size=64)
    assert (reacher["train"], reacher["video_easy"]) == (0, 0)
    assert 0.93 < reacher["video_hard"] < 0.99
    escape = changed_shares(("color_hard", "video_easy"), task="quadruped_escape", image_size=64)
    assert escape["color_hard"] < 0.1 and escape["video_easy"] == 0
    still = changed_shares(("view_novel",), task="walker_walk", image_size=32, view_strength=0.0)
    assert still == {"view_novel": 0}
    robot = changed_shares(("test1",), task="robot_reach", image_size=64)
    assert 0.5 < robot["test1"] < 0.99
