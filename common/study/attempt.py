"""One attempt at one run: `smg train` in a process of its own, under a claim that no other can share."""

import contextlib
import fcntl
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from threading import Event

from common.config.loading import CONFIGS
from common.errors import UserError
from common.study.definition import PlannedRun
from common.study.folders import ATTEMPTS, CLAIM, LOG, TRAINING, State, locked, read

PATIENCE = 300
"""Seconds that a run asked to stop has for saving."""


def attempt(run: PlannedRun, stopping: Event, environment: Mapping[str, str]) -> int | None:
    """Begin or resume a run, unless it is done already, and wait for its trainer.

    What the trainer prints goes to train.log, and how it ended to attempts.jsonl. It is asked to save and
    stop when `stopping` is set, when this function is interrupted, and when this process dies.

    Args:
        run: the run.
        stopping: asks for the end.
        environment: variables on top of this process's.

    Returns:
        The trainer's exit status, negative for a signal; None if another process is at work on the run.

    Raises:
        UserError: the run's folder cannot be made or written.
    """
    with _claim(run) as claimed:
        if not claimed:
            return None
        # Looked at under the claim: whoever held it before may have finished the run.
        if read(run, claimed=True).state is State.DONE:
            return 0
        started = time.time()
        trainer = _start(run, environment)
        try:
            while trainer.poll() is None and not stopping.wait(0.2):
                pass
        finally:
            status = _stop(trainer)
            _record(run, status, time.time() - started)
        return status


@contextlib.contextmanager
def _claim(run: PlannedRun) -> Iterator[bool]:
    """Whether the run is this attempt's; others see the claim while the context lasts."""
    try:
        run.folder.mkdir(parents=True, exist_ok=True)
        file = (run.folder / CLAIM).open("ab")
    except OSError as error:
        raise UserError(
            f"run folder {run.folder} cannot be written ({error.strerror}): set another folder="
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            claimed = True
        except OSError:
            claimed = False
        # A trainer may have outlived the study that started it.
        yield claimed and not locked(run.folder / TRAINING)


def _start(run: PlannedRun, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    variables = os.environ | environment
    # The package may stand in a checkout that is not installed.
    paths = (str(CONFIGS.parent), variables.get("PYTHONPATH", ""))
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    tether = (sys.executable, "-m", "common.study.tether", str(os.getpid()))
    with (run.folder / LOG).open("ab") as log:
        return subprocess.Popen(
            (*tether, "train", *run.arguments),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=variables,
            # Ctrl-C is the study's to handle; it asks the trainer once.
            start_new_session=True,
        )


def _stop(trainer: subprocess.Popen[bytes]) -> int:
    """The exit status of the trainer, which is asked to save and stop if it still runs."""
    if trainer.poll() is None:
        trainer.terminate()
    try:
        return trainer.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        trainer.kill()
        return trainer.wait()


def _record(run: PlannedRun, status: int, seconds: float) -> None:
    ended = datetime.now(UTC).isoformat(timespec="seconds")
    record = {"status": status, "seconds": round(seconds, 1), "ended": ended, "host": socket.gethostname()}
    with contextlib.suppress(OSError), (run.folder / ATTEMPTS).open("a") as attempts:
        attempts.write(json.dumps(record) + "\n")
