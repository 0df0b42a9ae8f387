"""One attempt at one run: `smg train` in a process of its own, under a claim that no other can share."""

import contextlib
import fcntl
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime

from common.config.loading import CONFIGS, RESOLVED_NAME
from common.errors import UserError
from common.study.definition import PlannedRun
from common.study.folders import ATTEMPTS, CLAIM, LOG, TRAINING, State, locked, read

PATIENCE = 300
"""Seconds that a run asked to stop has for saving."""


class Claimed(Exception):
    """Another process is at work on the run."""


class Attempt:
    """Begins or resumes a run, unless it is done already.

    The claim is a lock on a file of the run's folder. The trainer inherits it, so the run stays claimed while
    either lives. What the trainer prints goes to train.log, and how it ended to attempts.jsonl.

    Args:
        run: the run.
        environment: variables on top of this process's.

    Raises:
        Claimed: another process is at work on it.
        UserError: its folder cannot be made or written.
    """

    def __init__(self, run: PlannedRun, environment: Mapping[str, str] | None = None) -> None:
        self.run = run
        self._process: subprocess.Popen[bytes] | None = None
        self._status: int | None = None
        self._started = time.time()
        try:
            run.folder.mkdir(parents=True, exist_ok=True)
            self._claim = (run.folder / CLAIM).open("ab")
        except OSError as error:
            raise UserError(
                f"run folder {run.folder} cannot be written ({error.strerror}): set another folder="
            ) from error
        try:
            fcntl.flock(self._claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._claim.close()
            raise Claimed(run.name) from error
        if locked(run.folder / TRAINING):
            self._claim.close()
            raise Claimed(run.name)
        # Looked at under the claim: whoever held it before may have finished the run.
        if read(run, claimed=True).state is State.DONE:
            self._status = 0
            self._claim.close()
            return
        self._start(dict(os.environ) | dict(environment or {}))

    def poll(self, timeout: float) -> int | None:
        """The trainer's exit status, or None if it still runs after `timeout` seconds."""
        if self._process is not None and self._status is None:
            try:
                self._end(self._process.wait(timeout))
            except subprocess.TimeoutExpired:
                return None
        return self._status

    def stop(self) -> None:
        """Ask the trainer to save and stop, and wait for it."""
        if self._process is None or self._status is not None:
            return
        self._process.terminate()
        try:
            self._end(self._process.wait(PATIENCE))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._end(self._process.wait())

    def _start(self, environment: dict[str, str]) -> None:
        resumed = (self.run.folder / RESOLVED_NAME).exists()
        arguments = ["--resume", str(self.run.folder)] if resumed else list(self.run.arguments)
        if resumed and self.run.foreign_code:
            arguments.append("--allow-code")
        tether = [sys.executable, "-m", "common.study.tether", str(os.getpid())]
        # The package may stand in a checkout that is not installed.
        paths = [str(CONFIGS.parent), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        with (self.run.folder / LOG).open("ab") as log:
            self._process = subprocess.Popen(
                [*tether, *trainer(), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                pass_fds=(self._claim.fileno(),),
                # Ctrl-C is the study's to handle; it asks the trainer once.
                start_new_session=True,
            )

    def _end(self, status: int) -> None:
        self._status = status
        record = {
            "status": status,
            "seconds": round(time.time() - self._started, 1),
            "ended": datetime.now(UTC).isoformat(timespec="seconds"),
            "host": socket.gethostname(),
        }
        with contextlib.suppress(OSError), (self.run.folder / ATTEMPTS).open("a") as attempts:
            attempts.write(json.dumps(record) + "\n")
        self._claim.close()


def trainer() -> list[str]:
    """The command of `smg train`, in this Python."""
    return [sys.executable, "-m", "common.cli", "train"]
