"""How much of a task's picture each visual shift changes: on some tasks, some change next to nothing."""

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from common import gl
from common.config.shifts import (
    CAMERA_SHIFTS,
    COLOR_VIDEO_SHIFTS,
    GEOMETRIC_SHIFTS,
    VIDEO_SHIFTS,
    VIEW_SHIFTS,
    presets_of,
)
from common.envs import backgrounds, chroma, turns

LEAST = 0.1
"""A shift that changes a smaller share of the pixels tests no generalisation to speak of."""

MOMENTS = 3
STEPS_BETWEEN = 10
SEED = 0


def changed_shares(
    shifts: Iterable[str],
    *,
    task: str,
    model: str = "dmcgb",
    camera: int | str | None = None,
    action_axes: str | None = None,
    image_size: int = 84,
    shadow_size: int | None = None,
    view_strength: float = 1.0,
    data_root: str | Path | None = None,
) -> dict[str, float]:
    """The share of pixels, in [0, 1], that each shift changes in pictures of the same simulator states.

    A video shift changes the pixels that it keys out, whatever the clip shows there, color_video_* the sky
    and what the preset recolours; the others change those whose colour differs from training's. The preset is
    the first one. The mean is over three moments of an episode under random actions, of which geometric
    shifts turn each by another angle. The keyword arguments are those of `BenchmarkEnv`.

    Raises:
        UserError: unknown name, missing presets, or no way to render.
    """
    gl.select_backend()
    # These import MuJoCo, which reads MUJOCO_GL at import.
    from common.envs import tasks
    from common.envs.camera import Camera
    from common.envs.views import Turns, View

    simulator = tasks.build(task, model, np.random.RandomState(SEED), action_axes, camera)
    physics = simulator.physics
    seen = Camera(physics, simulator.camera, image_size, shadow_size)
    moments = list(_moments(simulator))

    def frames(shift: str) -> Iterator[np.ndarray]:
        """A frame of each moment, uint8 (3, image_size, image_size)."""
        root = backgrounds.data_root(data_root)
        source = presets_of(shift)
        colours = None if source is None else backgrounds.color_presets(root, source)[0].colours
        simulator.appearance.wear(physics, "train" if shift in CAMERA_SHIFTS else shift, colours)
        view = View(shift, physics, simulator.camera, view_strength) if shift in VIEW_SHIFTS else None
        turned = None
        if shift in GEOMETRIC_SHIFTS:
            turned = Turns(turns.turns_of(shift, task), physics, simulator.camera)
        for draw, state in enumerate(moments):
            simulator.show(state)
            place = nullcontext() if view is None else view.seen(draw, step=0)
            with place if turned is None else turned.seen(draw * turns.COUNT // MOMENTS):
                yield seen.frame()

    plain = list(frames("train"))
    shares = {}
    for shift in shifts:
        changed = []
        for frame, own in zip(frames(shift), plain, strict=True):
            differs = chroma.is_green(*frame) if shift in VIDEO_SHIFTS else (frame != own).any(axis=0)
            changed.append(differs | seen.sky() if shift in COLOR_VIDEO_SHIFTS else differs)
        shares[shift] = float(np.mean(changed))
    simulator.close()
    return shares


def _moments(simulator: Any) -> Iterator[np.ndarray]:
    """Simulator states of one episode under random actions."""
    random = np.random.RandomState(SEED)
    simulator.reset()
    for _ in range(MOMENTS):
        for _ in range(STEPS_BETWEEN):
            simulator.step(random.uniform(-1, 1, simulator.action_size))
        yield simulator.simulation_state()
