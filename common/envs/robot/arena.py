"""The scene of the robotic tasks, modelled with dm_control's composer: workcell, arm, goal disc, peg and box.

Lengths are metres, masses kilograms, angles radians; z points up and the floor is z = 0. Positions follow
the published simulator: table centre (1.655, 0.3, 0.536), camera at (2.10, 0.3, 1.4) with a 50° field of
view. The arm differs: dm_control's Kinova Jaco stands where the published simulator has an xArm7.
"""

# Elements of a model get their attributes from MuJoCo's schema at run time; MuJoCo itself has no type stubs.
# pyright: reportAttributeAccessIssue=false, reportOptionalMemberAccess=false

from typing import Any

import mujoco
import numpy as np
from dm_control import composer, mjcf
from dm_control.entities.manipulators.kinova import JacoArm, JacoHand

from common.envs.robot import textures

TABLE_CENTRE = np.array([1.655, 0.3, 0.536])  # of its top
TABLE_HALF_SIZE = (0.30, 0.45, 0.02)
ARM_BASE = np.array([1.15, 0.3, 0.65])
# The tool points down, turned so that the whole workspace is far from the arm's singular poses.
TOOL_QUATERNION = (0.0, 1.0, 0.0, 0.0)
FINGER_ANGLE = 1.0

DISC_RADIUS = 0.0475
PEG_RADIUS = 0.03
PEG_HALF_HEIGHT = 0.035
CHAIN_LINK = 0.05
PEG_STEM = 0.01
# The published simulator puts the box at z = 0.62: read as the height of its rim, it stands on the table.
BOX_RIM = 0.62
BOX_HALF_WIDTH = 0.055  # inside
BOX_WALL = 0.005  # half of the wall's thickness

# What a look recolours; everything else keeps its colours.
SKY_TEXTURE, TABLE_TEXTURE = "sky", "table"
SKY_PIXELS = 8 * 48
FLOOR_MATERIAL, PEDESTAL_MATERIAL = "floor", "pedestal"
THIRD_PERSON, FIRST_PERSON = "third_person", "arm/hand/first_person"
BACKGROUND_GEOMS = ("floor", "table", "table_leg", "pedestal")

RED = (0.85, 0.1, 0.1, 1.0)
BLUE = (0.15, 0.25, 0.8, 1.0)
ARM_COLOURS = {"dark_gray": (0.92, 0.92, 0.92, 1.0), "light_gray": (0.5, 0.5, 0.53, 1.0)}
NO_COLLISION: dict[str, Any] = {"contype": 0, "conaffinity": 0}
HIDDEN: dict[str, Any] = {"group": 4}


class Workcell(composer.Arena):
    """Floor, sky, table, the arm's pedestal, light, third-person camera, and the arm itself.

    The arm's tool is tied to `target`, a mocap body that an action moves.
    """

    def _build(self, name: str | None = None) -> None:
        super()._build(name=name or "workcell")
        root = self.mjcf_model
        root.visual.quality.set_attributes(shadowsize=512, offsamples=4)
        root.visual.headlight.set_attributes(
            ambient=(0.3, 0.3, 0.3), diffuse=(0.3, 0.3, 0.3), specular=(0, 0, 0)
        )
        root.visual.map.set_attributes(znear=0.01, zfar=20)
        # What shadows are drawn for: arm and table. The shadow map is as wide as this.
        root.statistic.set_attributes(extent=1.0, center=(1.4, 0.3, 0.7))
        root.worldbody.add(
            "light",
            pos=(1.9, -0.6, 3.0),
            dir=(-0.15, 0.4, -1),
            directional=True,
            diffuse=(0.4, 0.4, 0.4),
            specular=(0.1, 0.1, 0.1),
            castshadow=True,
        )
        # The model's first camera: that of the observations unless another is asked for.
        eye = np.array([2.10, 0.3, 1.4])
        root.worldbody.add(
            "camera", name=THIRD_PERSON, pos=eye, fovy=50, xyaxes=_looking_at(eye, (1.50, 0.3, 0.70))
        )
        self._add_scenery()

        self.arm = Arm()
        self.attach(self.arm, root.worldbody.add("site", name="base", pos=ARM_BASE, **HIDDEN))
        self.target = root.worldbody.add("body", name="target", mocap=True, quat=TOOL_QUATERNION)
        site = self.target.add("site", name="target", **HIDDEN)
        root.equality.add("weld", site1=site, site2=self.arm.tool)

    def _add_scenery(self) -> None:
        root, world = self.mjcf_model, self.mjcf_model.worldbody
        plain: dict[str, Any] = {"builtin": "flat", "rgb1": (1, 1, 1), "rgb2": (1, 1, 1)}
        root.asset.add("texture", name=SKY_TEXTURE, type="skybox", width=8, height=48, **plain)
        top = root.asset.add(
            "texture", name=TABLE_TEXTURE, type="2d", width=textures.SIZE, height=textures.SIZE, **plain
        )
        board = root.asset.add("material", name="table", texture=top, specular=0.1, shininess=0.1)
        floor = root.asset.add("material", name=FLOOR_MATERIAL, rgba=(1, 1, 1, 1), specular=0)
        pedestal = root.asset.add("material", name=PEDESTAL_MATERIAL, rgba=(1, 1, 1, 1), specular=0.1)

        world.add("geom", name="floor", type="plane", size=(5, 5, 0.1), material=floor)
        x, y, top_height = TABLE_CENTRE
        thickness = TABLE_HALF_SIZE[2]
        middle = (x, y, top_height - thickness)
        world.add("geom", name="table", type="box", size=TABLE_HALF_SIZE, pos=middle, material=board)
        leg = top_height / 2 - thickness
        size = (0.12, 0.2, leg)
        world.add("geom", name="table_leg", type="box", size=size, pos=(x, y, leg), material=pedestal)
        x, y, height = ARM_BASE
        world.add(
            "geom",
            name="pedestal",
            type="cylinder",
            size=(0.09, height / 2),
            pos=(x, y, height / 2),
            material=pedestal,
            **NO_COLLISION,
        )


class Arm(JacoArm):
    """Kinova's Jaco arm and hand, white, fingers closed.

    The tool is placed by the action, as in the published simulator, so torque means nothing here: motors,
    joint friction and the arm's contacts are left out. The workspace keeps the hand above table and box.
    """

    def _build(self, name: str | None = None) -> None:
        super()._build(name=name or "arm")
        self.hand = JacoHand(name="hand", use_pinch_site_as_tcp=True)
        self.tool = self.hand.tool_center_point
        for element in (*self.actuators, *self.joint_torque_sensors, *self.hand.actuators):
            element.remove()
        for joint in self.hand.joints:
            finger = joint.parent
            closed = np.zeros(4)
            half = FINGER_ANGLE / 2
            mujoco.mju_mulQuat(closed, finger.quat, np.array([np.cos(half), 0, 0, np.sin(half)]))
            finger.quat = closed
            joint.remove()
        for joint in self.joints:
            joint.frictionloss = 0
        palm = self.hand.mjcf_model.find("body", "hand")
        palm.add("camera", name=FIRST_PERSON.rpartition("/")[2], pos=(0.07, 0, -0.06), fovy=75)
        self.attach(self.hand)
        for geom in self.mjcf_model.find_all("geom"):
            geom.set_attributes(**NO_COLLISION)
        for model in (self.mjcf_model, self.hand.mjcf_model):
            for material, colour in ARM_COLOURS.items():
                model.find("material", material).rgba = colour


class GoalDisc(composer.Entity):
    """A red disc that nothing collides with; its frame is its centre."""

    def _build(self) -> None:
        self._root = mjcf.RootElement(model="goal")
        size = (DISC_RADIUS, 0.001)
        self._root.worldbody.add("geom", name="disc", type="cylinder", size=size, rgba=RED, **NO_COLLISION)

    @property
    def mjcf_model(self) -> mjcf.RootElement:
        return self._root


class Peg(composer.Entity):
    """A cylinder hanging from a link, each by a passive universal joint (two hinges), so it swings freely.

    The frame's z axis runs from the hand to the peg.
    """

    # Damping alone brings the peg to rest, within about 8 agent steps of a 20 cm move.
    DAMPING = 0.03

    def _build(self) -> None:
        self._root = mjcf.RootElement(model="peg")
        link = self._root.worldbody.add("body", name="link")
        peg = link.add("body", name="peg", pos=(0, 0, CHAIN_LINK))
        for body in (link, peg):
            for name, axis in (("x", (1, 0, 0)), ("y", (0, 1, 0))):
                body.add("joint", name=f"{body.name}_{name}", type="hinge", axis=axis, damping=self.DAMPING)
        for body, name, length, mass in ((link, "link", CHAIN_LINK, 0.02), (peg, "stem", PEG_STEM, 0.005)):
            body.add(
                "geom",
                name=name,
                type="capsule",
                size=(0.006,),
                fromto=(0, 0, 0, 0, 0, length),
                mass=mass,
                rgba=BLUE,
                **NO_COLLISION,
            )
        centre = PEG_STEM + PEG_HALF_HEIGHT
        size = (PEG_RADIUS, PEG_HALF_HEIGHT)
        peg.add("geom", name="peg", type="cylinder", size=size, pos=(0, 0, centre), mass=0.1, rgba=BLUE)
        self.centre = peg.add("site", name="centre", pos=(0, 0, centre), **HIDDEN)
        self.tip = peg.add("site", name="tip", pos=(0, 0, centre + PEG_HALF_HEIGHT), **HIDDEN)

    @property
    def mjcf_model(self) -> mjcf.RootElement:
        return self._root


class Box(composer.Entity):
    """An open red box, a free body when attached as such; its frame is the middle of its opening."""

    def _build(self) -> None:
        self._root = mjcf.RootElement(model="box")
        height = BOX_RIM - TABLE_CENTRE[2]
        inner, wall = BOX_HALF_WIDTH, BOX_WALL
        outer, middle, rise = inner + 2 * wall, wall - height / 2, height / 2 - wall
        self._add("bottom", (outer, outer, wall), (0, 0, wall - height))
        for side in (-1, 1):
            self._add(f"wall_x{side}", (wall, outer, rise), (side * (inner + wall), 0, middle))
            self._add(f"wall_y{side}", (inner, wall, rise), (0, side * (inner + wall), middle))

    def _add(self, name: str, size: tuple[float, ...], position: tuple[float, ...]) -> None:
        self._root.worldbody.add("geom", name=name, type="box", size=size, pos=position, mass=0.1, rgba=RED)

    @property
    def mjcf_model(self) -> mjcf.RootElement:
        return self._root


def _looking_at(eye: np.ndarray, point: tuple[float, ...]) -> np.ndarray:
    """The `xyaxes` (6,) of a camera at `eye` that looks at `point` with a level horizon."""
    right = np.cross(point - eye, (0, 0, 1))
    return np.concatenate([right, np.cross(right, point - eye)])
