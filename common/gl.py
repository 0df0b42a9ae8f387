"""Find an OpenGL back end that can really draw, before MuJoCo is imported.

MuJoCo and dm_control read `MUJOCO_GL` once, at import; a wrong choice shows only when the first frame
is drawn, and a silent fall-back to software rendering is the commonest cause of a slow run. So each
back end is tried in a process of its own, and what drew the frame is reported by name. Nothing is installed
here; scripts/setup.sh does that.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from common.errors import UserError

BACKENDS = ("egl", "osmesa")
INSTALL = "apt-get update && apt-get install -y libegl1 libgl1-mesa-dri libosmesa6"
PROBE = Path(__file__).with_name("envs") / "gl_probe.py"
PROBE_SECONDS = 120

# Children inherit the finding through the environment and do not probe again.
_FOUND = "SMG_GL_RENDERER"
# What a user may have set, and MuJoCo or PyOpenGL read.
_BACKEND, _PLATFORM, _DEVICE = "MUJOCO_GL", "PYOPENGL_PLATFORM", "MUJOCO_EGL_DEVICE_ID"

Devices = tuple[tuple[str | None, int | None], ...]
"""PCI address and CUDA number of EGL's devices, in EGL's order; None where it does not tell."""

_SOFTWARE = re.compile(r"llvmpipe|softpipe|swrast|swr|software|lavapipe", re.IGNORECASE)


class NoRenderer(UserError):
    """No OpenGL back end can draw; the text holds the renderer's own reason and the remedy."""


class SoftwareRenderingWarning(UserWarning):
    """The machine has an NVIDIA GPU but frames are drawn on the CPU."""


class OtherGpuWarning(UserWarning):
    """Frames are not drawn on the GPU that trains."""


@dataclass(frozen=True)
class Gpu:
    """A GPU by its PCI address, such as 0000:3b:00.0, and by CUDA's number where that counts every GPU."""

    pci: str
    cuda: int | None = None


@dataclass(frozen=True)
class Renderer:
    """What draws the frames: MUJOCO_GL's value, OpenGL's renderer string, and whether that is a CPU.

    `gpu` is the PCI address of the GPU, None where EGL does not tell or none draws.
    """

    backend: str
    name: str
    software: bool
    gpu: str | None = None


@dataclass(frozen=True)
class _Finding:
    """A renderer, and what EGL said of all its devices."""

    renderer: Renderer
    devices: Devices = ()
    chosen: bool = False  # the device, by the user


def select_backend(training_gpu: Gpu | None = None) -> Renderer:
    """Choose EGL or OSMesa by drawing a frame with each, and set `MUJOCO_GL` accordingly.

    What the user set is obeyed: of `MUJOCO_GL` and `PYOPENGL_PLATFORM` no other back end is tried, and with
    `MUJOCO_EGL_DEVICE_ID` no other device. Without the last, EGL draws on `training_gpu` where it has several
    devices and tells which is which. The finding holds for this process and its children.

    Raises:
        NoRenderer: nothing can draw, or not with what the user set; names the variable or the command to run.
    """
    earlier = os.environ.get(_FOUND)
    found = _search() if earlier is None else _read(earlier)
    moved = found if training_gpu is None else _move(found, training_gpu)
    os.environ.update(_environment(moved.renderer.backend))
    os.environ[_FOUND] = json.dumps(asdict(moved))
    renderer = moved.renderer
    if earlier is None and renderer.software and has_nvidia_gpu():
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
    """Whether the machine shows an NVIDIA GPU, by its device file or by nvidia-smi.

    A container may show the host's /proc/driver/nvidia without any GPU, so that is no sign.
    """
    return Path("/dev/nvidia0").exists() or "GPU" in nvidia_smi("-L")


def nvidia_smi(*arguments: str) -> str:
    """What nvidia-smi prints; empty where it is missing or fails."""
    if shutil.which("nvidia-smi") is None:
        return ""
    try:
        command = ["nvidia-smi", *arguments]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout if answer.returncode == 0 else ""


def _environment(backend: str) -> dict[str, str]:
    if backend in BACKENDS:
        return {_BACKEND: backend, _PLATFORM: backend}
    return {_BACKEND: backend}


def _read(record: str) -> _Finding:
    """A finding that this process or its parent stored."""
    stored: dict[str, Any] = json.loads(record)
    return _Finding(Renderer(**stored["renderer"]), _devices(stored), stored["chosen"])


def _devices(record: Mapping[str, Any]) -> Devices:
    return tuple((pci, cuda) for pci, cuda in record["devices"])


def _search() -> _Finding:
    """The first back end that draws, of those that the user's variables leave."""
    given = {name: os.environ[name] for name in (_BACKEND, _PLATFORM, _DEVICE) if os.environ.get(name)}
    if given.get(_BACKEND, BACKENDS[0]) not in BACKENDS:
        given.pop(_PLATFORM, None)  # such a back end does not draw through PyOpenGL
    if not given.get(_DEVICE):
        os.environ.pop(_DEVICE, None)  # set, but empty, MuJoCo takes it for a number
    failures = {}
    for backend in _allowed(given):
        found = _probe(backend)
        if isinstance(found, _Finding):
            return replace(found, chosen=_DEVICE in given)
        failures[backend] = found
    raise NoRenderer(_explain(given, failures))


def _allowed(given: Mapping[str, str]) -> tuple[str, ...]:
    """The back ends to try.

    Raises:
        NoRenderer: the variables that the user set cannot work, whatever is installed.
    """
    backend, platform, device = (given.get(name) for name in (_BACKEND, _PLATFORM, _DEVICE))
    if device is not None and not device.isdecimal():
        raise NoRenderer(f"{_DEVICE}={device} is not the number of a GPU (0, 1, …); set one or unset it")
    if platform is not None:
        if platform not in BACKENDS:
            raise NoRenderer(
                f"{_PLATFORM}={platform}: frames are drawn with {' or '.join(BACKENDS)}; set one or unset it"
            )
        if backend in BACKENDS and backend != platform:
            raise NoRenderer(f"{_PLATFORM}={platform} contradicts {_BACKEND}={backend}; unset one of them")
    if backend is not None or platform is not None:
        return (backend or platform or "",)
    # Only EGL has devices: another back end would ignore the choice.
    return BACKENDS if device is None else BACKENDS[:1]


def _probe(backend: str) -> _Finding | str:
    """Draw a frame in a new process; what was found, or the renderer's own reason why not."""
    try:
        process = subprocess.run(
            [sys.executable, "-P", str(PROBE)],
            env=os.environ | _environment(backend),
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no frame within {PROBE_SECONDS} s"
    if process.returncode == 0 and process.stdout:
        answer = json.loads(process.stdout)
        name, devices, drawing = answer["renderer"], _devices(answer), answer["drawing"]
        gpu = None if drawing is None else devices[drawing][0]
        return _Finding(Renderer(backend, name, is_software(name), gpu), devices)
    # What is destroyed after the error complains too.
    lines = process.stderr.partition("Exception ignored in")[0].strip().splitlines()
    return lines[-1] if lines else f"the process ended with status {process.returncode}"


def _move(found: _Finding, gpu: Gpu) -> _Finding:
    """Draw on `gpu` from now on, if it is another of EGL's devices and the user chose none."""
    if found.chosen or len(found.devices) < 2 or found.renderer.gpu == gpu.pci:
        return found
    index = _index(found.devices, gpu)
    if index is None or os.environ.get(_DEVICE) == str(index):
        return found
    before = os.environ.get(_DEVICE)
    os.environ[_DEVICE] = str(index)
    moved = _probe("egl")
    if isinstance(moved, _Finding):
        return moved
    os.environ.pop(_DEVICE)
    if before is not None:
        os.environ[_DEVICE] = before
    warnings.warn(
        f"EGL cannot draw on the training GPU {gpu.pci} ({moved}): {found.renderer.name} draws",
        OtherGpuWarning,
        stacklevel=3,
    )
    return found


def _index(devices: Devices, gpu: Gpu) -> int | None:
    """Where EGL has a GPU: by its PCI address, else by CUDA's number; None if EGL tells neither."""
    for index, (pci, _) in enumerate(devices):
        if pci == gpu.pci:
            return index
    for index, (pci, cuda) in enumerate(devices):
        if pci is None and cuda is not None and cuda == gpu.cuda:
            return index
    return None


def _explain(given: Mapping[str, str], failures: Mapping[str, str]) -> str:
    reasons = "; ".join(f"{backend}: {reason}" for backend, reason in failures.items())
    command = INSTALL if os.geteuid() == 0 else "sudo sh -c '" + INSTALL + "'"
    if not given:
        return f"no OpenGL renderer works ({reasons}); run: {command}"
    variables = " ".join(f"{name}={value}" for name, value in given.items())
    if _DEVICE in reasons:
        return f"{variables} cannot draw a frame ({reasons}); set such a number or unset {_DEVICE}"
    return f"{variables} cannot draw a frame ({reasons}); unset {' and '.join(given)}, or run: {command}"
