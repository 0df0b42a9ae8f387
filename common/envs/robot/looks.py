"""Looks of the robotic tasks: the published train and test1 to test5. Arm, goal, peg and box keep theirs."""

import numpy as np

from common.envs.looks import Look
from common.envs.robot import textures
from common.envs.robot.arena import FLOOR_MATERIAL, PEDESTAL_MATERIAL, SKY_PIXELS, SKY_TEXTURE, TABLE_TEXTURE

# Of each look the colour of sky, floor and pedestal, and the table's top, as published.
LOOKS = {
    "train": ((1.0, 1.0, 1.0), "white"),
    "test1": ((1.0, 0.5, 1.0), "wood"),
    "test2": ((0.5, 0.9, 0.8), "carpet"),
    "test3": ((0.5, 0.1, 0.1), "concrete"),
    "test4": ((0.1, 0.5, 0.8), "light_wood"),
    "test5": ((0.3, 0.2, 0.0), "sponge"),
}


def look(shift: str) -> Look:
    """What the live model's textures and materials become under a shift."""
    colour, top = LOOKS[shift]
    sky = np.tile(np.round(255 * np.array(colour)).astype(np.uint8), SKY_PIXELS)
    rgba = np.array([*colour, 1.0])
    return Look(
        textures={SKY_TEXTURE: sky, TABLE_TEXTURE: textures.table_top(top).ravel()},
        materials={FLOOR_MATERIAL: rgba, PEDESTAL_MATERIAL: rgba},
    )
