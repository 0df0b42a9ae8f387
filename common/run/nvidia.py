"""What NVIDIA's driver and PyTorch make of this machine's GPUs."""

import ctypes
import os
import re
from pathlib import Path

import torch

from common import gl

LEAST_DRIVERS = {12: 525, 13: 580}
"""The oldest driver, by major version, that each major version of CUDA runs on."""

OLDER_BUILDS = "torch 2.11.0+cu126 or 2.11.0+cu128"
"""Builds of PyTorch for CUDA 12 that this code supports."""

_KERNEL_MODULE = Path("/proc/driver/nvidia/version")


def unusable_gpu() -> str | None:
    """Why PyTorch finds no CUDA device on a machine that has an NVIDIA GPU, and what to do; None without one.

    A GPU that CUDA_VISIBLE_DEVICES hides counts as none.
    """
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    if torch.cuda.is_available() or hidden or not gl.has_nvidia_gpu():
        return None
    driver = driver_version()
    found = f"this machine has an NVIDIA GPU (driver {driver or 'unknown'})"
    cpu = "or train on the CPU by saying device=cpu"
    older = (
        f"an older CUDA build of PyTorch that this code supports ({OLDER_BUILDS}, for driver 525 or newer)"
    )
    if torch.version.cuda is None:
        return (
            f"{found}, but PyTorch {torch.__version__} is a build without CUDA: install its CUDA 13 build, "
            f"for driver {LEAST_DRIVERS[13]} or newer, or {older}, {cpu}"
        )
    cuda = torch.version.cuda
    needed = LEAST_DRIVERS.get(int(cuda.partition(".")[0]), max(LEAST_DRIVERS.values()))
    if driver is not None and int(driver.partition(".")[0]) >= needed:
        return (
            f"{found}, but PyTorch {torch.__version__} finds no CUDA device, though the driver is new enough "
            f"for CUDA {cuda}: let nvidia-smi and the container's settings tell why, {cpu}"
        )
    return (
        f"{found}, but PyTorch {torch.__version__} is built for CUDA {cuda}, which needs driver {needed} or "
        f"newer: install one, or {older}, {cpu}"
    )


def driver_version() -> str | None:
    """The driver's version, such as 535.104.05, as nvidia-smi or else the kernel module has it."""
    lines = gl.nvidia_smi("--query-gpu=driver_version", "--format=csv,noheader").splitlines()
    text = lines[0] if lines else ""
    if not text and _KERNEL_MODULE.is_file():
        text = _KERNEL_MODULE.read_text(errors="replace")
    version = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", text)
    return version[0] if version else None


def training_gpu(device: str) -> gl.Gpu | None:
    """The GPU behind a device such as cuda or cuda:1, as CUDA's driver knows it; None for the CPU."""
    kind, _, number = device.partition(":")
    if kind != "cuda":
        return None
    index = int(number) if number else torch.cuda.current_device()
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    address = ctypes.create_string_buffer(32)
    handle = ctypes.c_int()
    # PyTorch numbers GPUs as the driver does in this process. Each call answers 0 if it succeeds.
    if (
        driver.cuInit(0)
        or driver.cuDeviceGet(ctypes.byref(handle), index)
        or driver.cuDeviceGetPCIBusId(address, len(address), handle)
    ):
        return None
    everything = "CUDA_VISIBLE_DEVICES" not in os.environ
    return gl.Gpu(address.value.decode().lower(), index if everything else None)
