"""Dynamics, rewards and success of the robotic tasks, read off MuJoCo's own arrays."""

# MuJoCo's names live in a compiled module without type stubs.
# pyright: reportAttributeAccessIssue=false

from collections.abc import Sequence

import mujoco
import numpy as np
import pytest

from common.envs import robot
from common.envs.robot import kinematics
from common.envs.robot.arena import BOX_RIM
from common.envs.robot.controller import scripted_action
from common.envs.robot.tasks import WORKSPACE
from common.envs.simulator import Simulator

pytestmark = pytest.mark.slow

REACH, PEG = "robot_reach", "robot_peg_in_box"
VARIANTS = [(REACH, "xy"), (REACH, "xyz"), (PEG, "xy"), (PEG, "xyz")]
TOOL_SITE = "arm/hand/pinchsite"
TABLE_TOP = 0.536
EPISODE_STEPS = 50


def build(task: str, axes: str | None = None, seed: int = 0) -> Simulator:
    simulator = robot.build(task, np.random.RandomState(seed), axes, None)
    simulator.reset()
    return simulator


def tool(simulator: Simulator) -> np.ndarray:
    return simulator.physics.named.data.site_xpos[TOOL_SITE].copy()


def geom(simulator: Simulator, name: str) -> np.ndarray:
    return simulator.physics.named.data.geom_xpos[name].copy()


def box(simulator: Simulator) -> np.ndarray:
    """The middle of the box's opening, between the upper edges of two walls."""
    walls = [geom(simulator, f"box/wall_{side}") for side in ("x-1", "x1")]
    half = simulator.physics.named.model.geom_size["box/wall_x1"][2]
    upright = simulator.physics.named.data.geom_xmat["box/wall_x1"].reshape(3, 3)[:, 2]
    return np.mean(walls, axis=0) + half * upright


def peg_tip(simulator: Simulator) -> np.ndarray:
    """The lower end of the cylinder's axis, from its orientation."""
    axis = simulator.physics.named.data.geom_xmat["arm/hand/peg/peg"].reshape(3, 3)[:, 2]
    return geom(simulator, "arm/hand/peg/peg") + 0.035 * axis


def repeat(simulator: Simulator, steps: int, action: Sequence[float]) -> None:
    for _ in range(steps):
        simulator.step(np.array(action))


@pytest.mark.parametrize(("task", "axes"), VARIANTS)
def test_an_action_moves_the_tool_five_centimetres_per_axis(task: str, axes: str) -> None:
    simulator = build(task, axes)
    repeat(simulator, 10, [0, 0, 0][: len(axes)])
    start, orientation = tool(simulator), simulator.physics.named.data.site_xmat[TOOL_SITE].copy()
    simulator.step(np.array([0.5, -1, -0.4])[: len(axes)])
    repeat(simulator, 15, [0, 0, 0][: len(axes)])
    expected = np.array([0.025, -0.05, -0.02 if axes == "xyz" else 0])
    np.testing.assert_allclose(tool(simulator) - start, expected, atol=5e-4)
    np.testing.assert_allclose(simulator.physics.named.data.site_xmat[TOOL_SITE], orientation, atol=1e-3)
    # The tool's z axis points down.
    np.testing.assert_allclose(orientation.reshape(3, 3)[:, 2], (0, 0, -1), atol=1e-3)


@pytest.mark.parametrize(("task", "axes"), [(REACH, "xyz"), (PEG, "xyz")])
@pytest.mark.parametrize("direction", [1, -1])
def test_the_workspace_ends_the_motion(task: str, axes: str, direction: int) -> None:
    simulator = build(task, axes)
    repeat(simulator, 25, [direction] * 3)
    lowest = 0.6 if task == REACH else 0.68
    border = (1.7, 0.45, 1.0) if direction == 1 else (1.4, 0.15, lowest)
    np.testing.assert_allclose(tool(simulator), border, atol=1e-3)
    # One step back is felt at once: nothing was wound up beyond the border.
    simulator.step(np.array([-direction, 0, 0]))
    repeat(simulator, 15, [0, 0, 0])
    assert tool(simulator)[0] == pytest.approx(border[0] - 0.05 * direction, abs=1e-3)


@pytest.mark.parametrize(("task", "timestep"), [(REACH, 0.002), (PEG, 0.001)])
def test_twenty_substeps_make_a_step(task: str, timestep: float) -> None:
    simulator = build(task)
    simulator.step(np.zeros(simulator.action_size))
    assert simulator.physics.timestep() == timestep
    assert simulator.physics.time() == pytest.approx(20 * timestep)


def test_the_arm_holds_the_tool_anywhere_in_the_workspace() -> None:
    simulator = build(REACH)
    environment = simulator.environment
    physics, arm = environment.physics, environment.task.root_entity.arm
    model = physics.model.ptr
    limited = model.jnt_limited.astype(bool)
    lowest, highest = model.jnt_range[limited].T
    sides = (np.linspace(low, high, 5) for low, high in WORKSPACE.T)
    for position in np.stack(np.meshgrid(*sides), axis=-1).reshape(-1, 3):
        kinematics.place_tool(physics, arm, position)
        mujoco.mj_forward(model, physics.data.ptr)
        np.testing.assert_allclose(tool(simulator), position, atol=1e-6)
        turn = physics.named.data.site_xmat[TOOL_SITE].reshape(3, 3)
        np.testing.assert_allclose(turn, np.diag([1, -1, -1]), atol=1e-6)
        angles = physics.data.qpos[:6][limited]
        assert (angles > lowest).all() and (angles < highest).all()


def test_a_place_out_of_reach_is_an_error() -> None:
    simulator = build(REACH)
    environment = simulator.environment
    arm = environment.task.root_entity.arm
    with pytest.raises(ValueError, match="cannot hold"):
        kinematics.place_tool(environment.physics, arm, np.array([3.0, 0.3, 0.8]))


@pytest.mark.parametrize(("task", "height"), [(REACH, 0.26), (PEG, 0.43)])
def test_starts_and_goals_spread_over_the_workspace(task: str, height: float) -> None:
    simulator = build(task)
    starts, goals = [], []
    for _ in range(200):
        simulator.reset()
        starts.append(tool(simulator))
        goals.append(geom(simulator, "goal/disc") if task == REACH else box(simulator))
    start, goal = np.array(starts), np.array(goals)
    np.testing.assert_allclose(start[:, 2], TABLE_TOP + height, atol=1e-6)
    np.testing.assert_allclose(goal[:, 2], TABLE_TOP if task == REACH else 0.62, atol=1e-6)
    # Published rectangle cut by the workspace; drawn uniformly, so the extremes come near its sides.
    for values, low, high in (
        (start[:, 0], 1.40, 1.55),
        (start[:, 1], 0.20, 0.40),
        (goal[:, 0], 1.505, 1.70),
        (goal[:, 1], 0.15, 0.45),
    ):
        assert low <= values.min() < low + 0.01 and high - 0.01 < values.max() <= high


@pytest.mark.parametrize("axes", ["xy", "xyz"])
def test_the_reward_of_reach(axes: str) -> None:
    simulator = build(REACH, axes, seed=3)
    random = np.random.RandomState(0)
    near = far = 0
    for step in range(60):
        action = random.uniform(-1, 1, len(axes)) if step % 2 else scripted(simulator)
        reward = simulator.step(action).reward
        goal = np.array([*geom(simulator, "goal/disc")[:2], 0.6])
        distance = np.sqrt(sum((tool(simulator)[i] - goal[i]) ** 2 for i in range(len(axes))))
        effort = sum(float(value) ** 2 for value in action)
        expected = 1.0 if distance < 0.05 else -3 * distance - 0.5 * effort
        assert reward == pytest.approx(expected, abs=1e-6)
        assert simulator.appearance.info(simulator.physics) == {"success": bool(distance < 0.05)}
        near, far = near + (distance < 0.05), far + (distance >= 0.05)
    assert near > 5 and far > 5


@pytest.mark.parametrize("axes", ["xy", "xyz"])
def test_the_reward_and_the_reports_of_peg_in_box(axes: str) -> None:
    simulator = build(PEG, axes, seed=3)
    random = np.random.RandomState(0)
    rewarded, inside_in_a_row, reports = [], 0, []
    for step in range(90):
        # Over the box and down, then away by chance.
        action = scripted(simulator) if step < 45 else random.uniform(-1, 1, len(axes))
        reward = simulator.step(action).reward
        peg, opening = geom(simulator, "arm/hand/peg/peg"), box(simulator)
        goal = opening - (0, 0, 0.035)
        in_plane = np.hypot(peg[0] - goal[0], peg[1] - goal[1])
        distance = np.sqrt(((peg - goal) ** 2).sum())
        bonus = 10 - 20 * distance if in_plane <= 0.05 else 0
        expected = -sum(float(value) ** 2 for value in action) - 4 * in_plane + bonus
        assert reward == pytest.approx(expected, abs=1e-6)
        tip = peg_tip(simulator)
        inside = np.hypot(tip[0] - opening[0], tip[1] - opening[1]) < 0.03 and tip[2] < opening[2]
        inside_in_a_row = inside_in_a_row + 1 if inside else 0
        report = simulator.appearance.info(simulator.physics)
        assert report == {"success": bool(distance < 0.08), "inserted": inside_in_a_row >= 5}
        rewarded.append(bonus > 0)
        reports.append(tuple(report.values()))
    assert 5 < sum(rewarded) < 85
    # With the height fixed the peg stays above the box; with all axes success comes before insertion.
    assert set(reports) == (
        {(False, False)} if axes == "xy" else {(False, False), (True, False), (True, True)}
    )


def test_insertion_is_forgotten_by_the_next_episode() -> None:
    simulator = build(PEG)
    while not simulator.appearance.info(simulator.physics)["inserted"]:
        simulator.step(scripted(simulator))
    simulator.reset()
    assert not simulator.appearance.info(simulator.physics)["inserted"]


def test_only_passive_joints_hold_the_peg() -> None:
    simulator = build(PEG)
    model = simulator.physics.model.ptr
    assert model.nu == 0
    # Up from the peg to the hand, counting joints on the way.
    body, joints = model.body("arm/hand/peg/peg").id, 0
    while body != model.body("arm/hand/").id:
        joints += model.body_jntnum[body]
        body = model.body_parentid[body]
    assert joints == 4
    # A single constraint ties bodies: the tool to the target that an action moves.
    assert model.neq == 1 and model.eq_objtype[0] == mujoco.mjtObj.mjOBJ_SITE
    tied = {model.site(int(number[0])).name for number in (model.eq_obj1id, model.eq_obj2id)}
    assert tied == {"target", TOOL_SITE}
    box_joint = model.body_jntadr[model.body("box/").id]
    assert model.jnt_type[box_joint] == mujoco.mjtJoint.mjJNT_FREE
    assert model.body_parentid[model.body("box/").id] == 0


def test_the_peg_swings_and_comes_to_rest() -> None:
    simulator = build(PEG)
    repeat(simulator, 5, [0, 0, 0])
    hand, rest = tool(simulator), geom(simulator, "arm/hand/peg/peg")
    np.testing.assert_allclose(rest[:2], hand[:2], atol=1e-3)
    force = simulator.physics.named.data.xfrc_applied["arm/hand/peg/peg"]
    force[:2] = 1.0, -0.5
    repeat(simulator, 10, [0, 0, 0])
    pushed = geom(simulator, "arm/hand/peg/peg") - rest
    assert pushed[0] > 0.04 and pushed[1] < -0.02 and pushed[2] > 0.005
    np.testing.assert_allclose(tool(simulator), hand, atol=2e-3)
    simulator.physics.named.data.xfrc_applied["arm/hand/peg/peg"][:] = 0
    repeat(simulator, 60, [0, 0, 0])
    np.testing.assert_allclose(geom(simulator, "arm/hand/peg/peg"), rest, atol=2e-3)


def test_the_box_stands_still_until_pushed() -> None:
    simulator = build(PEG)
    start = box(simulator)
    repeat(simulator, EPISODE_STEPS, [0, 0, 0])
    np.testing.assert_allclose(box(simulator), start, atol=1e-3)
    assert box(simulator)[2] == pytest.approx(BOX_RIM, abs=1e-3)
    simulator.physics.named.data.xfrc_applied["box/"][0] = 10.0
    repeat(simulator, 10, [0, 0, 0])
    assert box(simulator)[0] > start[0] + 0.01


@pytest.mark.parametrize("axes", ["xy", "xyz"])
def test_the_scripted_controller_solves_reach(axes: str) -> None:
    for total, report in played(build(REACH, axes), episodes=25):
        assert total >= 25 and report["success"]


def test_the_scripted_controller_inserts_the_peg() -> None:
    episodes = played(build(PEG), episodes=100)
    assert sum(report["inserted"] for _, report in episodes) >= 95
    assert np.mean([total for total, _ in episodes]) > 237  # the published best


def test_the_scripted_controller_hovers_over_the_box_without_the_z_axis() -> None:
    episodes = played(build(PEG, "xy"), episodes=25)
    assert np.mean([total for total, _ in episodes]) > 150
    assert not any(report["success"] or report["inserted"] for _, report in episodes)


def scripted(simulator: Simulator) -> np.ndarray:
    return scripted_action(simulator.environment.task, simulator.environment.physics)


def played(simulator: Simulator, episodes: int) -> list[tuple[float, dict[str, bool]]]:
    """Return and last report of each episode."""
    results = []
    for _ in range(episodes):
        simulator.reset()
        total = sum(simulator.step(scripted(simulator)).reward for _ in range(EPISODE_STEPS))
        results.append((total, simulator.appearance.info(simulator.physics)))
    return results
