"""What `auto` means on this machine, decided once, before anything is built."""

import ctypes
import sys

import torch

from common.config.schema import Config
from common.errors import UserError


def concrete(config: Config) -> Config:
    """The configuration with device, compile, amp, channels_last and optim.fused decided.

    On a CPU they are what updates took least processor time with; on a GPU they are not measured yet.

    Raises:
        UserError: the device does not exist here.
    """
    device = config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        remedy = "device=cpu compile=eager" if config.compile == "graphs" else "device=cpu"
        raise UserError(f"device={device}: this machine's PyTorch finds no CUDA device; use {remedy}")
    cuda = device.startswith("cuda")
    chosen = {
        "device": device,
        "compile": ("graphs" if cuda else "eager") if config.compile == "auto" else config.compile,
        "amp": ("bf16" if bf16_is_fast(cuda) else "off") if config.amp == "auto" else config.amp,
        "channels_last": True if config.channels_last == "auto" else config.channels_last,
        "optim": config.optim.model_copy(
            update={"fused": True if config.optim.fused == "auto" else config.optim.fused}
        ),
    }
    return config.model_copy(update=chosen)


def for_trained(config: Config) -> Config:
    """`concrete` for an agent that learns no more: nothing compiled, the CPU if its GPU is not here."""
    instead = {"compile": "eager"}
    if config.device.startswith("cuda") and not torch.cuda.is_available():
        print(f"this machine's PyTorch finds no CUDA device: cpu instead of {config.device}", file=sys.stderr)
        instead["device"] = "cpu"
    return concrete(config.model_copy(update=instead))


def bf16_is_fast(cuda: bool) -> bool:
    """Whether the device multiplies bfloat16 in hardware."""
    if cuda:
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def apply_switches(config: Config) -> None:
    """Set the process-wide switches: memory reuse on the CPU; which GPU, and TensorFloat-32 there."""
    if (device := torch.device(config.device)).index is not None:
        torch.cuda.set_device(device)
    torch.backends.cuda.matmul.allow_tf32 = config.tf32
    torch.backends.cudnn.allow_tf32 = config.tf32
    torch.backends.cudnn.benchmark = config.device.startswith("cuda")
    if config.device == "cpu" and sys.platform == "linux":
        keep_freed_memory()


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
