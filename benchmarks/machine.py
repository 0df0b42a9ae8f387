"""What every benchmark shares: its command line, and where its figures come from."""

import argparse
import json
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from common.run.run_folder import git_commit


def command_line(description: str | None) -> argparse.ArgumentParser:
    """A parser with what every benchmark takes; `description` is its module's docstring."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    return parser


def clock(device: str) -> float:
    """Seconds: of processors that this process has used, or on a GPU of time, with its work done."""
    if not on_gpu(device):
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def machine(packages: tuple[str, ...], device: str = "cpu") -> dict[str, Any]:
    """Processor, cores this process may use, commit, and versions of Python and of `packages`.

    And the GPU with its version of CUDA, if `device` is one.
    """
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "commit": git_commit(),
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
        **({"gpu": torch.cuda.get_device_name(device), "cuda": torch.version.cuda} if on_gpu(device) else {}),
    }


def on_gpu(device: str) -> bool:
    """Whether this is a GPU, whose work must be waited for to be timed."""
    return device.startswith("cuda")


def write_json(report: dict[str, Any], path: Path) -> None:
    """Write a report where `--json` says, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n")
