"""Runs of a study on a Ray cluster: several share a GPU, and those of a lost node go on elsewhere.

Folders must lie on a file system that all nodes share, and this package must be installed on each.
"""

import importlib
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from typing import Any

from common.errors import UserError
from common.study import attempt as attempts
from common.study.definition import PlannedRun, Resources
from common.study.runner import Lost

PATIENCE = 20
"""Seconds that a cluster has to answer."""
FORWARDED = ("SMG_DATA", "SMG_OVERLAY", "MUJOCO_GL", "PYTHONPATH")
"""Environment variables that runs get as they are here."""
_OWN = {"include_dashboard": False, "object_store_memory": 100_000_000}
"""Of a cluster started here: nobody looks at it, and what passes through it is an exit status per run."""


class RayEngine:
    """Attempts as Ray tasks.

    Args:
        address: host:port of a cluster's head, or `auto` for the one this machine belongs to; None starts one
            here.
        resources: what each run asks for.

    Raises:
        UserError: Ray is not installed, does not start here, the cluster does not answer, or no node has what
            a run asks for.
    """

    def __init__(self, address: str | None, resources: Resources) -> None:
        try:
            # An extra, whose types are not there to check against.
            self._ray: Any = importlib.import_module("ray")
        except ImportError as error:
            raise UserError("--engine ray needs Ray: pip install 'smg-sgqn[cluster]'") from error
        # Nothing about a study leaves the cluster.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if address is None:
            self._init("Ray could not start here", address="local", **_OWN)
        else:
            _check_address(address)
            self._init(f"--address {address}: Ray could not connect", address=address)
        self.slots = self._slots(resources)
        if self.slots == 0:
            asked = f"{resources.gpus:g} GPUs, {resources.cpus:g} cores"
            asked += f", {resources.memory:g} GB" if resources.memory else ""
            self.close()
            raise UserError(
                f"no node of the Ray cluster has what a run asks for ({asked}): lower resources.gpus, "
                "resources.cpus or resources.memory"
            )
        options: dict[str, Any] = {"num_cpus": resources.cpus, "num_gpus": resources.gpus, "max_retries": 0}
        if resources.memory:
            options["memory"] = int(resources.memory * 1e9)
        self._task: Any = self._ray.remote(**options)(attempt)
        self._environment = {name: os.environ[name] for name in FORWARDED if name in os.environ}
        self._runs: dict[Any, PlannedRun] = {}

    def start(self, run: PlannedRun) -> bool:
        """Hand the run to Ray, which waits for room; always True."""
        # Workers may stand in another folder.
        sent = replace(run, folder=run.folder.absolute())
        self._runs[self._task.remote(sent, self._environment)] = run
        return True

    def ended(self, timeout: float) -> list[tuple[PlannedRun, int | Exception]]:
        """Attempts that ended, with their exit status, `Lost` or the error in the task."""
        if not self._runs:
            return []
        done, _ = self._ray.wait(list(self._runs), num_returns=len(self._runs), timeout=timeout)
        return [(self._runs.pop(reference), self._outcome(reference)) for reference in done]

    def stop(self) -> None:
        """Ask all attempts to save and stop, and wait for them."""
        for reference in self._runs:
            self._ray.cancel(reference)
        # Longer than an attempt waits before it kills.
        self._ray.wait(list(self._runs), num_returns=len(self._runs), timeout=attempts.PATIENCE + 10)

    def close(self) -> None:
        """Leave the cluster, or end the one started here."""
        self._ray.shutdown()

    def _init(self, failure: str, **options: Any) -> None:
        try:
            self._ray.init(log_to_driver=False, logging_level="error", **options)
        except Exception as error:  # Ray raises bare ones, such as for a node that starts too slowly
            raise UserError(f"{failure} ({_first_line(error)})") from error

    def _outcome(self, reference: Any) -> int | Exception:
        errors = self._ray.exceptions
        lost = (
            errors.NodeDiedError,
            errors.WorkerCrashedError,
            errors.LocalRayletDiedError,
            errors.ObjectLostError,
        )
        try:
            return self._ray.get(reference)
        except lost as error:
            return Lost(f"the node or worker was lost ({type(error).__name__})")
        except errors.OutOfMemoryError:
            return RuntimeError("Ray stopped it because the node's memory was full: raise resources.memory")
        except errors.RayTaskError as error:
            return RuntimeError(f"its task failed ({_first_line(error.cause)})")
        except errors.RayError as error:
            return RuntimeError(_first_line(error))

    def _slots(self, resources: Resources) -> int:
        """How many runs the nodes have room for together."""
        total = 0
        for node in self._ray.nodes():
            if node["Alive"]:
                has = node["Resources"]
                room = [has.get("CPU", 0) / resources.cpus]
                if resources.gpus:
                    room.append(has.get("GPU", 0) / resources.gpus)
                if resources.memory:
                    room.append(has.get("memory", 0) / (resources.memory * 1e9))
                total += int(min(room))
        return total


def attempt(run: PlannedRun, environment: dict[str, str]) -> int:
    """The task: one attempt, after whoever else holds the run has ended; cancelling it stops the trainer."""
    while True:
        try:
            going = attempts.Attempt(run, environment)
            break
        except attempts.Claimed:
            # Most likely the trainer of a lost worker, which is saving.
            time.sleep(1)
    try:
        while (status := going.poll(1)) is None:
            pass
        return status
    finally:
        going.stop()


def _check_address(address: str) -> None:
    """Refuse a cluster that does not answer; Ray itself would try for minutes and print pages.

    Raises:
        UserError: it is not host:port, nothing listens there, or what listens is no Ray cluster.
    """
    command = [sys.executable, "-m", "ray.scripts.scripts", "status"]
    if address != "auto":
        host, colon, port = address.rpartition(":")
        if not colon or not port.isdecimal() or "/" in host:
            raise UserError(f"--address {address}: should be host:port of the Ray head, or auto")
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
        except (OSError, OverflowError) as error:
            raise UserError(
                f"--address {address}: no Ray cluster answers there ({error}); ray start --head begins one"
            ) from error
        command += ["--address", address]
    try:
        answered = subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        answered = False
    if not answered:
        raise UserError(
            f"--address {address}: no Ray cluster of this version answers there within {PATIENCE} s"
        )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
