"""Inverse kinematics of the arm: joint angles that put the tool at a place, pointing down."""

# MuJoCo's names live in a compiled module without type stubs.
# pyright: reportAttributeAccessIssue=false

import mujoco
import numpy as np
from dm_control import mjcf

from common.envs.robot.arena import TOOL_QUATERNION, Arm

# Holds the tool over the middle of the workspace. Short Newton steps from here stay on one branch of
# solutions all over the workspace.
HOME_ANGLES = (3.312, 3.700, 1.237, 3.347, 5.494, 1.947)
LONGEST_STEP = 0.1  # metres and radians
TOLERANCE = 1e-9  # metres and radians
ITERATIONS = 30


def place_tool(physics: mjcf.Physics, arm: Arm, position: np.ndarray) -> None:
    """Set the arm's joint angles so that its tool is at `position` (3,), in world coordinates.

    Raises:
        ValueError: the position is out of the arm's reach.
    """
    model, data = physics.model.ptr, physics.data.ptr
    joints = physics.bind(arm.joints)
    tool = physics.bind(arm.tool)
    joints.qpos = HOME_ANGLES
    for _ in range(ITERATIONS):
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        error = np.concatenate([position - tool.xpos, _rotation_error(tool.xmat)])
        largest = np.abs(error).max()
        if largest < TOLERANCE:
            return
        error *= min(1.0, LONGEST_STEP / largest)
        jacobian = np.zeros((6, model.nv))
        mujoco.mj_jacSite(model, data, jacobian[:3], jacobian[3:], tool.element_id)
        joints.qpos += np.linalg.solve(jacobian[:, joints.dofadr], error)
    raise ValueError(f"the arm cannot hold its tool at {position}")


def _rotation_error(orientation: np.ndarray) -> np.ndarray:
    """The rotation vector (3,) from `orientation` (9,) to the tool's fixed one, in world coordinates."""
    now, inverse, difference, vector = (np.zeros(size) for size in (4, 4, 4, 3))
    mujoco.mju_mat2Quat(now, orientation)
    mujoco.mju_negQuat(inverse, now)
    mujoco.mju_mulQuat(difference, np.array(TOOL_QUATERNION), inverse)
    mujoco.mju_quat2Vel(vector, difference, 1.0)
    return vector
