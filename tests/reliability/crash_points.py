"""Kills a process at every single file operation of a save, and says what the checkpoint folder then holds.

python -m tests.reliability.crash_points FOLDER prints a list: per crash point the agent step of the
checkpoint that loads then, of the one that loads after the next save, and which files are there.
"""

import json
import os
import shutil
import signal
import stat
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.data.replay import Replay
from common.rl.batch import Batch
from common.run import checkpoint

OLDER, OLD, NEW, NEXT = 500, 1000, 1030, 1031
"""Agent steps of the two checkpoints that are there, of the save that is killed, and of the one after it.

That save ends one file of 512 frames and begins another."""


def replay_at(step: int) -> Replay:
    """A replay after `step` transitions, whose content follows from their numbers."""
    device = torch.device("cpu")
    replay = Replay(2000, (3, 4, 4), 1, episode_steps=100, device=device, storage=device, seed=0)
    if step:
        replay.start_episode(frame(0))
        extend(replay, 0, step)
    return replay


def extend(replay: Replay, first: int, last: int) -> None:
    """Add the transitions number `first` to `last`, the latter excluded."""
    for number in range(first, last):
        replay.add(np.full(1, number % 7 / 7, np.float32), float(number), frame(number + 1), False)


def frame(number: int) -> np.ndarray:
    return np.full((3, 4, 4), number % 251, np.uint8)


def state_at(step: int) -> dict[str, Any]:
    return {"step": step, "weights": torch.full((7, 5), float(step))}


def found(folder: Path) -> int:
    """The agent step of the checkpoint that loads, after a look at its state and all of its replay."""
    replay = replay_at(0)
    state, _ = checkpoint.load(folder, replay)
    step = state["step"]
    assert len(replay) == step
    assert torch.equal(state["weights"], state_at(step)["weights"])
    batch, expected = replay.newest(step), content_at(step)
    for name in ("obs", "action", "reward", "next_obs", "not_done"):
        assert torch.equal(getattr(batch, name), getattr(expected, name)), (step, name)
    return step


@cache
def content_at(step: int) -> Batch:
    """All transitions of `replay_at(step)`, in order."""
    return replay_at(step).newest(step)


def go_on_and_save(folder: Path, step: int) -> None:
    """What a run does that takes up the newest checkpoint and saves the next at `step`."""
    replay = replay_at(0)
    state, problem = checkpoint.load(folder, replay)
    if problem:
        checkpoint.fall_back(folder)
    extend(replay, state["step"], step)
    checkpoint.save(folder, step, state_at(step), replay)


def killed_at(point: int, folder: Path) -> bool:
    """Save in a process that is killed before its file operation number `point`; False if it has fewer."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            kill_self_at(point)
            go_on_and_save(folder, NEW)
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or status == 0
    return os.WIFSIGNALED(status)


def kill_self_at(point: int) -> None:
    operations = 0

    def count() -> bool:
        nonlocal operations
        operations += 1
        return operations == point

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        writing = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if (writing or event in ("os.rename", "os.remove", "os.mkdir")) and count():
            os.kill(os.getpid(), signal.SIGKILL)

    fsync = os.fsync

    def counted_fsync(descriptor: int) -> None:
        if count():
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode):
                os.ftruncate(descriptor, status.st_size // 2)  # it had got no further in writing
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(descriptor)

    os.fsync = counted_fsync
    sys.addaudithook(watch)


def main(work: Path) -> None:
    # A forked process has none of its parent's OpenMP threads and would wait for them for ever.
    torch.set_num_threads(1)
    outcomes = []
    for damaged in (False, True):
        original = work / f"damaged-{damaged}"
        checkpoint.save(original, OLDER, state_at(OLDER), replay_at(OLDER))
        go_on_and_save(original, OLD)
        if damaged:
            [newest] = original.glob(f"state-{OLD}-*")
            newest.write_bytes(b"damaged")
        point = 0
        killed = True
        while killed:
            point += 1
            folder = work / "copy"
            shutil.copytree(original, folder)
            killed = killed_at(point, folder)
            outcome = {"damaged": damaged, "killed": killed, "after_kill": found(folder)}
            go_on_and_save(folder, NEXT)
            outcome["after_save"] = found(folder)
            outcome["states"] = sorted(path.name.split("-")[1] for path in folder.glob("state-*.pt"))
            outcome["leftovers"] = [p.name for p in folder.rglob("*") if p.suffix in (".tmp", ".partial")]
            outcomes.append(outcome)
            shutil.rmtree(folder)
    json.dump(outcomes, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
