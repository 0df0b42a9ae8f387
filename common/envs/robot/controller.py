"""A policy that knows the true state: a standard for returns, and proof that episodes can be solved."""

import numpy as np
from dm_control import mjcf

from common.envs.robot.tasks import STRIDE, PegInBox, ToolTask

ALIGNED = 0.02  # metres from the goal in the plane at which the peg is let down


def scripted_action(task: ToolTask, physics: mjcf.Physics) -> np.ndarray:
    """Proportional control towards the goal: an action in [-1, 1], one value per axis of the task.

    The peg is first brought over the box at full height, then let down.
    """
    goal = task.goal_position(physics)
    move = goal - task.tool_position(physics)
    if isinstance(task, PegInBox):
        swing = task.peg_position(physics) - goal
        aligned = np.linalg.norm(swing[:2]) < ALIGNED
        move[2] = task.workspace[0, 2] - task.tool_position(physics)[2] if aligned else 0.0
    return np.clip(move / STRIDE, -1, 1)[: task.axis_count]
