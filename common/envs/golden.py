"""Whether this machine draws the frames the benchmark was published with."""

from importlib.resources import files

import numpy as np

from common import gl

LEVELS = 2
EDGE = 16
"""A pixel is at an edge if the 3x3 pixels around it span more levels than this: a fifth of them are."""
LEAST_SHARE = 0.97
"""Away from edges renderers agree in practically all pixels, even one without multisampling, which changes 5%
of all pixels; a MuJoCo version that draws the floor anew moves 13-34% of them."""


def golden_check() -> float:
    """Share of pixels, away from edges, within 2 of 255 levels of reference renders (OSMesa, MuJoCo 3.11.0).

    The references show five tasks; edges are theirs, and how they are smoothed is the renderer's own affair.
    Below `LEAST_SHARE`, MuJoCo, dm_control or the renderer is not one that reproduces the benchmark.

    Raises:
        NoRenderer: nothing can draw.
    """
    gl.select_backend()
    # These import MuJoCo, which reads MUJOCO_GL at import.
    from dm_control import suite

    from common.envs.camera import Camera

    close = []
    with np.load(str(files("common.envs").joinpath("golden", "frames.npz"))) as golden:
        for key in golden.files:
            kind, task = key.split("/")
            if kind != "frame":
                continue
            # The references were drawn without beginning an episode, which hides finger_spin's target.
            domain, name = task.rsplit("_", 1)
            physics = suite.load(domain, name).physics
            with physics.reset_context():
                physics.set_state(golden[f"state/{task}"])
            frame = Camera(physics, camera=0, size=84).frame().transpose(1, 2, 0)
            off = np.abs(frame.astype(int) - golden[key]).max(axis=-1)
            close.append((off <= LEVELS)[away_from_edges(golden[key])].mean())
            physics.free()
    return float(np.mean(close))


def away_from_edges(image: np.ndarray) -> np.ndarray:
    """Pixels of an RGB image, uint8 (H, W, 3), whose neighbourhood has much the same colour: bool (H, W)."""
    padded = np.pad(image.astype(int), ((1, 1), (1, 1), (0, 0)), mode="edge")
    around = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(0, 1))  # (H, W, 3, 3, 3)
    return (np.ptp(around, axis=(-2, -1)) <= EDGE).all(axis=-1)
