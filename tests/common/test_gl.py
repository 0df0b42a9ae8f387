"""Choosing an OpenGL back end."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from common import gl
from common.envs import gl_probe
from common.gl import NoRenderer, Renderer, SoftwareRenderingWarning, select_backend

ROOT = Path(__file__).parents[2]


@pytest.fixture
def unprobed(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A process that has not looked for a back end and whose user chose none; restored afterwards."""
    for name in ("SMG_GL_RENDERER", "MUJOCO_GL", "PYOPENGL_PLATFORM", "MUJOCO_EGL_DEVICE_ID"):
        # setenv first, so that what select_backend sets is undone as well.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(gl, "has_nvidia_gpu", lambda: False)
    return monkeypatch


def finding(backend: str, name: str = "llvmpipe", gpu: str | None = None, devices: gl.Devices = ()) -> Any:
    return gl._Finding(Renderer(backend, name, gl.is_software(name), gpu), devices)


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a new process that knows no earlier choice."""
    chosen = ("SMG_GL_RENDERER", "MUJOCO_GL", "PYOPENGL_PLATFORM", "MUJOCO_EGL_DEVICE_ID")
    kept = {name: value for name, value in os.environ.items() if name not in chosen}
    kept |= {"PYTHONPATH": str(ROOT)} | environment
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], env=kept, capture_output=True, text=True, check=False
    )


def test_this_machine_renders() -> None:
    found = run(
        "from common.gl import select_backend; import json, os, dataclasses;"
        "print(json.dumps([dataclasses.asdict(select_backend()), os.environ['MUJOCO_GL']]))",
        MUJOCO_GL="",
    )
    renderer, variable = json.loads(found.stdout)
    assert renderer["backend"] == variable
    assert renderer["backend"] in gl.BACKENDS
    assert renderer["name"]
    assert renderer["software"] == gl.is_software(renderer["name"])


@pytest.mark.parametrize(
    ("name", "software"),
    [
        ("llvmpipe (LLVM 15.0.6, 256 bits)", True),
        ("softpipe", True),
        ("SWR (LLVM 9.0)", True),
        ("NVIDIA H200/PCIe/SSE2", False),
        ("AMD Radeon RX 6800 (radeonsi, navi21)", False),
        ("Mesa Intel(R) UHD Graphics 620", False),
    ],
)
def test_software_renderers_by_name(name: str, software: bool) -> None:
    assert gl.is_software(name) is software


def test_egl_is_preferred_to_osmesa(unprobed: pytest.MonkeyPatch) -> None:
    unprobed.setattr(gl, "_probe", lambda backend: finding(backend, "some GPU"))
    assert select_backend().backend == "egl"
    assert os.environ["MUJOCO_GL"] == os.environ["PYOPENGL_PLATFORM"] == "egl"


def test_osmesa_where_egl_cannot_draw(unprobed: pytest.MonkeyPatch) -> None:
    works = Renderer("osmesa", "llvmpipe", True)
    unprobed.setattr(gl, "_probe", lambda backend: finding("osmesa") if backend == "osmesa" else "no display")
    assert select_backend() == works
    assert os.environ["MUJOCO_GL"] == "osmesa"
    unprobed.setattr(gl, "_probe", lambda backend: pytest.fail("probed twice"))
    assert select_backend() == works


def test_the_users_choice_is_the_only_one_tried(unprobed: pytest.MonkeyPatch) -> None:
    unprobed.setenv("MUJOCO_GL", "osmesa")
    tried = []
    unprobed.setattr(gl, "_probe", lambda backend: tried.append(backend) or "library not found")
    with pytest.raises(NoRenderer, match=r"MUJOCO_GL=osmesa .*library not found.* unset MUJOCO_GL"):
        select_backend()
    assert tried == ["osmesa"]


def test_a_choice_that_cannot_draw_fails_in_earnest() -> None:
    ended = run(
        "from common.errors import UserError\nfrom common.gl import select_backend\n"
        "try: select_backend()\nexcept UserError as error: print(error)",
        MUJOCO_GL="disable",
    )
    assert ended.stderr == ""
    assert "MUJOCO_GL=disable cannot draw a frame" in ended.stdout
    assert ended.stdout.count("\n") == 1


def test_without_root_the_command_is_named(unprobed: pytest.MonkeyPatch) -> None:
    unprobed.setattr(gl, "_probe", lambda backend: "library not found")
    unprobed.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(NoRenderer) as caught:
        select_backend()
    command = "apt-get update && apt-get install -y libegl1 libgl1-mesa-dri libosmesa6"
    assert str(caught.value).endswith(f"run: sudo sh -c '{command}'")
    assert "egl: library not found; osmesa: library not found" in str(caught.value)


def test_nothing_is_installed(unprobed: pytest.MonkeyPatch, tmp_path: Path) -> None:
    apt = tmp_path / "apt-get"
    apt.write_text(f"#!/bin/sh\ntouch {tmp_path}/used\n")
    apt.chmod(0o755)
    unprobed.setenv("PATH", str(tmp_path), prepend=":")
    unprobed.setattr(os, "geteuid", lambda: 0)
    unprobed.setattr(gl, "_probe", lambda backend: "library not found")
    with pytest.raises(
        NoRenderer, match=r"no OpenGL renderer works .* run: apt-get update && apt-get install"
    ):
        select_backend()
    assert not (tmp_path / "used").exists()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"MUJOCO_EGL_DEVICE_ID": "first"}, "MUJOCO_EGL_DEVICE_ID=first is not the number of a GPU"),
        ({"MUJOCO_EGL_DEVICE_ID": "-1"}, "MUJOCO_EGL_DEVICE_ID=-1 is not the number of a GPU"),
        ({"PYOPENGL_PLATFORM": "glx"}, "PYOPENGL_PLATFORM=glx: frames are drawn with egl or osmesa"),
        (
            {"PYOPENGL_PLATFORM": "osmesa", "MUJOCO_GL": "egl"},
            "PYOPENGL_PLATFORM=osmesa contradicts MUJOCO_GL=egl; unset one of them",
        ),
    ],
)
def test_variables_that_cannot_work_are_refused_by_name(
    unprobed: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    for name, value in variables.items():
        unprobed.setenv(name, value)
    unprobed.setattr(gl, "_probe", lambda backend: pytest.fail(f"tried {backend}"))
    with pytest.raises(NoRenderer, match=message):
        select_backend()
    assert {name: os.environ[name] for name in variables} == variables


@pytest.mark.parametrize(
    ("variables", "tried"),
    [
        ({"PYOPENGL_PLATFORM": "osmesa"}, ["osmesa"]),
        ({"MUJOCO_EGL_DEVICE_ID": "1"}, ["egl"]),
        ({"MUJOCO_EGL_DEVICE_ID": "1", "MUJOCO_GL": "osmesa"}, ["osmesa"]),
        ({"MUJOCO_GL": "glfw", "PYOPENGL_PLATFORM": "glx"}, ["glfw"]),
        ({"MUJOCO_EGL_DEVICE_ID": "", "MUJOCO_GL": "", "PYOPENGL_PLATFORM": ""}, ["egl", "osmesa"]),
    ],
)
def test_what_the_user_set_leaves_is_tried_and_nothing_else(
    unprobed: pytest.MonkeyPatch, variables: dict[str, str], tried: list[str]
) -> None:
    for name, value in variables.items():
        unprobed.setenv(name, value)
    seen = []
    unprobed.setattr(gl, "_probe", lambda backend: seen.append(backend) or "it is broken")
    with pytest.raises(NoRenderer, match="it is broken"):
        select_backend()
    assert seen == tried


def test_a_device_out_of_range_is_refused_in_the_renderers_words() -> None:
    if select_backend().backend != "egl":
        pytest.skip("EGL cannot draw here")
    ended = run(
        "from common.errors import UserError\nfrom common.gl import select_backend\n"
        "try: select_backend()\nexcept UserError as error: print(error)",
        MUJOCO_EGL_DEVICE_ID="97",
        MUJOCO_GL="",
        PYOPENGL_PLATFORM="",
    )
    assert ended.stderr == ""
    assert ended.stdout.startswith("MUJOCO_EGL_DEVICE_ID=97 cannot draw a frame (egl: ")
    assert "must be an integer between 0 and" in ended.stdout and "got 97" in ended.stdout
    assert ended.stdout.endswith("set such a number or unset MUJOCO_EGL_DEVICE_ID\n")


# Two GPUs that EGL and CUDA number the other way round, and a software device.
FIRST, SECOND = "0000:3b:00.0", "0000:d8:00.0"
TOLD: gl.Devices = ((SECOND, 1), (FIRST, 0), (None, None))


def two_gpus(patch: pytest.MonkeyPatch, devices: gl.Devices = TOLD) -> list[str | None]:
    """Simulate EGL on such a machine; the list grows by MUJOCO_EGL_DEVICE_ID at each probe."""
    asked: list[str | None] = []

    def probe(backend: str) -> Any:
        number = os.environ.get("MUJOCO_EGL_DEVICE_ID")
        asked.append(number)
        return finding(backend, f"GPU {number or 0}", devices[int(number or 0)][0], devices)

    patch.setattr(gl, "_probe", probe)
    return asked


def test_frames_are_drawn_on_the_gpu_that_trains(unprobed: pytest.MonkeyPatch) -> None:
    asked = two_gpus(unprobed)
    assert select_backend(gl.Gpu(FIRST, 0)).gpu == FIRST
    assert asked == [None, "1"]
    assert os.environ["MUJOCO_EGL_DEVICE_ID"] == "1"
    # It holds for this process and its children, until another GPU trains.
    assert select_backend() == select_backend(gl.Gpu(FIRST)) == Renderer("egl", "GPU 1", False, FIRST)
    assert len(asked) == 2
    assert select_backend(gl.Gpu(SECOND, 1)).gpu == SECOND
    assert os.environ["MUJOCO_EGL_DEVICE_ID"] == "0"


def test_the_default_device_is_kept_where_it_trains(unprobed: pytest.MonkeyPatch) -> None:
    asked = two_gpus(unprobed)
    assert select_backend(gl.Gpu(SECOND, 1)).gpu == SECOND
    assert asked == [None] and "MUJOCO_EGL_DEVICE_ID" not in os.environ


def test_the_users_device_is_kept(unprobed: pytest.MonkeyPatch) -> None:
    unprobed.setenv("MUJOCO_EGL_DEVICE_ID", "0")
    asked = two_gpus(unprobed)
    assert select_backend(gl.Gpu(FIRST, 0)).gpu == SECOND
    assert select_backend(gl.Gpu(FIRST, 0)).gpu == SECOND
    assert asked == ["0"] and os.environ["MUJOCO_EGL_DEVICE_ID"] == "0"


def test_cudas_number_where_egl_tells_no_address(unprobed: pytest.MonkeyPatch) -> None:
    two_gpus(unprobed, ((None, 1), (None, 0)))
    assert select_backend(gl.Gpu(FIRST, 0)).name == "GPU 1"


def test_a_gpu_that_egl_does_not_tell_stays_where_it_is(unprobed: pytest.MonkeyPatch) -> None:
    asked = two_gpus(unprobed, ((None, 1), (None, 0)))
    assert select_backend(gl.Gpu(FIRST)).name == "GPU 0"  # CUDA_VISIBLE_DEVICES renumbers
    assert select_backend(gl.Gpu("0000:af:00.0", 7)).name == "GPU 0"
    assert asked == [None] and "MUJOCO_EGL_DEVICE_ID" not in os.environ


def test_a_training_gpu_that_cannot_draw_is_said(unprobed: pytest.MonkeyPatch) -> None:
    def probe(backend: str) -> Any:
        chosen = os.environ.get("MUJOCO_EGL_DEVICE_ID")
        return "no permission" if chosen else finding(backend, "GPU 0", SECOND, TOLD)

    unprobed.setattr(gl, "_probe", probe)
    with pytest.warns(gl.OtherGpuWarning, match=rf"training GPU {FIRST} \(no permission\): GPU 0 draws"):
        assert select_backend(gl.Gpu(FIRST, 0)).gpu == SECOND
    assert "MUJOCO_EGL_DEVICE_ID" not in os.environ


class SimulatedEgl:
    """What EGL answers about a display card, a card known by its render node, a CUDA device, and software."""

    def devices(self) -> list[int]:
        return [0, 1, 2, 3]

    def string(self, device: int, name: int) -> bytes | None:
        return {(0, 0x3233): b"/dev/dri/card1", (1, 0x3377): b"/dev/dri/renderD129"}.get((device, name))

    def number(self, device: int, name: int) -> int | None:
        return {(0, 0x323A): 1, (1, 0x323A): 0, (2, 0x323A): 2}.get((device, name))


def test_addresses_are_read_from_drms_files(tmp_path: Path) -> None:
    for node, bus in (
        ("card1", "pci0000:d7/0000:d7:02.0/0000:D8:00.0"),
        ("renderD129", "pci0000:3a/0000:3b:00.0"),
    ):
        (tmp_path / "devices" / bus).mkdir(parents=True)
        (tmp_path / "class" / "drm" / node).mkdir(parents=True)
        (tmp_path / "class" / "drm" / node / "device").symlink_to(tmp_path / "devices" / bus)
    assert gl_probe.devices(SimulatedEgl(), tmp_path) == [(SECOND, 1), (FIRST, 0), (None, 2), (None, None)]
    # In a container that shows no /sys, EGL's file names lead nowhere.
    assert gl_probe.devices(SimulatedEgl(), tmp_path / "none")[0] == (None, 1)


def test_software_rendering_beside_an_nvidia_gpu_is_loud(unprobed: pytest.MonkeyPatch) -> None:
    unprobed.setattr(gl, "_probe", lambda backend: finding(backend, "llvmpipe (LLVM 15)"))
    unprobed.setattr(gl, "has_nvidia_gpu", lambda: True)
    with pytest.warns(SoftwareRenderingWarning, match="NVIDIA GPU.*llvmpipe"):
        select_backend()


@pytest.mark.slow
def test_exit_without_closing_is_quiet() -> None:
    ended = run(
        "from common.envs.benchmark import BenchmarkEnv\n"
        "envs = [BenchmarkEnv('walker_walk', 'video_hard'), BenchmarkEnv('finger_spin')]\n"
        "[env.reset() for env in envs]",
        SMG_DATA="",
    )
    assert (ended.returncode, ended.stderr) == (0, "")
