"""The training device: what `auto` means on it, its switches, its name, its random generators."""

import ctypes
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from common.config.schema import Config
from common.errors import UserError
from common.rl.cuda_graphs import GRAPHS
from common.run.nvidia import unusable_gpu

STAT = Path("/proc/stat")


def resolve_auto(config: Config, announce: Callable[[str], None] = lambda _: None) -> Config:
    """The configuration with device, compile, amp, channels_last, threads and optim.fused decided.

    On a CPU they are what updates took least processor time with; on a GPU they are not measured yet.
    `announce` gets what a person should know who wonders about the number of threads.

    Raises:
        UserError: the device does not exist here, or PyTorch cannot use the machine's GPU.
    """
    device = config.device
    if device != "cpu" and (obstacle := unusable_gpu()):
        raise UserError(f"device={device}: {obstacle}")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        remedy = "device=cpu compile=eager" if config.compile in GRAPHS else "device=cpu"
        raise UserError(f"device={device}: this machine's PyTorch finds no CUDA device; use {remedy}")
    cuda = device.startswith("cuda")
    chosen = {
        "device": device,
        "compile": ("graphs" if cuda else "eager") if config.compile == "auto" else config.compile,
        "amp": ("bf16" if bf16_is_fast(cuda) else "off") if config.amp == "auto" else config.amp,
        "channels_last": True if config.channels_last == "auto" else config.channels_last,
        "threads": free_threads(device, announce) if config.threads == "auto" else config.threads,
        "optim": config.optim.model_copy(
            update={"fused": True if config.optim.fused == "auto" else config.optim.fused}
        ),
    }
    return config.model_copy(update=chosen)


def for_trained(config: Config) -> Config:
    """`resolve_auto` for an agent that learns no more: nothing compiled, the CPU if its GPU is not here."""
    instead: dict[str, Any] = {"compile": "eager"}
    if config.device.startswith("cuda") and not torch.cuda.is_available():
        print(f"this machine's PyTorch finds no CUDA device: cpu instead of {config.device}", file=sys.stderr)
        instead["device"] = "cpu"
    if config.threads == "auto":  # of a run that began before there was such a key
        instead["threads"] = torch.get_num_threads()
    return resolve_auto(config.model_copy(update=instead))


def device_name(config: Config) -> str:
    """The device as a person knows it."""
    if config.device.startswith("cuda"):
        return torch.cuda.get_device_name(config.device)
    return f"CPU, {torch.get_num_threads()} threads"


def random_state(device: torch.device) -> dict[str, Any]:
    """PyTorch's global generators, which action noise, policy noise, shifts and Kornia draw from."""
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def load_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Take up a `random_state`; a GPU's generator stays as it is after a run on a CPU."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and isinstance(state["cuda"], torch.Tensor):
        torch.cuda.set_rng_state(state["cuda"], device)


def out_of_memory(error: Exception) -> bool:
    """Whether NumPy, or PyTorch on either kind of device, could not allocate."""
    kinds = (MemoryError, torch.cuda.OutOfMemoryError)
    return isinstance(error, kinds) or "can't allocate memory" in str(error)


def bf16_is_fast(cuda: bool) -> bool:
    """Whether the device multiplies bfloat16 in hardware."""
    if cuda:
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def apply_switches(config: Config) -> None:
    """Set the process's switches: memory reuse and threads on a CPU; which GPU, and TensorFloat-32 there."""
    if (device := torch.device(config.device)).index is not None:
        torch.cuda.set_device(device)
    torch.backends.cuda.matmul.allow_tf32 = config.tf32
    torch.backends.cudnn.allow_tf32 = config.tf32
    torch.backends.cudnn.benchmark = config.device.startswith("cuda")
    if config.device == "cpu" and sys.platform == "linux":
        keep_freed_memory()
    if config.device == "cpu" and config.threads != "auto" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(config.threads, len(os.sched_getaffinity(0))))


def free_threads(device: str, announce: Callable[[str], None], seconds: float = 1) -> int:
    """How many threads an update should have here and now; looks for `seconds` what other processes use.

    An operation ends with the slowest of its threads. Where one has to share its core, all of them wait, and
    a thread less is faster (docs/performance.md).
    """
    threads, cores = torch.get_num_threads(), os.cpu_count() or 1
    if device != "cpu" or threads == 1 or "OMP_NUM_THREADS" in os.environ:
        return threads
    others = busy_cores(seconds)
    free = min(threads, max(1, round(cores - others)))
    if free < threads:
        announce(
            f"other processes use {others:.1f} of {cores} cores: threads={free} for the whole of this run, "
            f"whose update has {threads} where nothing else runs"
        )
    return free


def busy_cores(seconds: float) -> float:
    """How many cores are in use on this machine while this thread sleeps; 0 where Linux does not tell."""
    try:
        before = _ticks()
        time.sleep(seconds)
        busy, idle = (now - then for now, then in zip(_ticks(), before, strict=True))
    except (OSError, ValueError):
        return 0.0
    return (os.cpu_count() or 1) * busy / max(1, busy + idle)


def _ticks() -> tuple[int, int]:
    """Processor time of all cores since the machine started, in use and idle."""
    _, *ticks = STAT.read_text(encoding="ascii").splitlines()[0].split()
    user, nice, system, idle, waiting, *others = map(int, ticks[:8])  # those behind are in user and nice
    return user + nice + system + sum(others), idle + waiting


def keep_freed_memory() -> None:
    """Let glibc reuse the memory of freed tensors instead of returning it to the kernel.

    By default every activation of some megabytes is mapped anew on each update, and clearing its pages
    took a third of SAC's time. Without glibc nothing happens.
    """
    trim_threshold, top_pad, mmap_max = -1, -2, -4  # M_… of malloc.h
    allocator = ctypes.CDLL(None)
    if hasattr(allocator, "mallopt"):
        allocator.mallopt(mmap_max, 0)
        allocator.mallopt(trim_threshold, 2**31 - 1)
        allocator.mallopt(top_pad, 2**28)
