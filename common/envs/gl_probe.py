"""The program with which common.gl finds out whether OpenGL draws here: draws a frame, prints JSON, ends.

Run as a file, in a process of its own whose MUJOCO_GL names the back end. It prints OpenGL's name of what
drew; of EGL's devices, in EGL's order, the PCI address and CUDA's number (null where EGL does not tell); and
which of them drew. Other back ends have no devices.
"""

import ctypes
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

DRM_DEVICE_FILE, DRM_RENDER_NODE_FILE, CUDA_DEVICE, DISPLAY_DEVICE = 0x3233, 0x3377, 0x323A, 0x322C
"""Of the EGL extensions EXT_device_drm, EXT_device_drm_render_node, NV_device_cuda and EXT_device_query."""

MOST_DEVICES = 10  # that dm_control counts, too

_PCI = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f]")


def draw() -> str:
    """Draw a frame; OpenGL's name of the renderer.

    Raises:
        RuntimeError: the frame is blank. What cannot draw raises errors of its own.
    """
    from dm_control import mujoco

    physics = mujoco.Physics.from_xml_string(
        '<mujoco><worldbody><light pos="0 0 3"/><geom size=".2" rgba="1 0 0 1"/></worldbody></mujoco>'
    )
    frame = physics.render(32, 32)
    if frame.max() == frame.min():
        raise RuntimeError("the rendered frame is blank")
    from OpenGL import GL

    contexts = physics.contexts
    assert contexts is not None
    with contexts.gl.make_current() as context:
        return context.call(GL.glGetString, GL.GL_RENDERER).decode()


def devices(egl: Any, sysfs: Path = Path("/sys")) -> list[tuple[str | None, int | None]]:
    """PCI address and CUDA number of each of EGL's devices.

    Args:
        egl: an `Egl`.
        sysfs: where Linux tells of DRM's devices.
    """
    return [(_pci(egl, device, sysfs), egl.number(device, CUDA_DEVICE)) for device in egl.devices()]


def _pci(egl: Any, device: Any, sysfs: Path) -> str | None:
    for name in (DRM_DEVICE_FILE, DRM_RENDER_NODE_FILE):
        file = egl.string(device, name)
        if file is not None:
            node = sysfs / "class" / "drm" / Path(file.decode()).name / "device"
            address = node.resolve().name.lower()
            if _PCI.fullmatch(address):
                return address
    return None


class Egl:
    """What EGL says of its devices, where its extensions are there to ask."""

    def __init__(self) -> None:
        from dm_control._render.pyopengl import egl_ext

        handle, pointer = ctypes.c_void_p, ctypes.POINTER(ctypes.c_ssize_t)
        self._egl: Any = egl_ext
        self._string = self._function("eglQueryDeviceStringEXT", ctypes.c_char_p, handle, ctypes.c_int)
        self._number = self._function("eglQueryDeviceAttribEXT", ctypes.c_uint, handle, ctypes.c_int, pointer)
        self._of_display = self._function(
            "eglQueryDisplayAttribEXT", ctypes.c_uint, handle, ctypes.c_int, pointer
        )

    def _function(self, name: str, *types: Any) -> Any:
        """One of EGL's extension functions; PyOpenGL's own ask for a display first."""
        found: Any = self._egl.eglGetProcAddress(name)
        address = ctypes.cast(found, ctypes.c_void_p).value
        return ctypes.CFUNCTYPE(*types)(address) if address else None

    def devices(self) -> list[int]:
        """Handles in the order that MUJOCO_EGL_DEVICE_ID counts in."""
        found = self._egl.eglQueryDevicesEXT(MOST_DEVICES)
        return [ctypes.cast(device, ctypes.c_void_p).value or 0 for device in found]

    def string(self, device: int, name: int) -> bytes | None:
        """A text about a device; None without it."""
        return self._string(device, name) if self._string else None

    def number(self, device: int, name: int) -> int | None:
        """A number about a device; None without it."""
        value = ctypes.c_ssize_t()
        known = self._number and self._number(device, name, ctypes.byref(value))
        return value.value if known else None

    def drawing(self) -> int | None:
        """The handle of the device that dm_control draws with; None where EGL does not tell."""
        from dm_control._render.pyopengl import egl_renderer

        chosen: Any = egl_renderer.EGL_DISPLAY
        display = ctypes.cast(chosen, ctypes.c_void_p)
        value = ctypes.c_ssize_t()
        known = self._of_display and self._of_display(display, DISPLAY_DEVICE, ctypes.byref(value))
        return value.value if known else None


def main() -> None:
    """Draw, ask, print."""
    found: dict[str, Any] = {"renderer": draw(), "devices": [], "drawing": None}
    if os.environ["MUJOCO_GL"] == "egl":
        egl = Egl()
        handles, drawing = egl.devices(), egl.drawing()
        found["devices"] = devices(egl)
        found["drawing"] = handles.index(drawing) if drawing in handles else None
    sys.stdout.write(json.dumps(found))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
    # A driver that draws but crashes while being unloaded is still usable.
    os._exit(0)
