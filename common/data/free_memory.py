"""How much memory is free on a device, and for this process on the host."""

from collections.abc import Iterator
from pathlib import Path

import torch


def available_memory(device: torch.device) -> int | None:
    """Bytes still free on a CUDA device, or for this process on the host; None where nothing tells.

    On the host a control group's limit (a container's, a scheduler's) counts as well as the machine's.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in lines)
    free = [int(fields["MemAvailable"].split()[0]) * 1024]
    return min(free + list(_control_group_memory()))


def _control_group_memory() -> Iterator[int]:
    """Bytes left under each readable memory limit of this process's control groups (versions 1 and 2)."""
    try:
        groups = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    except OSError:
        return
    for _, controllers, path in groups:
        if controllers and "memory" not in controllers.split(","):
            continue
        root = Path("/sys/fs/cgroup/memory" if controllers else "/sys/fs/cgroup")
        version_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes")
        names = version_1 if controllers else ("memory.max", "memory.current")
        # Inside a container the group's own folder is the mount point itself.
        for folder in (root / path.lstrip("/"), root):
            try:
                limit, used = ((folder / name).read_text().strip() for name in names)
                statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            except (OSError, ValueError):
                continue
            if limit != "max":
                # Cached files count as used but make room on demand.
                yield int(limit) - int(used) + int(statistics.get("inactive_file", 0))
