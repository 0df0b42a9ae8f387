"""Runs of a study on a Ray cluster: several share a GPU, and those of a lost node go on elsewhere.

Folders must lie on a file system that all nodes share, and this package must be installed on each.
"""

import importlib
import os
import socket
import subprocess
import sys
from dataclasses import replace
from threading import Event
from typing import Any

from common.errors import UserError
from common.study.attempt import attempt as local_attempt
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
        asked = {"CPU": resources.cpus, "GPU": resources.gpus, "memory": 1e9 * (resources.memory or 0)}
        self.slots = self._room(asked)
        if self.slots == 0:
            self.close()
            memory = f", {resources.memory:g} GB" if resources.memory else ""
            raise UserError(
                f"no node of the Ray cluster has what a run asks for ({resources.gpus:g} GPUs, "
                f"{resources.cpus:g} cores{memory}): lower resources.gpus, resources.cpus or resources.memory"
            )
        options = {"num_cpus": asked["CPU"], "num_gpus": asked["GPU"], "memory": int(asked["memory"]) or None}
        self._task: Any = self._ray.remote(**options, max_retries=0)(_task)
        self._environment = {name: os.environ[name] for name in FORWARDED if name in os.environ}

    def attempt(self, run: PlannedRun, stopping: Event) -> int | None:
        """`common.study.attempt.attempt` on the node that Ray chooses when there is room.

        Raises:
            Lost: the node or the worker is gone.
            RuntimeError: something else befell the task.
        """
        # Workers may stand in another folder.
        task = self._task.remote(replace(run, folder=run.folder.absolute()), self._environment)
        while not self._ray.wait([task], timeout=1)[0]:
            if stopping.is_set():
                # Once, for it interrupts the attempt, which then waits until the run is saved.
                self._ray.cancel(task)
                self._ray.wait([task])
        return self._outcome(task)

    def close(self) -> None:
        """Leave the cluster, or end the one started here."""
        self._ray.shutdown()

    def _init(self, failure: str, **options: Any) -> None:
        try:
            self._ray.init(log_to_driver=False, logging_level="error", **options)
        except Exception as error:  # Ray raises bare ones, such as for a node that starts too slowly
            raise UserError(f"{failure} ({_first_line(error)})") from error

    def _outcome(self, task: Any) -> int | None:
        errors = self._ray.exceptions
        lost = (
            errors.NodeDiedError,
            errors.WorkerCrashedError,
            errors.LocalRayletDiedError,
            errors.ObjectLostError,
        )
        try:
            return self._ray.get(task)
        except lost as error:
            raise Lost(f"the node or worker was lost ({type(error).__name__})") from error
        except errors.OutOfMemoryError as error:
            raise RuntimeError(
                "Ray stopped it because the node's memory was full: raise resources.memory"
            ) from error
        except errors.RayTaskError as error:
            raise RuntimeError(f"its task failed ({_first_line(error.cause)})") from error
        except errors.RayError as error:
            raise RuntimeError(_first_line(error)) from error

    def _room(self, asked: dict[str, float]) -> int:
        """How many runs the nodes have room for together."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        return sum(
            int(min(node.get(name, 0) / amount for name, amount in asked.items() if amount)) for node in nodes
        )


def _task(run: PlannedRun, environment: dict[str, str]) -> int | None:
    return local_attempt(run, Event(), environment)


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
