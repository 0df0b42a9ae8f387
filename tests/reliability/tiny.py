"""A run of a second on a task that renders fast: 24 agent steps, 8 of them random, a burst, 4 episodes,
2 evaluations, 5 checkpoints."""

import json
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from signal import SIGKILL, SIGTERM

from common import cli
from tests import runs

__all__ = ["SETTINGS", "SIGTERM", "assert_equal", "kill", "resume", "start", "workers"]

SETTINGS = (
    "train.steps=24",
    "train.random_steps=8",
    "train.burst_updates=5",
    "train.batch=4",
    "train.log_every=1",
    "eval.every=12",
    "eval.shifts=[train]",
    "eval.sheet=false",  # rendering is what these runs spend; the soak's have sheets
    "env.episode_steps=20",
    "env.action_repeat=4",
    "env.image_size=24",
    "network.strides=[2]",
    "data.overlay_bank=2",
    "checkpoint.every=5",
    "wandb.mode=disabled",
)


def start(folder: Path, *overrides: str, agent: str = "sac") -> int:
    """Begin the run in `folder` from the command line; returns the exit status."""
    arguments = ["train", "--agent", agent, "--task", "finger_spin", "--preset", "smoke"]
    return cli.main([*arguments, f"run.dir={json.dumps(str(folder))}", *SETTINGS, *overrides])


def resume(folder: Path, *overrides: str) -> int:
    """Go on with it."""
    return cli.main(["train", "--resume", str(folder), *overrides])


def resume_command(folder: Path) -> str:
    """What a message says that makes it go on."""
    return f"smg train --resume {shlex.quote(str(folder))}"


def assert_equal(folder: Path, other: Path) -> None:
    """Both runs recorded the same, wall-clock times aside."""
    assert runs.metrics(folder) == runs.metrics(other)
    assert runs.evaluations(folder) == runs.evaluations(other)


def workers() -> Iterator[int]:
    """Process numbers of this process's environments."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            command = (process / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == os.getpid() and b"common.envs.worker" in command:
            yield int(process.name)


def kill(*processes: int) -> None:
    """Kill processes of this one outright and wait until they are dead, without taking notice of it."""
    for process in processes:
        os.kill(process, SIGKILL)
        os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
