"""Choosing an OpenGL back end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from common import gl
from common.gl import NoRenderer, Renderer, SoftwareRenderingWarning, select_backend

ROOT = Path(__file__).parents[2]


@pytest.fixture
def unprobed(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A process that has not looked for a back end and whose user chose none; restored afterwards."""
    for name in ("SMG_GL_RENDERER", "MUJOCO_GL", "PYOPENGL_PLATFORM"):
        # setenv first, so that what select_backend sets is undone as well.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(gl, "has_nvidia_gpu", lambda: False)
    return monkeypatch


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a new process that knows no earlier choice."""
    kept = {name: value for name, value in os.environ.items() if name != "SMG_GL_RENDERER"}
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
    unprobed.setattr(gl, "_probe", lambda backend: Renderer(backend, "some GPU", False))
    assert select_backend().backend == "egl"
    assert os.environ["MUJOCO_GL"] == os.environ["PYOPENGL_PLATFORM"] == "egl"


def test_osmesa_where_egl_cannot_draw(unprobed: pytest.MonkeyPatch) -> None:
    works = Renderer("osmesa", "llvmpipe", True)
    unprobed.setattr(gl, "_probe", lambda backend: works if backend == "osmesa" else "no display")
    assert select_backend() == works
    assert os.environ["MUJOCO_GL"] == "osmesa"
    unprobed.setattr(gl, "_probe", lambda backend: pytest.fail("probed twice"))
    assert select_backend() == works


def test_the_users_choice_is_the_only_one_tried(unprobed: pytest.MonkeyPatch) -> None:
    unprobed.setenv("MUJOCO_GL", "osmesa")
    tried = []
    unprobed.setattr(gl, "_probe", lambda backend: tried.append(backend) or "library not found")
    unprobed.setattr(gl, "_install", lambda packages: pytest.fail("installed something"))
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


def test_root_installs_what_is_missing(unprobed: pytest.MonkeyPatch, tmp_path: Path) -> None:
    log = tmp_path / "log"
    apt = tmp_path / "apt-get"
    apt.write_text(f'#!/bin/sh\necho "$@" >> {log}\n')
    apt.chmod(0o755)
    unprobed.setenv("PATH", str(tmp_path), prepend=":")
    unprobed.setattr(os, "geteuid", lambda: 0)

    def probe(backend: str) -> Renderer | str:
        installed = log.exists() and "libosmesa6" in log.read_text()
        return Renderer(backend, "llvmpipe", True) if installed and backend == "osmesa" else "not found"

    unprobed.setattr(gl, "_probe", probe)
    assert select_backend().backend == "osmesa"
    assert log.read_text().splitlines() == [
        "update -qq",
        "install -y -qq libegl1 libgl1-mesa-dri",
        "update -qq",
        "install -y -qq libosmesa6",
    ]


def test_software_rendering_beside_an_nvidia_gpu_is_loud(unprobed: pytest.MonkeyPatch) -> None:
    unprobed.setattr(gl, "_probe", lambda backend: Renderer(backend, "llvmpipe (LLVM 15)", True))
    unprobed.setattr(gl, "has_nvidia_gpu", lambda: True)
    with pytest.warns(SoftwareRenderingWarning, match="NVIDIA GPU.*llvmpipe"):
        select_backend()


def test_exit_without_closing_is_quiet() -> None:
    ended = run(
        "from common.envs.benchmark import BenchmarkEnv\n"
        "envs = [BenchmarkEnv('walker_walk', 'video_hard'), BenchmarkEnv('finger_spin')]\n"
        "[env.reset() for env in envs]",
        SMG_DATA="",
    )
    assert (ended.returncode, ended.stderr) == (0, "")
