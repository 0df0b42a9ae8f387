"""How a task looks: the textures and material colours that a visual shift changes, and nothing else."""

# MuJoCo's names live in a compiled module without type stubs.
# pyright: reportAttributeAccessIssue=false

from dataclasses import dataclass
from xml.etree import ElementTree

import mujoco
import numpy as np
from dm_control.mujoco import Physics
from dm_control.suite import common as suite_assets

from common.envs.presets import Preset
from common.errors import UserError

GREEN = (0.2, 0.8, 0.2)
FLOOR = "grid"
TEXTURES = ("skybox", FLOOR)
BODY = "self"

_SCENE = '<mujoco><include file="skybox.xml"/><include file="materials.xml"/></mujoco>'


@dataclass(frozen=True)
class Look:
    """Pixels of textures, uint8, flattened, and RGBA of materials, by name."""

    textures: dict[str, np.ndarray]
    materials: dict[str, np.ndarray]


def look(shift: str, preset: Preset | None) -> Look:
    """A suite task's look under a shift: the suite's own, a colour preset's, or one of the green screens."""
    if preset is not None:
        return _compile(
            sky={"rgb1": preset["skybox_rgb"]},
            floor={"rgb1": preset["grid_rgb1"], "rgb2": preset["grid_rgb2"]},
            body=preset["self_rgb"],
        )
    if shift == "train":
        return _compile(sky={}, floor={}, body=None)
    green = {attribute: np.array(GREEN) for attribute in ("rgb1", "rgb2", "markrgb")}
    return _compile(sky=green, floor=green if shift == "video_hard" else {}, body=None)


def wear(physics: Physics, new: Look) -> None:
    """Change the live model's textures and materials to those of `new`, in the renderer too.

    Raises:
        UserError: the model has no such textures (a suite task without the usual materials).
    """
    model = physics.model.ptr
    contexts = physics.contexts  # dm_control makes them on first use
    assert contexts is not None
    for name, image in new.textures.items():
        texture, pixels = _texture(model, name)
        if model.tex_data[pixels].size != image.size:
            raise UserError(f"the model's texture '{name}' is not the suite's, so its look cannot be changed")
        model.tex_data[pixels] = image
        # tex_data alone shows only before the first render.
        with contexts.gl.make_current() as context:
            context.call(mujoco.mjr_uploadTexture, model, contexts.mujoco.ptr, texture)
    for name, rgba in new.materials.items():
        model.mat_rgba[_id(model, mujoco.mjtObj.mjOBJ_MATERIAL, name)] = rgba


def _compile(sky: dict[str, np.ndarray], floor: dict[str, np.ndarray], body: np.ndarray | None) -> Look:
    """Let MuJoCo draw the textures of the edited asset files, which every suite task includes."""
    skybox, materials = (
        ElementTree.fromstring(suite_assets.ASSETS[f"./common/{name}.xml"])
        for name in ("skybox", "materials")
    )
    for tree, edits in ((skybox, sky), (materials, floor)):
        for texture in tree.iter("texture"):
            texture.attrib.update({attribute: _text(colour) for attribute, colour in edits.items()})
    if body is not None:
        for material in materials.iterfind(f".//material[@name='{BODY}']"):
            material.set("rgba", f"{_text(body)} 1")
    assets = {"skybox.xml": ElementTree.tostring(skybox), "materials.xml": ElementTree.tostring(materials)}
    model = mujoco.MjModel.from_xml_string(_SCENE, assets)
    textures = {name: model.tex_data[_texture(model, name)[1]].copy() for name in TEXTURES}
    body_colour = model.mat_rgba[_id(model, mujoco.mjtObj.mjOBJ_MATERIAL, BODY)].copy()
    return Look(textures, {BODY: body_colour})


def _text(colour: np.ndarray) -> str:
    return " ".join(repr(float(channel)) for channel in colour)


def _texture(model: mujoco.MjModel, name: str) -> tuple[int, slice]:
    """A texture's number and its place in `tex_data`."""
    texture = _id(model, mujoco.mjtObj.mjOBJ_TEXTURE, name)
    start = int(model.tex_adr[texture])
    size = int(model.tex_width[texture] * model.tex_height[texture] * model.tex_nchannel[texture])
    return texture, slice(start, start + size)


def _id(model: mujoco.MjModel, kind: mujoco.mjtObj, name: str) -> int:
    number = mujoco.mj_name2id(model, kind, name)
    if number < 0:
        raise UserError(f"the model has no {kind.name[6:].lower()} '{name}', so its look cannot be changed")
    return number
