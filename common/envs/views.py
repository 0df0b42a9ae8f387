"""Camera shifts of the suite's tasks: the camera is elsewhere while a frame is drawn, and nothing else moves.

The four kinds of `VIEWS` are those on which view generalisation is commonly tested; the sizes are this
project's, at `strength` 1. At 0 every view is the task's own. Steps are agent steps. `Turns` are those of
DMC-GB2's geometric shifts.
"""

# MuJoCo's names live in a compiled module without type stubs.
# pyright: reportAttributeAccessIssue=false

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple

import mujoco
import numpy as np
from dm_control.mujoco import Physics

from common.envs.random_states import derived

MOVING_PERIOD = 100  # steps


class Pose(NamedTuple):
    """Where a camera is, and what it sees."""

    position: np.ndarray  # (3,) metres
    axes: np.ndarray  # (3, 3), whose columns point right, up and back
    fovy: float  # vertical field of view, degrees


class Shift(NamedTuple):
    """What a view is a function of, besides the task's own pose."""

    distance: float  # of what the camera looks at, metres
    strength: float
    draw: int  # random number of the episode
    step: int  # of the episode


def novel(pose: Pose, shift: Shift) -> Pose:
    """A viewpoint for the whole episode: 15° to 30° to one side and up to 15° above."""
    random = derived(shift.draw)
    side = random.choice((-1, 1)) * random.uniform(15, 30)
    return _orbit(pose, shift.distance, shift.strength * side, shift.strength * random.uniform(0, 15))


def moving(pose: Pose, shift: Shift) -> Pose:
    """Swing 30° to both sides in 100 steps, starting anywhere on the way."""
    phase = derived(shift.draw).uniform(0, 2 * np.pi) + 2 * np.pi * shift.step / MOVING_PERIOD
    return _orbit(pose, shift.distance, shift.strength * 30 * np.sin(phase), 0.0)


def shaking(pose: Pose, shift: Shift) -> Pose:
    """A new jolt each step: up to 2% of the distance along and 2° about each of the camera's axes."""
    random = derived(shift.draw, shift.step)
    offset = random.uniform(-0.02, 0.02, 3) * shift.strength * shift.distance
    turn = _rotation(np.radians(random.uniform(-2, 2, 3)) * shift.strength)
    return pose._replace(position=pose.position + pose.axes @ offset, axes=pose.axes @ turn)


def fov(pose: Pose, shift: Shift) -> Pose:
    """A lens for the whole episode that makes things 1.2 to 1.4 times larger or smaller."""
    random = derived(shift.draw)
    scale = random.uniform(1.2, 1.4) ** (random.choice((-1, 1)) * shift.strength)
    return pose._replace(fovy=float(2 * np.degrees(np.arctan(scale * np.tan(np.radians(pose.fovy) / 2)))))


VIEWS: dict[str, Callable[[Pose, Shift], Pose]] = {
    "view_novel": novel,
    "view_moving": moving,
    "view_shaking": shaking,
    "view_fov": fov,
}


class View:
    """Moves one camera of a simulation while frames are drawn.

    Args:
        shift: a name in `VIEWS`.
        physics: the simulation.
        camera: the camera's number.
        strength: multiplies all angles, lengths and powers; at least 0.
    """

    def __init__(self, shift: str, physics: Physics, camera: int, strength: float) -> None:
        self._view = VIEWS[shift]
        self._physics = physics
        self._camera = camera
        self._strength = strength
        # What the camera looks at is as far away as the model's centre of mass in its first pose.
        data = mujoco.MjData(physics.model.ptr)
        mujoco.mj_forward(physics.model.ptr, data)
        self._distance = float(np.linalg.norm(data.subtree_com[0] - data.cam_xpos[camera]))

    def seen(self, draw: int, step: int) -> AbstractContextManager[None]:
        """The camera as the view of step `step` has it, in the episode that drew `draw`; then as it was."""
        shift = Shift(self._distance, self._strength, draw, step)
        return moved(self._physics, self._camera, lambda pose: self._view(pose, shift))


class Turns:
    """Turns one camera of a simulation about its own position while frames are drawn.

    Args:
        turns: matrices R (N, 3, 3), by which the camera's axes X become X·R.
        physics: the simulation.
        camera: the camera's number.
    """

    def __init__(self, turns: np.ndarray, physics: Physics, camera: int) -> None:
        self._turns = turns
        self._physics = physics
        self._camera = camera

    def seen(self, turn: int) -> AbstractContextManager[None]:
        """The camera turned by R number `turn` from where the task has it in this state; then as it was."""
        matrix = self._turns[turn]
        return moved(self._physics, self._camera, lambda pose: pose._replace(axes=pose.axes @ matrix))


@contextmanager
def moved(physics: Physics, camera: int, move: Callable[[Pose], Pose]) -> Iterator[None]:
    """A camera where `move` puts it from where it is; then as it was."""
    model, data = physics.model.ptr, physics.data.ptr

    def put(pose: Pose) -> None:
        data.cam_xpos[camera] = pose.position
        data.cam_xmat[camera] = pose.axes.ravel()
        model.cam_fovy[camera] = pose.fovy

    own = Pose(
        data.cam_xpos[camera].copy(),
        data.cam_xmat[camera].reshape(3, 3).copy(),
        float(model.cam_fovy[camera]),
    )
    put(move(own))
    try:
        yield
    finally:
        put(own)


def _orbit(pose: Pose, distance: float, around: float, above: float) -> Pose:
    """Go round the point `distance` ahead by `around` degrees, and up by `above` degrees, still facing it."""
    target = pose.position - distance * pose.axes[:, 2]
    raised = pose.axes @ _rotation(np.array([-np.radians(above), 0, 0]))
    axes = _rotation(np.array([0, 0, np.radians(around)])) @ raised
    return pose._replace(position=target + distance * axes[:, 2], axes=axes)


def _rotation(vector: np.ndarray) -> np.ndarray:
    """The matrix (3, 3) of a rotation vector (3,) in radians."""
    quaternion, matrix = np.array([1.0, 0, 0, 0]), np.zeros(9)
    mujoco.mju_quatIntegrate(quaternion, vector, 1.0)
    mujoco.mju_quat2Mat(matrix, quaternion)
    return matrix.reshape(3, 3)
