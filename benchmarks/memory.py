"""Memory of a full replay: bytes per transition, and peaks with every byte really written.

python -m benchmarks.memory --transitions 500000
"""

import resource
from typing import Any

import numpy as np
import torch

from benchmarks.machine import command_line, machine, write_json
from common.data.replay import Replay, check_memory, replay_bytes

EPISODE = 250


def main() -> None:
    """Measure and print."""
    parser = command_line(__doc__)
    parser.add_argument("--transitions", type=int, default=500_000)
    parser.add_argument("--size", type=int, default=84)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    shape = (3, arguments.size, arguments.size)
    computed = replay_bytes(arguments.transitions, shape, 6, EPISODE)
    check_memory(computed, device)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    replay = Replay(
        arguments.transitions, shape, 6, episode_steps=EPISODE, device=device, storage=device, seed=0
    )
    frame = np.full(shape, 127, np.uint8)
    action = np.zeros(6, np.float32)
    for number in range(arguments.transitions):
        if number % EPISODE == 0:
            replay.start_episode(frame)
        replay.add(action, 0.0, frame, terminated=False)
    replay.sample(128)
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    report: dict[str, Any] = {
        "machine": machine(("torch",), arguments.device),
        "transitions": len(replay),
        "computed_bytes": computed,
        "bytes_per_transition": computed / arguments.transitions,
        "peak_host_bytes": host,
        "peak_device_bytes": torch.cuda.max_memory_allocated() if device.type == "cuda" else 0,
    }
    print(
        f"computed {computed / 1e9:.2f} GB, {computed / arguments.transitions / 1000:.2f} kB per transition"
    )
    print(
        f"peak: host {host / 1e9:.2f} GB more than before, device {report['peak_device_bytes'] / 1e9:.2f} GB"
    )
    if arguments.json:
        write_json(report, arguments.json)


if __name__ == "__main__":
    main()
