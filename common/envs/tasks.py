"""Tasks by name: dm_control's suite, its models or those of SMG's released code, and the robotic ones."""

from xml.etree import ElementTree

import numpy as np
from dm_control import suite
from dm_control.mujoco import Physics
from dm_control.suite import common as suite_assets

from common.config.shifts import ROBOT_TASKS, SHIFTS, VIEW_SHIFTS
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
    camera: str | None = None,
) -> Simulator:
    """The simulator of a task such as "walker_walk", drawing its initial states from `random`.

    `model` is for the suite's tasks; `action_axes` and `camera` are for the robotic ones.

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
    for key, value in (("action_axes", action_axes), ("camera", camera)):
        if value is not None:
            raise UserError(f"env.{key} is for the robotic tasks; set it to null for {task}")
    domain, name = next((domain, name) for domain, name in suite.ALL_TASKS if f"{domain}_{name}" == task)
    environment = suite.load(domain, name, task_kwargs={"random": random, "time_limit": float("inf")})
    if model == "smg" and domain in _SMG_EDITS:
        tree = ElementTree.fromstring(suite_assets.read_model(f"{domain}.xml"))
        for path, attributes in _SMG_EDITS[domain].items():
            for element in tree.iterfind(path):
                # A camera takes its orientation from one attribute only.
                if "euler" in attributes:
                    del element.attrib["quat"]
                element.attrib.update(attributes)
        environment.physics.reload_from_xml_string(ElementTree.tostring(tree), suite_assets.ASSETS)
    return Simulator(environment, random, SuiteAppearance())


# What SMG's released code changed in its vendored models.
_SMG_EDITS = {
    "cartpole": {
        ".//geom[@name='cart']": {"size": "0.3 0.15 0.2"},
        ".//default[@class='pole']/geom": {"size": "0.1"},
    },
    "cheetah": {".//camera[@name='side']": {"pos": "0 -2.2 0.8", "euler": "70 0 0"}},
}


class SuiteAppearance:
    """The shifts of a suite task: DMControl-GB's recolour it, views leave it as it is."""

    shifts: tuple[str, ...] = (*SHIFTS, *VIEW_SHIFTS)

    def wear(self, physics: Physics, shift: str, preset: Preset | None) -> None:
        """Recolour sky, floor and body; see `looks`."""
        looks.wear(physics, looks.look(shift, preset))

    def background_geoms(self, physics: Physics) -> frozenset[int]:
        """The geoms drawn with the floor's material."""
        model = physics.model
        floor = model.name2id("grid", "material")
        return frozenset(int(geom) for geom in np.flatnonzero(model.geom_matid == floor))

    def info(self, physics: Physics) -> dict[str, object]:
        """The suite's tasks report nothing but their reward."""
        return {}
