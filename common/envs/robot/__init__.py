"""Robotic manipulation on dm_control's composer: reach and peg in box, train and five test looks."""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from dm_control import composer, mjcf
from dm_control.mujoco import Physics

from common.config.shifts import ROBOT_CAMERAS
from common.envs.looks import wear
from common.envs.presets import Preset
from common.envs.robot.arena import BACKGROUND_GEOMS, FIRST_PERSON, THIRD_PERSON
from common.envs.robot.looks import look
from common.envs.robot.tasks import PegInBox, Reach, ToolTask
from common.envs.simulator import Simulator
from common.errors import UserError, did_you_mean

TASKS: dict[str, tuple[Callable[[str], ToolTask], str]] = {
    "robot_reach": (Reach, "xy"),
    "robot_peg_in_box": (PegInBox, "xyz"),
}
"""Class and default action axes."""

ACTION_AXES = ("xy", "xyz")
CAMERAS: dict[str, str] = dict(zip(ROBOT_CAMERAS, (THIRD_PERSON, FIRST_PERSON), strict=True))


def build(
    task: str, random: np.random.RandomState, action_axes: str | None, camera: int | str | None
) -> Simulator:
    """The simulator of "robot_reach" or "robot_peg_in_box", drawing its episodes from `random`.

    Args:
        task: its name.
        random: what episodes' starts and goals are drawn from.
        action_axes: xy or xyz, what an action moves; None for the task's own.
        camera: third_person or first_person; None for third_person.

    Raises:
        UserError: unknown axes or camera.
    """
    make, own_axes = TASKS[task]
    axes = action_axes or own_axes
    camera = ROBOT_CAMERAS[0] if camera is None else camera
    for key, value, known in (("action_axes", axes, ACTION_AXES), ("camera", camera, ROBOT_CAMERAS)):
        if value not in known:
            raise UserError(f"unknown env.{key} '{value}': {did_you_mean(str(value), known)}")
    environment = composer.Environment(make(axes), random_state=random, recompile_mjcf_every_episode=False)
    number = cast(mjcf.Physics, environment.physics).model.name2id(CAMERAS[str(camera)], "camera")
    return Simulator(environment, random, RobotAppearance(environment.task), number)


class RobotAppearance:
    """Looks, foreground and reports of a robotic task."""

    def __init__(self, task: ToolTask) -> None:
        self._task = task

    def wear(self, physics: Physics, shift: str, preset: Preset | None) -> None:
        """Recolour sky, floor and pedestal, and change the table's top."""
        wear(physics, look(shift))

    def background_geoms(self, physics: Physics) -> frozenset[int]:
        """Floor, table and pedestals: what remains is arm, goal, peg and box."""
        return frozenset(physics.model.name2id(name, "geom") for name in BACKGROUND_GEOMS)

    def info(self, physics: Physics) -> dict[str, Any]:
        """`success` by the published threshold; for the peg also `inserted`."""
        return self._task.info(cast(mjcf.Physics, physics))
