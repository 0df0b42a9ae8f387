"""Tasks by name: dm_control's suite, its models or those of SMG's released code, and the robotic ones."""

# MuJoCo's names live in a compiled module without type stubs.
# pyright: reportAttributeAccessIssue=false

from xml.etree import ElementTree

import mujoco
import numpy as np
from dm_control import suite
from dm_control.mujoco import Physics
from dm_control.suite import common as suite_assets

from common.config.shifts import ROBOT_TASKS, usual_camera
from common.envs import looks
from common.envs.presets import Preset
from common.envs.simulator import Simulator
from common.errors import UserError, did_you_mean

SUITE_TASKS = tuple(f"{domain}_{task}" for domain, task in suite.ALL_TASKS)
TASKS = (*SUITE_TASKS, *ROBOT_TASKS)
MODELS = ("dmcgb", "smg")


def build(
    task: str,
    model: str,
    random: np.random.RandomState,
    action_axes: str | None = None,
    camera: int | str | None = None,
) -> Simulator:
    """The simulator of a task such as "walker_walk", drawing its initial states from `random`.

    `model` is for the suite's tasks, `action_axes` for the robotic ones. `camera` is a number or a name of
    the suite task's cameras, or a name of the robotic tasks'; None for the usual one.

    Raises:
        UserError: unknown task, model, axes or camera.
    """
    if task not in TASKS:
        raise UserError(f"unknown task '{task}': {did_you_mean(task, TASKS)}")
    if model not in MODELS:
        raise UserError(f"unknown env.model '{model}': {did_you_mean(model, MODELS)}")
    if task in ROBOT_TASKS:
        # Composer, imported, is a tenth of what a process takes to start.
        from common.envs import robot

        return robot.build(task, random, action_axes, camera)
    if action_axes is not None:
        raise UserError(f"env.action_axes is for the robotic tasks; set it to null for {task}")
    domain, name = next((domain, name) for domain, name in suite.ALL_TASKS if f"{domain}_{name}" == task)
    # What a domain draws as it is loaded, lqr its springs, is part of the task: alike for every seed, since
    # training and evaluation have different ones.
    state = random.get_state()
    random.seed(0)
    environment = suite.load(domain, name, task_kwargs={"random": random, "time_limit": float("inf")})
    random.set_state(state)
    if model == "smg" and domain in _SMG_EDITS:
        tree = ElementTree.fromstring(suite_assets.read_model(f"{domain}.xml"))
        for path, attributes in _SMG_EDITS[domain].items():
            for element in tree.iterfind(path):
                # A camera takes its orientation from one attribute only.
                if "euler" in attributes:
                    del element.attrib["quat"]
                element.attrib.update(attributes)
        environment.physics.reload_from_xml_string(ElementTree.tostring(tree), suite_assets.ASSETS)
    number = _camera_number(environment.physics, task, usual_camera(task) if camera is None else camera)
    return Simulator(environment, random, SuiteAppearance(environment.physics), number)


def _camera_number(physics: Physics, task: str, camera: int | str) -> int:
    """The number of a fixed camera of a suite task, given that or its name."""
    names = [physics.model.id2name(number, "camera") for number in range(physics.model.ncam)]
    if camera in names:
        return names.index(camera)
    if isinstance(camera, int) and 0 <= camera < len(names):
        return camera
    known = ", ".join(f"{number} ({name})" for number, name in enumerate(names))
    raise UserError(f"env.camera: {task} has no camera {camera!r}; choose from {known}")


# What SMG's released code changed in its vendored models.
_SMG_EDITS = {
    "cartpole": {
        ".//geom[@name='cart']": {"size": "0.3 0.15 0.2"},
        ".//default[@class='pole']/geom": {"size": "0.1"},
    },
    "cheetah": {".//camera[@name='side']": {"pos": "0 -2.2 0.8", "euler": "70 0 0"}},
}


# What the world body holds of these is scene, walls included, which are planes in every model of the suite.
_SCENE_SHAPES = (mujoco.mjtGeom.mjGEOM_PLANE, mujoco.mjtGeom.mjGEOM_HFIELD)


class SuiteAppearance:
    """The shifts of a suite task: photometric ones recolour it, those of the camera leave it as it is.

    Args:
        physics: the task's simulation as it is trained.
    """

    def __init__(self, physics: Physics) -> None:
        model = physics.model
        floor = model.geom_matid == model.name2id(looks.FLOOR, "material")
        on_world = model.geom_bodyid == 0
        self._scene = np.flatnonzero(on_world & np.isin(model.geom_type, _SCENE_SHAPES))
        # The benchmark's floor is recoloured by its texture, which reflects; these have looks of their own.
        self._other = self._scene[~floor[self._scene]]
        self._own = model.geom_matid[self._other].copy(), model.geom_rgba[self._other].copy()

    def wear(self, physics: Physics, shift: str, preset: Preset | None) -> None:
        """Recolour sky, floor and body (see `looks`), and under video_hard walls and terrain as well."""
        looks.wear(physics, looks.look(shift, preset))
        hard = shift == "video_hard"
        material, colour = (-1, (*looks.GREEN, 1.0)) if hard else self._own
        physics.model.geom_matid[self._other] = material
        physics.model.geom_rgba[self._other] = colour

    def background_geoms(self, physics: Physics) -> frozenset[int]:
        """What the world body holds of planes and height fields, of any material: floor, walls, terrain.

        Goals and rails, which lie in the world body too, are none of these.
        """
        return frozenset(self._scene.tolist())

    def info(self, physics: Physics) -> dict[str, object]:
        """The suite's tasks report nothing but their reward."""
        return {}
