"""Frames of a simulation at the observation's size."""

# MuJoCo's names live in a compiled module without type stubs.
# pyright: reportAttributeAccessIssue=false

import mujoco
import numpy as np
from dm_control.mujoco import Physics

MAX_GEOMS = 2000


class Camera:
    """Draws what a fixed camera of a dm_control physics sees, size x size pixels.

    dm_control's own `physics.render` gives the same pixels; this keeps the scene between frames and
    returns channels first.

    Args:
        physics: what is drawn. Its rendering context must not exist yet.
        camera: number of a fixed camera of the model.
        size: height and width of a frame [pixels].
        shadow_size: side of the shadow map [texels]; None for the model's own.
    """

    def __init__(self, physics: Physics, camera: int, size: int, shadow_size: int | None = None) -> None:
        self.physics = physics
        self.size = size
        # A framebuffer of the frame's size saves clearing and resolving 640x480 pixels per frame. It must be
        # set before the rendering context exists, which is made on first use.
        physics.model.vis.global_.offwidth = size
        physics.model.vis.global_.offheight = size
        if shadow_size is not None:
            physics.model.vis.quality.shadowsize = shadow_size
        self.camera = mujoco.MjvCamera()
        self.camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self.camera.fixedcamid = camera
        self.scene = mujoco.MjvScene(physics.model.ptr, maxgeom=MAX_GEOMS)
        self.options = mujoco.MjvOption()
        self.perturbation = mujoco.MjvPerturb()
        self.viewport = mujoco.MjrRect(0, 0, size, size)
        self.pixels = np.empty((size, size, 3), np.uint8)

    def frame(self) -> np.ndarray:
        """A new uint8 (3, size, size) RGB image, top row first."""
        mujoco.mjv_updateScene(
            self.physics.model.ptr,
            self.physics.data.ptr,
            self.options,
            self.perturbation,
            self.camera,
            mujoco.mjtCatBit.mjCAT_ALL,
            self.scene,
        )
        contexts = self.physics.contexts  # dm_control makes them on first use
        assert contexts is not None
        with contexts.gl.make_current() as context:
            context.call(self._draw, contexts.mujoco.ptr)
        # OpenGL's first row is the bottom one.
        return self.pixels[::-1].transpose(2, 0, 1).copy()

    def objects(self) -> np.ndarray:
        """What each pixel shows: int32 (size, size, 2), MuJoCo's object number and type, -1 for the sky."""
        return self.physics.render(self.size, self.size, camera_id=self.camera.fixedcamid, segmentation=True)

    def sky(self) -> np.ndarray:
        """Which pixels show nothing of the model: bool (size, size)."""
        return self.objects()[..., 1] == -1

    def _draw(self, context: mujoco.MjrContext) -> None:
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, context)
        mujoco.mjr_render(self.viewport, self.scene, context)
        mujoco.mjr_readPixels(self.pixels, None, self.viewport, context)
