"""Find an OpenGL back end that can really draw, before MuJoCo is imported.

MuJoCo and dm_control read `MUJOCO_GL` once, at import; a wrong choice shows only when the first frame
is drawn, and a silent fall-back to software rendering is the commonest cause of a slow run. So each
back end is tried in a process of its own, and what drew the frame is reported by name.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

from common.errors import UserError

BACKENDS = ("egl", "osmesa")
PACKAGES = {"egl": ("libegl1", "libgl1-mesa-dri"), "osmesa": ("libosmesa6",)}
INSTALL = "apt-get update && apt-get install -y libegl1 libgl1-mesa-dri libosmesa6"
PROBE_SECONDS = 120

# Children inherit the finding through the environment and do not probe again.
_FOUND = "SMG_GL_RENDERER"

_SOFTWARE = re.compile(r"llvmpipe|softpipe|swrast|swr|software|lavapipe", re.IGNORECASE)

# Leaves through os._exit: a driver that draws but crashes while being unloaded is still usable.
_PROBE = """
import os, sys
from dm_control import mujoco
physics = mujoco.Physics.from_xml_string(
    '<mujoco><worldbody><light pos="0 0 3"/><geom size=".2" rgba="1 0 0 1"/></worldbody></mujoco>')
frame = physics.render(32, 32)
if frame.max() == frame.min():
    raise RuntimeError("the rendered frame is blank")
from OpenGL import GL
with physics.contexts.gl.make_current() as context:
    name = context.call(GL.glGetString, GL.GL_RENDERER)
sys.stdout.write(name.decode())
sys.stdout.flush()
os._exit(0)
"""


class NoRenderer(UserError):
    """No OpenGL back end can draw; the text holds the command that installs one."""


class SoftwareRenderingWarning(UserWarning):
    """The machine has an NVIDIA GPU but frames are drawn on the CPU."""


@dataclass(frozen=True)
class Renderer:
    """What draws the frames: MUJOCO_GL's value, OpenGL's renderer string, and whether that is a CPU."""

    backend: str
    name: str
    software: bool


def select_backend() -> Renderer:
    """Choose EGL or OSMesa by drawing a frame with each, and set `MUJOCO_GL` accordingly.

    A `MUJOCO_GL` that is already set is the only one tried. Root on a machine with apt gets the missing
    libraries installed. The finding holds for this process and its children.

    Raises:
        NoRenderer: nothing can draw; names the command to run.
    """
    if _FOUND in os.environ:
        return Renderer(**json.loads(os.environ[_FOUND]))
    chosen = os.environ.get("MUJOCO_GL")
    renderer, failures = _first_working((chosen,) if chosen else BACKENDS)
    if renderer is None and chosen is None and _can_install():
        for backend in BACKENDS:
            _install(PACKAGES[backend])
            renderer, failures = _first_working((backend,))
            if renderer is not None:
                break
    if renderer is None:
        raise NoRenderer(_explain(chosen, failures))
    os.environ.update(_environment(renderer.backend))
    os.environ[_FOUND] = json.dumps(asdict(renderer))
    if renderer.software and has_nvidia_gpu():
        warnings.warn(
            f"this machine has an NVIDIA GPU, but OpenGL renders in software ({renderer.name}), many times "
            "slower: install NVIDIA's EGL library (package libnvidia-gl of the driver's version; in a "
            "container set NVIDIA_DRIVER_CAPABILITIES=all)",
            SoftwareRenderingWarning,
            stacklevel=2,
        )
    return renderer


def is_software(name: str) -> bool:
    """Whether OpenGL's renderer string `name` is a rasteriser that runs on the CPU."""
    return bool(_SOFTWARE.search(name))


def has_nvidia_gpu() -> bool:
    """Whether the machine shows an NVIDIA GPU, by its device file or by nvidia-smi."""
    if Path("/dev/nvidia0").exists():
        return True
    if shutil.which("nvidia-smi") is None:
        return False
    try:
        command = ["nvidia-smi", "-L"]
        listing = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listing.returncode == 0 and "GPU" in listing.stdout


def _environment(backend: str) -> dict[str, str]:
    if backend in BACKENDS:
        return {"MUJOCO_GL": backend, "PYOPENGL_PLATFORM": backend}
    return {"MUJOCO_GL": backend}


def _first_working(backends: tuple[str, ...]) -> tuple[Renderer | None, dict[str, str]]:
    failures = {}
    for backend in backends:
        result = _probe(backend)
        if isinstance(result, Renderer):
            return result, failures
        failures[backend] = result
    return None, failures


def _probe(backend: str) -> Renderer | str:
    """Draw a frame in a new process; the renderer, or the last line of what went wrong."""
    environment = os.environ | _environment(backend)
    try:
        process = subprocess.run(
            [sys.executable, "-c", _PROBE],
            env=environment,
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no frame within {PROBE_SECONDS} s"
    if process.returncode == 0 and process.stdout:
        name = process.stdout.strip()
        return Renderer(backend, name, is_software(name))
    lines = process.stderr.strip().splitlines()
    return lines[-1] if lines else f"the process ended with status {process.returncode}"


def _can_install() -> bool:
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def _install(packages: tuple[str, ...]) -> None:
    print(f"OpenGL: installing {' '.join(packages)} with apt-get", file=sys.stderr, flush=True)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", *packages]):
        subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False)


def _explain(chosen: str | None, failures: dict[str, str]) -> str:
    reasons = "; ".join(f"{backend}: {reason}" for backend, reason in failures.items())
    if chosen:
        return f"MUJOCO_GL={chosen} cannot draw a frame ({reasons}); unset MUJOCO_GL, or run: {INSTALL}"
    command = INSTALL if os.geteuid() == 0 else "sudo sh -c '" + INSTALL + "'"
    return f"no OpenGL renderer works ({reasons}); run: {command}"
