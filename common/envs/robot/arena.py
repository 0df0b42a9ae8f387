"""The scene of the robotic tasks: table, arm, goal disc, peg and box, modelled with dm_control's composer.

Lengths are metres, masses kilograms, angles radians; z points up and the floor is z = 0. Positions follow
the published simulator: table centre (1.655, 0.3, 0.536), camera at (2.10, 0.3, 1.4) with a 50° field of
view. The arm differs: dm_control's Kinova Jaco stands where the published simulator has an xArm7.
"""

from typing import Any

import mujoco
import numpy as np
from dm_control import composer, mjcf
from dm_control.entities.manipulators.kinova import JacoArm, JacoHand

TABLE_TOP = 0.536
TABLE_CENTRE = (1.655, 0.3)
TABLE_HALF_SIZE = (0.30, 0.45)
ARM_BASE = (1.15, 0.3, 0.65)
# The tool points down, turned so that the whole workspace is far from the arm's singular poses.
TOOL_QUATERNION = (0.0, 1.0, 0.0, 0.0)
FINGER_ANGLE = 1.0

DISC_RADIUS = 0.0475
PEG_RADIUS = 0.03
PEG_HALF_HEIGHT = 0.035
CHAIN_LINK = 0.05
PEG_STEM = 0.01
# From the pinch of the fingers down to the middle of the peg when the chain hangs straight.
PEG_DROP = CHAIN_LINK + PEG_STEM + PEG_HALF_HEIGHT
BOX_HALF_WIDTH = 0.055
BOX_WALL = 0.005
# The published simulator puts the box at z = 0.62: read as the height of its rim, it stands on the table.
BOX_HEIGHT = 0.62 - TABLE_TOP

# What a look recolours. Everything else keeps its colours.
FLOOR_MATERIAL, PEDESTAL_MATERIAL = "floor", "pedestal"
TABLE_TEXTURE, SKY_TEXTURE = "table", "sky"
TABLE_TEXTURE_SIZE = 128

RED = (0.85, 0.1, 0.1, 1.0)
BLUE = (0.15, 0.25, 0.8, 1.0)
ARM_COLOURS = {"dark_gray": (0.92, 0.92, 0.92, 1.0), "light_gray": (0.55, 0.55, 0.58, 1.0)}
NO_COLLISION: dict[str, Any] = {"contype": 0, "conaffinity": 0}


class Workcell(composer.Arena):
    """Floor, sky, table, the arm's pedestal, lights and the third-person camera."""

    def _build(self, name: str | None = None) -> None:
        super()._build(name=name or "workcell")
        root = self.mjcf_model
        root.visual.quality.set_attributes(shadowsize=1024, offsamples=4)
        root.visual.headlight.set_attributes(
            ambient=(0.35, 0.35, 0.35), diffuse=(0.3, 0.3, 0.3), specular=(0, 0, 0)
        )
        root.visual.map.set_attributes(znear=0.01, zfar=20)
        root.asset.add("texture", name=SKY_TEXTURE, type="skybox", builtin="flat", rgb1=(1, 1, 1), width=8, height=48)
        size = TABLE_TEXTURE_SIZE
        table = root.asset.add(
            "texture", name=TABLE_TEXTURE, type="2d", builtin="flat", rgb1=(1, 1, 1), width=size, height=size
        )
        wood = root.asset.add("material", name="table", texture=table, specular=0.1, shininess=0.1)
        floor = root.asset.add("material", name=FLOOR_MATERIAL, rgba=(1, 1, 1, 1), specular=0)
        pedestal = root.asset.add("material", name=PEDESTAL_MATERIAL, rgba=(1, 1, 1, 1), specular=0.1)

        world = root.worldbody
        world.add("light", pos=(1.9, -0.6, 3.0), dir=(-0.15, 0.4, -1), directional=True, diffuse=(0.45,) * 3,
                  specular=(0.1,) * 3, castshadow=True)
        world.add("geom", name="floor", type="plane", size=(5, 5, 0.1), material=floor)
        half = 0.02
        world.add("geom", name="table", type="box", size=(*TABLE_HALF_SIZE, half),
                  pos=(*TABLE_CENTRE, TABLE_TOP - half), material=wood)
        leg = (TABLE_TOP - 2 * half) / 2
        world.add("geom", name="table_leg", type="box", size=(0.12, 0.2, leg), pos=(*TABLE_CENTRE, leg),
                  material=pedestal)
        base_x, base_y, base_z = ARM_BASE
        world.add("geom", name="pedestal", type="cylinder", size=(0.09, base_z / 2),
                  pos=(base_x, base_y, base_z / 2), material=pedestal, **NO_COLLISION)
        self.arm_site = world.add("site", name="arm", pos=ARM_BASE, size=(0.001,), group=4)
        world.add("camera", name="third_person", pos=(2.10, 0.3, 1.4), fovy=50,
                  xyaxes=look_along(np.array([1.48, 0.3, 0.72]) - np.array([2.10, 0.3, 1.4])))


class Arm(JacoArm):
    """Kinova Jaco arm and hand whose tool follows a mocap body: white, fingers closed, no collisions.

    Torque is not modelled: motors, joint friction and contacts of the arm are left out, because the tool is
    placed by the action and the workspace keeps it above box and table.
    """

    def _build(self, name: str | None = None) -> None:
        super()._build(name=name or "arm")
        hand = JacoHand(name="hand", use_pinch_site_as_tcp=True)
        self.hand, self.tool_site = hand, hand.tool_center_point
        for element in [*self.actuators, *self.joint_torque_sensors, *hand.actuators]:
            element.remove()
        for joint in hand.joints:
            turn = np.array([np.cos(FINGER_ANGLE / 2), 0, 0, np.sin(FINGER_ANGLE / 2)])
            quaternion = np.zeros(4)
            mujoco.mju_mulQuat(quaternion, joint.parent.quat, turn)
            joint.parent.quat = quaternion
            joint.remove()
        hand.mjcf_model.find("body", "hand").add(
            "camera", name="first_person", pos=(0.07, 0, -0.06), fovy=75, quat=(1, 0, 0, 0)
        )
        self.attach(hand)
        for model in (self.mjcf_model, hand.mjcf_model):
            for material, colour in ARM_COLOURS.items():
                model.find("material", material).rgba = colour
        for geom in self.mjcf_model.find_all("geom"):
            geom.set_attributes(**NO_COLLISION)
        for joint in self.joints:
            joint.frictionloss = 0


class Peg(composer.Entity):
    """A cylinder on a chain: two universal joints, passive, between the fingers and the peg.

    The frame's z axis runs from the hand to the peg.
    """

    def _build(self) -> None:
        self._root = mjcf.RootElement(model="peg")
        self._root.default.joint.set_attributes(type="hinge", damping=0.02, stiffness=0.0)
        link = self._root.worldbody.add("body", name="link")
        peg = link.add("body", name="peg", pos=(0, 0, CHAIN_LINK))
        for body in (link, peg):
            body.add("joint", name=f"{body.name}_x", axis=(1, 0, 0))
            body.add("joint", name=f"{body.name}_y", axis=(0, 1, 0))
        link.add("geom", name="link", type="capsule", size=(0.006,), fromto=(0, 0, 0, 0, 0, CHAIN_LINK),
                 mass=0.02, rgba=BLUE, **NO_COLLISION)
        peg.add("geom", name="stem", type="capsule", size=(0.006,), fromto=(0, 0, 0, 0, 0, PEG_STEM),
                mass=0.005, rgba=BLUE, **NO_COLLISION)
        centre = PEG_STEM + PEG_HALF_HEIGHT
        peg.add("geom", name="peg", type="cylinder", size=(PEG_RADIUS, PEG_HALF_HEIGHT), pos=(0, 0, centre),
                mass=0.1, rgba=BLUE)
        self.centre = peg.add("site", name="centre", pos=(0, 0, centre), size=(0.001,), group=4)
        self.tip = peg.add("site", name="tip", pos=(0, 0, centre + PEG_HALF_HEIGHT), size=(0.001,), group=4)

    @property
    def mjcf_model(self) -> mjcf.RootElement:
        return self._root


class Box(composer.Entity):
    """An open red box; its frame is the centre of its rim."""

    def _build(self) -> None:
        self._root = mjcf.RootElement(model="box")
        inner, wall, height = BOX_HALF_WIDTH, BOX_WALL, BOX_HEIGHT
        self._add("bottom", (inner + 2 * wall, inner + 2 * wall, wall), (0, 0, wall - height))
        middle = -height / 2 + wall
        for sign, side in ((-1, "left"), (1, "right")):
            self._add(f"{side}_x", (wall, inner + 2 * wall, height / 2 - wall), (sign * (inner + wall), 0, middle))
            self._add(f"{side}_y", (inner, wall, height / 2 - wall), (0, sign * (inner + wall), middle))

    def _add(self, name: str, size: tuple[float, ...], position: tuple[float, ...]) -> None:
        self._root.worldbody.add("geom", name=name, type="box", size=size, pos=position, mass=0.1, rgba=RED)

    @property
    def mjcf_model(self) -> mjcf.RootElement:
        return self._root


def look_along(direction: np.ndarray) -> np.ndarray:
    """MuJoCo `xyaxes` (6,) of a camera that looks along `direction` with the horizon level."""
    right = np.cross(direction, (0, 0, 1))
    up = np.cross(right, direction)
    return np.concatenate([right, up])
