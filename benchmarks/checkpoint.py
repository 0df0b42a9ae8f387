"""How long a checkpoint stops training, and how long a resume takes to read it, by the size of the replay.

python -m benchmarks.checkpoint [--gigabytes 2] [--rounds 5] [--json results/reliability/checkpoint.json]

The agent is SMG with the paper's networks after an update; the replay holds random frames. Between two
saves come as many new transitions as 10 minutes bring at 20 agent steps per second.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.machine import command_line, machine, write_json
from common.config.loading import load
from common.config.schema import Config
from common.data.replay import Replay
from common.run import checkpoint
from common.run.build import build_agent, build_images
from common.run.derived import episode_length
from common.run.device import resolve_auto

NEW_TRANSITIONS = 12_000
ACTION_SIZE = 6


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--gigabytes", type=float, default=2, help="of frames")
    parser.add_argument("--rounds", type=int, default=5, help="of incremental saves; the median counts")
    parser.add_argument(
        "--folder", type=Path, help="on the disk to measure; by default that of temporary files"
    )
    arguments = parser.parse_args()
    config = resolve_auto(
        # The replay on the CPU too: what is measured is the disk.
        load("smg", "walker_walk", "paper", overrides=["device=cpu", "train.batch=4", "data.overlay_bank=16"])
    )
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        report = measure(config, Path(folder), arguments.gigabytes, arguments.rounds)
    report["machine"] = machine(("torch",))
    print(json.dumps(report, indent=2))
    if arguments.json is not None:
        write_json(report, arguments.json)


def measure(config: Config, folder: Path, gigabytes: float, rounds: int) -> dict[str, Any]:
    """Seconds and bytes of the first save, of later ones, of one without the replay, and of a load."""
    random = np.random.default_rng(0)
    first = int(gigabytes * 1e9 / (84 * 84 * 3))
    replay = new_replay(config, first + rounds * NEW_TRANSITIONS)
    replay.start_episode(random.integers(0, 256, (3, 84, 84), np.uint8))
    fill(replay, first, random)
    agent = build_agent(config, ACTION_SIZE, build_images(config))
    agent.update(replay.sample(config.train.batch), 0)  # its optimisers now have their state
    state = {"agent": agent.state_dict()}

    def save(step: int, kept: Replay | None = replay) -> float:
        return seconds(lambda: checkpoint.save(folder / "checkpoint", step, state, kept))

    without = seconds(lambda: checkpoint.save(folder / "without", 0, state, None))
    first_save = save(0)
    size = written(folder / "checkpoint")
    later, added = [], []
    for step in range(1, rounds + 1):
        fill(replay, NEW_TRANSITIONS, random)
        before = written(folder / "checkpoint")
        later.append(save(step))
        added.append(written(folder / "checkpoint") - before)
    resumed = new_replay(config, first + rounds * NEW_TRANSITIONS)
    loading = seconds(lambda: checkpoint.load(folder / "checkpoint", resumed))
    return {
        "replay_gigabytes": gigabytes,
        "first_save_seconds": round(first_save, 2),
        "first_save_gigabytes": round(size / 1e9, 3),
        "new_transitions": NEW_TRANSITIONS,
        "later_save_seconds": round(statistics.median(later), 2),
        "later_save_longest_seconds": round(max(later), 2),
        "later_save_gigabytes": round(statistics.median(added) / 1e9, 3),
        "save_without_replay_seconds": round(without, 2),
        "save_without_replay_gigabytes": round(written(folder / "without") / 1e9, 3),
        "load_seconds": round(loading, 2),
    }


def new_replay(config: Config, capacity: int) -> Replay:
    device = torch.device("cpu")
    return Replay(
        capacity,
        (3, 84, 84),
        ACTION_SIZE,
        episode_steps=episode_length(config),
        device=device,
        storage=device,
        seed=0,
    )


def fill(replay: Replay, count: int, random: np.random.Generator) -> None:
    """Add transitions of incompressible frames."""
    frames = random.integers(0, 256, (512, 3, 84, 84), np.uint8)
    for number in range(count):
        replay.add(
            np.zeros(ACTION_SIZE, np.float32), 0.0, np.roll(frames[number % 512], number // 512), False
        )


def seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def written(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
