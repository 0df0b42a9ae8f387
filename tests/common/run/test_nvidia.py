"""A GPU that PyTorch cannot use, as fake tools show it, and CUDA's address of the one that trains."""

import ctypes
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from common import doctor, gl
from common.config.loading import load
from common.errors import UserError
from common.run import nvidia
from common.run.device import resolve_auto
from common.run.train import train

Smi = Callable[[str], None]


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Smi:
    """Puts an nvidia-smi on the PATH that tells of one GPU and this driver; without CUDA for PyTorch."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch, "__version__", "2.13.0+cu130")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    def install(driver: str) -> None:
        file = tmp_path / "nvidia-smi"
        file.write_text(
            '#!/bin/sh\ncase "$1" in -L) echo "GPU 0: NVIDIA A100 (UUID: GPU-1)" ;; '
            f"--query-gpu=driver_version) printf '{driver}\\n{driver}\\n' ;; esac\n"
        )
        file.chmod(0o755)

    return install


def config(*overrides: str) -> Any:
    return load("sac", "walker_walk", "smoke", overrides=overrides)


def test_an_old_driver_is_named_with_the_remedies(smi: Smi) -> None:
    smi("535.104.05")
    obstacle = nvidia.unusable_gpu()
    assert obstacle is not None
    for part in (
        "an NVIDIA GPU (driver 535.104.05)",
        "PyTorch 2.13.0+cu130 is built for CUDA 13.0, which needs driver 580 or newer",
        "torch 2.11.0+cu126 or 2.11.0+cu128, for driver 525 or newer",
        "device=cpu",
    ):
        assert part in obstacle


def test_a_build_without_cuda_and_a_new_driver_are_told_apart(
    smi: Smi, monkeypatch: pytest.MonkeyPatch
) -> None:
    smi("580.65.06")
    assert "though the driver is new enough for CUDA 13.0" in str(nvidia.unusable_gpu())
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "is a build without CUDA" in str(nvidia.unusable_gpu())
    # For CUDA 12 older drivers are new enough.
    smi("530.30.02")
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    assert "though the driver is new enough for CUDA 12.8" in str(nvidia.unusable_gpu())


def test_training_with_auto_refuses_and_the_cpu_said_explicitly_trains(smi: Smi, tmp_path: Path) -> None:
    smi("535.104.05")
    run = tmp_path / "run"
    with pytest.raises(UserError, match=r"device=auto: .*driver 535\.104\.05.*device=cpu"):
        train(config(f"run.dir={run}"))
    assert not run.exists()
    with pytest.raises(UserError, match=r"device=cuda: .*driver 535\.104\.05"):
        resolve_auto(config("device=cuda"))
    assert resolve_auto(config("device=cpu")).device == "cpu"


def test_the_doctor_fails(
    smi: Smi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    smi("535.104.05")
    for check in ("_renderer", "_speed", "_golden_frames", "_replay"):
        monkeypatch.setattr(doctor, check, lambda *_: "left out")
    assert doctor.examine(config()) == 1
    lines = capsys.readouterr().out.splitlines()
    [problem] = [line for line in lines if line.startswith("PROBLEM")]
    assert problem.split()[1] == "PyTorch"
    assert "driver 535.104.05" in problem and "device=cpu" in problem
    assert doctor.examine(config("device=cpu")) == 0


def test_without_a_gpu_or_with_a_hidden_one_the_cpu_trains(
    smi: Smi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A container may show the host's kernel module, which is no GPU.
    (tmp_path / "version").write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19\n"
    )
    monkeypatch.setattr(nvidia, "_KERNEL_MODULE", tmp_path / "version")
    if not Path("/dev/nvidia0").exists():
        assert nvidia.unusable_gpu() is None
        assert resolve_auto(config()).device == "cpu"
    smi("535.104.05")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert nvidia.unusable_gpu() is None


def test_the_kernel_module_tells_the_version_that_nvidia_smi_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gl, "nvidia_smi", lambda *_: "")
    monkeypatch.setattr(nvidia, "_KERNEL_MODULE", tmp_path / "version")
    assert nvidia.driver_version() is None
    (tmp_path / "version").write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build\n"
        "GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n"
    )
    assert nvidia.driver_version() == "570.86.15"


def test_the_training_gpus_address_is_the_drivers(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = {0: b"0000:3B:00.0", 1: b"0000:D8:00.0"}

    def get(handle: Any, index: int) -> int:
        handle._obj.value = index + 100
        return 0 if index in addresses else 101

    def address(text: Any, length: int, handle: ctypes.c_int) -> int:
        text.value = addresses[handle.value - 100]
        return 0

    driver = SimpleNamespace(cuInit=lambda flags: 0, cuDeviceGet=get, cuDeviceGetPCIBusId=address)
    monkeypatch.setattr(nvidia.ctypes, "CDLL", lambda name: driver)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert nvidia.training_gpu("cuda:1") == gl.Gpu("0000:d8:00.0", 1)
    assert nvidia.training_gpu("cuda") == gl.Gpu("0000:3b:00.0", 0)
    assert nvidia.training_gpu("cuda:2") is None
    assert nvidia.training_gpu("cpu") is None
    # It renumbers what CUDA sees, and not what EGL does.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    assert nvidia.training_gpu("cuda:1") == gl.Gpu("0000:d8:00.0", None)
