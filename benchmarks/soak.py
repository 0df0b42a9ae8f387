"""Kills runs with SIGKILL at random moments, resumes them, and compares their records with an unbroken run's,
and what they sent to W&B with their records.

python -m benchmarks.soak [--kills 200] [--seed 0] [--agent smg] [--json results/reliability/soak.json]

Half of the kills, or as `--aimed` says, come a few milliseconds into something that is short but delicate, as
often into each: start-up, an evaluation, its sheet, the burst of updates, a checkpoint. The others come at a
random time after the start. A run that reaches its end is compared and the next begins, with the environment
in a process of its own every other time.
"""

import argparse
import json
import math
import mmap
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch._dynamo  # noqa: F401 - by the optimisers, at a cost
import wandb  # noqa: F401

# All that an attempt imports but MuJoCo, which opens the display, so that forked attempts start at once.
import common.run.build
import common.run.train
import common.run.trainer
import smg.agent  # noqa: F401
from benchmarks.machine import command_line, machine, write_json
from common import cli, gl
from common.run.checkpoint import sha256
from common.run.run_folder import RunFolder
from tests import runs

SETTINGS = (
    "eval.shifts=[train,color_hard]",
    "env.episode_steps=48",
    "train.log_every=2",
    "checkpoint.every=5",
    "wandb.mode=offline",
)
ACTIVITIES = ("start", "act", "update", "burst", "wait", "store", "diagnose", "evaluate", "explain", "save")
DELICATE = ("start", "evaluate", "explain", "burst", "save")
STEPS_TO_SEE = 0.0005  # seconds between two looks at what the run does


def main() -> int:
    parser = command_line(__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--aimed", type=float, default=0.5, help="share of kills at delicate moments")
    parser.add_argument("--agent", default="smg")
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value", help="settings of the run")
    arguments = parser.parse_args()
    gl.select_backend()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = soak(Path(folder), arguments)
    report["minutes"] = round((time.monotonic() - began) / 60, 1)
    report["machine"] = machine(("torch", "mujoco"))
    print(json.dumps(report, indent=2))
    if arguments.json is not None:
        write_json(report, arguments.json)
    return 0 if report["identical"] else 1


def soak(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Kill until there were enough kills and the last run has ended; the figures."""
    moments = random.Random(arguments.seed)
    command = ["train", "--agent", arguments.agent, "--task", "walker_walk", "--preset", "smoke"]
    command += [*SETTINGS, *arguments.overrides]
    began = time.monotonic()
    unbroken = folder / "unbroken"
    attempt = Attempt([*command, f"run.dir={unbroken}"], folder / "log")
    attempt.must_end()
    duration = time.monotonic() - began
    kills: Counter[str] = Counter()  # by what the run was doing
    aimed: Counter[str] = Counter()  # by what the kill was to follow upon
    identical = []
    while kills.total() < arguments.kills and all(identical):
        run = folder / f"run{len(identical)}"
        start = [*command, f"run.dir={run}", f"env.ahead={len(identical) % 2}"]
        ended = False
        while not ended:
            resumable = (run / "config.yaml").exists()
            attempt = Attempt(["train", "--resume", str(run)] if resumable else start, folder / "log")
            # One that was missed, as a busy machine may make it, is wanted again.
            rarest = min(DELICATE, key=lambda name: aimed[name])
            wanted = rarest if moments.random() < arguments.aimed else None
            moment = None
            if kills.total() < arguments.kills:
                moment = wait_for_moment(attempt, moments, duration, wanted)
            if moment is None:
                attempt.must_end()
                ended = True
            else:
                kills[attempt.kill()] += 1
                aimed[moment] += 1
        differing = [name for name, equal in comparison(run, unbroken) if not equal]
        identical.append(not differing)
        print(
            f"{kills.total()} kills, {identical.count(True)} of {len(identical)} runs identical"
            + (f"; this one's {' and '.join(differing)} differ" if differing else ""),
            flush=True,
        )
    return {
        "command": " ".join(["smg", *command]),
        "seed": arguments.seed,
        "kills": kills.total(),
        "kills_during": dict(kills),
        "kills_shortly_after_the_begin_of": dict(aimed),
        "runs": len(identical),
        "runs_identical": identical.count(True),
        "identical": all(identical),
        "lines_compared": len(runs.metrics(unbroken)) + len(runs.evaluations(unbroken)),
    }


def comparison(run: Path, unbroken: Path) -> Iterator[tuple[str, bool]]:
    """What a run recorded, and whether it is what the unbroken run did."""
    yield "metrics", runs.metrics(run) == runs.metrics(unbroken)
    yield "evaluations", runs.evaluations(run) == runs.evaluations(unbroken)
    yield "W&B rows", is_mirrored(run)


def is_mirrored(run: Path) -> bool:
    """Whether W&B's files, those of all sessions together, hold each of the run's records once."""
    files = sorted(run.glob("wandb/offline-run-*/run-*.wandb"))
    rows = [row for file in files for row in runs.wandb_history(file)]
    # W&B describes its copy of a picture, by its checksum among other things.
    described = ("_", "sheet.")
    sent = [{name: value for name, value in row.items() if not name.startswith(described)} for row in rows]
    pictures = [row.get("sheet.sha256") for row in rows]
    with RunFolder(run) as folder:
        records = folder.records()
    sheets = [row.pop("sheet", None) for row in records]
    equal = sent == records and pictures == [sheet and sha256(sheet) for sheet in sheets]
    return equal and len({file.name for file in files}) == 1


@dataclass
class Attempt:
    """`smg` with some arguments, in a forked process whose activity can be seen from here."""

    arguments: list[str]
    log: Path

    def __post_init__(self) -> None:
        self._shared = mmap.mmap(-1, 1)
        self.pid = os.fork()
        if self.pid == 0:
            self._run()

    @property
    def activity(self) -> str:
        """What the run was last seen to begin."""
        return ACTIVITIES[self._shared[0]]

    def ended(self) -> bool:
        """Whether the process has ended on its own; then it must have succeeded."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid == 0:
            return False
        self._check(status)
        return True

    def must_end(self) -> None:
        """Wait for the process, unless it was seen to end, and fail unless it succeeded."""
        if self.pid > 0:
            self._check(os.waitpid(self.pid, 0)[1])

    def kill(self) -> str:
        """Kill the process outright; returns what it was doing."""
        activity = self.activity
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        return activity

    def _check(self, status: int) -> None:
        self.pid = 0
        if status != 0:
            sys.exit(f"smg {' '.join(self.arguments)} ended with {status}:\n{self.log.read_text()}")

    def _run(self) -> None:
        status = 70
        try:
            descriptor = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            shared = self._shared

            class SeenClock(common.run.trainer.Clock):
                def __call__(self, name: str) -> Any:
                    if (ACTIVITIES[shared[0]], name) != ("burst", "update"):
                        shared[0] = ACTIVITIES.index(name)
                    return super().__call__(name)

            class SeenConsole(common.run.train.Console):
                def burst(self, done: int, of: int) -> None:
                    shared[0] = ACTIVITIES.index("burst")
                    super().burst(done, of)

            common.run.trainer.Clock, common.run.train.Console = SeenClock, SeenConsole
            status = cli.main(self.arguments)
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)


def wait_for_moment(
    attempt: Attempt, moments: random.Random, duration: float, wanted: str | None
) -> str | None:
    """Wait for a random moment of the attempt, or for one shortly after the `wanted` activity began.

    Returns that activity, "anything" if none was wanted; None if the run ended before.
    """
    deadline = math.inf if wanted else time.monotonic() + moments.uniform(0, duration / 3)
    while attempt.activity != wanted and time.monotonic() < deadline:
        if attempt.ended():
            return None
        time.sleep(STEPS_TO_SEE)
    if wanted is not None:
        time.sleep(moments.uniform(0, 0.05 if wanted != "start" else 1))
    return None if attempt.ended() else wanted or "anything"


if __name__ == "__main__":
    sys.exit(main())
