"""The two robotic tasks as composer tasks: what an action does, where episodes start, rewards, success."""

from typing import Any

import numpy as np
from dm_control import composer, mjcf
from dm_env import specs

from common.envs.robot import kinematics
from common.envs.robot.arena import (
    BOX_RIM,
    PEG_HALF_HEIGHT,
    TABLE_CENTRE,
    Box,
    GoalDisc,
    Peg,
    Workcell,
)

STRIDE = 0.05  # metres that an action of 1 moves the tool along an axis, each agent step
SUBSTEPS = 20
# Where the tool may be, [x, y, z]; motion beyond is cut off at the border.
WORKSPACE = np.array([[1.40, 0.15, 0.60], [1.70, 0.45, 1.00]])
# The published simulator draws goals from x 1.605 ± 0.10 and y 0.3 ± 0.20, a quarter of them outside the
# workspace. Here they are drawn from the part of that rectangle that lies inside.
GOALS = np.array([[1.505, 0.15], [1.70, 0.45]])
# Where the tool starts in the plane.
STARTS = np.array([[1.40, 0.20], [1.55, 0.40]])


class ToolTask(composer.Task):
    """Moves the tool by `STRIDE` times the action per step, at fixed orientation, inside the workspace.

    Args:
        axes: "xy" or "xyz", the axes that the action's values move.
        start_height: of the tool above the table, metres.
        lowest: the height of the tool below which the workspace ends, metres.
        timestep: of the simulation, seconds; `SUBSTEPS` make an agent step.
    """

    def __init__(self, axes: str, start_height: float, lowest: float, timestep: float) -> None:
        self.axis_count = len(axes)
        self.start_height = start_height
        self.workspace = WORKSPACE.copy()
        self.workspace[0, 2] = lowest
        self.effort = 0.0  # ‖a‖² of the last action
        self._cell = Workcell()
        self.set_timesteps(control_timestep=SUBSTEPS * timestep, physics_timestep=timestep)

    @property
    def root_entity(self) -> Workcell:
        """The workcell with all that stands in it."""
        return self._cell

    def action_spec(self, physics: mjcf.Physics) -> specs.BoundedArray:
        """One value in [-1, 1] per axis."""
        return specs.BoundedArray((self.axis_count,), np.float32, -1.0, 1.0)

    def initialize_episode(self, physics: mjcf.Physics, random_state: np.random.RandomState) -> None:
        """Draw where the tool and the goal start."""
        start = np.array([*random_state.uniform(*STARTS), TABLE_CENTRE[2] + self.start_height])
        kinematics.place_tool(physics, self._cell.arm, start)
        physics.bind(self._cell.target).mocap_pos = start
        self.effort = 0.0
        self.place_goal(physics, random_state.uniform(*GOALS))

    def before_step(
        self, physics: mjcf.Physics, action: np.ndarray, random_state: np.random.RandomState
    ) -> None:
        """Move the target that the tool follows."""
        target = physics.bind(self._cell.target)
        move = np.zeros(3)
        move[: self.axis_count] = action
        target.mocap_pos = np.clip(target.mocap_pos + STRIDE * move, *self.workspace)
        self.effort = float(np.square(action).sum())

    def tool_position(self, physics: mjcf.Physics) -> np.ndarray:
        """Where the fingers pinch, (3,)."""
        return np.array(physics.bind(self._cell.arm.tool).xpos)

    def place_goal(self, physics: mjcf.Physics, place: np.ndarray) -> None:
        """Put the goal at `place` (2,) on the table as an episode begins."""
        raise NotImplementedError

    def goal_position(self, physics: mjcf.Physics) -> np.ndarray:
        """The point to reach now, (3,)."""
        raise NotImplementedError

    def info(self, physics: mjcf.Physics) -> dict[str, Any]:
        """`success` by the published threshold, and what else the task reports of a step."""
        raise NotImplementedError


class Reach(ToolTask):
    """Bring the tool over a red disc, or with the z axis down to it.

    Reward: 1 where d < 0.05, else -3 d - 0.5 ‖a‖², with d the distance of tool and goal along the action's
    axes. The goal is the disc's centre, at the lowest height that the tool may go to.
    """

    NEAR = 0.05

    def __init__(self, axes: str) -> None:
        super().__init__(axes, start_height=0.26, lowest=WORKSPACE[0, 2], timestep=0.002)
        self._disc = self._cell.attach(GoalDisc())
        self._disc.mocap = True

    def place_goal(self, physics: mjcf.Physics, place: np.ndarray) -> None:
        """Put the disc on the table."""
        physics.bind(self._disc).mocap_pos = (*place, TABLE_CENTRE[2])

    def goal_position(self, physics: mjcf.Physics) -> np.ndarray:
        """Above the disc's centre, (3,)."""
        return np.array([*physics.bind(self._disc).mocap_pos[:2], self.workspace[0, 2]])

    def distance(self, physics: mjcf.Physics) -> float:
        """Of tool and goal along the action's axes, metres."""
        difference = self.tool_position(physics) - self.goal_position(physics)
        return float(np.linalg.norm(difference[: self.axis_count]))

    def get_reward(self, physics: mjcf.Physics) -> float:
        """The published formula; see the class."""
        distance = self.distance(physics)
        return 1.0 if distance < self.NEAR else -3 * distance - 0.5 * self.effort

    def info(self, physics: mjcf.Physics) -> dict[str, Any]:
        """`success`: the tool is within 5 cm of the goal."""
        return {"success": self.distance(physics) < self.NEAR}


class PegInBox(ToolTask):
    """Put a peg that hangs from the hand into an open box.

    Reward: -‖a‖² - 4 d_xy, plus 10 - 20 d_xyz where d_xy <= 0.05, with the distances of the peg's centre and
    the goal. The goal moves with the box: 3.5 cm below the middle of its opening, where the peg's centre is
    when its upper end is level with the rim.
    """

    CLOSE = 0.05
    SUCCESS = 0.08
    INSERTED_RADIUS = 0.03
    INSERTED_STEPS = 5
    # Here the peg's tip is just short of the bottom of the box, and the chain never goes slack on the table.
    LOWEST = 0.68

    def __init__(self, axes: str) -> None:
        super().__init__(axes, start_height=0.43, lowest=self.LOWEST, timestep=0.001)
        self._peg = Peg()
        self._cell.arm.hand.attach(self._peg, self._cell.arm.tool)
        self._box = Box()
        self._cell.add_free_entity(self._box)
        self.steps_inside = 0  # in a row, up to now

    def place_goal(self, physics: mjcf.Physics, place: np.ndarray) -> None:
        """Stand the box on the table."""
        self.steps_inside = 0
        self._box.set_pose(physics, position=(*place, BOX_RIM), quaternion=(1, 0, 0, 0))

    def after_step(self, physics: mjcf.Physics, random_state: np.random.RandomState) -> None:
        """Count the steps that the peg's tip has been in the box."""
        box, _ = self._box.get_pose(physics)
        tip = physics.bind(self._peg.tip).xpos
        inside = np.linalg.norm(tip[:2] - box[:2]) < self.INSERTED_RADIUS and tip[2] < box[2]
        self.steps_inside = self.steps_inside + 1 if inside else 0

    def peg_position(self, physics: mjcf.Physics) -> np.ndarray:
        """The peg's centre, (3,)."""
        return np.array(physics.bind(self._peg.centre).xpos)

    def goal_position(self, physics: mjcf.Physics) -> np.ndarray:
        """Below the middle of the box's opening, (3,)."""
        position, _ = self._box.get_pose(physics)
        return np.array(position) - (0, 0, PEG_HALF_HEIGHT)

    def get_reward(self, physics: mjcf.Physics) -> float:
        """The published formula; see the class."""
        difference = self.peg_position(physics) - self.goal_position(physics)
        in_plane, distance = np.linalg.norm(difference[:2]), np.linalg.norm(difference)
        bonus = 10 - 20 * distance if in_plane <= self.CLOSE else 0.0
        return float(-self.effort - 4 * in_plane + bonus)

    def info(self, physics: mjcf.Physics) -> dict[str, Any]:
        """`success`: peg and goal are within 8 cm. `inserted`: the tip has been in the box for 5 steps."""
        distance = np.linalg.norm(self.peg_position(physics) - self.goal_position(physics))
        return {
            "success": bool(distance < self.SUCCESS),
            "inserted": self.steps_inside >= self.INSERTED_STEPS,
        }
