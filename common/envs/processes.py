"""Environments beside the learner: one that trains, many that evaluate.

Both run in processes of their own or in the caller's, with equal numbers.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from multiprocessing import Pipe
from typing import Any, NamedTuple, Protocol

import numpy as np

from common import gl
from common.envs.host import Host, Shapes, shared_observations
from common.errors import UserError

CLOSE_SECONDS = 10
ANSWER_SECONDS = 150
"""How long a request of milliseconds may stay unanswered, twice: the machine may sleep through one."""
MAX_RENDER_THREADS = 4


class EnvironmentDied(Exception):
    """A process that holds environments has ended or hangs, or its simulation has failed."""


class SimulationFailed(EnvironmentDied):
    """The simulation raised an error, which it would do again from the same state."""


class Step(NamedTuple):
    """What one environment answers to an action."""

    obs: np.ndarray  # uint8 (3 * frames, H, W)
    reward: float
    terminated: bool
    truncated: bool
    info: dict[str, Any]


class PoolStep(NamedTuple):
    """What n environments answer to their actions."""

    obs: np.ndarray  # uint8 (n, 3 * frames, H, W)
    rewards: np.ndarray  # float64 (n,)
    terminated: np.ndarray  # bool (n,)
    truncated: np.ndarray  # bool (n,)
    infos: list[dict[str, Any]]


class TrainingEnv:
    """One BenchmarkEnv that steps while the caller computes: `send` an action, later `receive` the step.

    Args:
        arguments: of the BenchmarkEnv.
        own_process: step in a process of its own, else inside `receive`. The numbers are the same.

    Raises:
        UserError: as BenchmarkEnv.
        EnvironmentDied: the process ended, or was killed because it hung, as renderers can. Every method may
            raise it; `restart` starts another.
    """

    def __init__(self, arguments: dict[str, Any], own_process: bool) -> None:
        self._arguments = arguments
        self._own_process = own_process
        self._host = self._start()

    def _start(self) -> "_Server":
        if not self._own_process:
            return _Here([self._arguments])
        server = _Child([self._arguments], render_threads(processes=1))
        try:
            server.wait_until_ready()
        except BaseException:
            server.close()
            raise
        return server

    @property
    def action_size(self) -> int:
        """Values per action."""
        return self._host.shapes.action_size

    @property
    def obs_shape(self) -> tuple[int, ...]:
        """(3 * frames, H, W)."""
        return self._host.shapes.observations[1:]

    def reset(self, options: dict[str, Any] | None = None) -> np.ndarray:
        """Begin an episode; its first observation, uint8 (3 * frames, H, W)."""
        self._host.send("reset", [(0, options)])
        self._host.receive()
        return self._host.observations[0].copy()

    def send(self, action: np.ndarray) -> None:
        """Hand over an action (A,). `receive` must follow before anything else."""
        self._host.send("step", [(0, action)])

    def receive(self) -> Step:
        """Wait for the step of the action sent."""
        [result] = self._host.receive()
        return Step(self._host.observations[0].copy(), *result)

    def state_dict(self) -> dict[str, Any]:
        """The environment's state, for continuing bit for bit; not between `send` and `receive`."""
        self._host.send("state_dict")
        [state] = self._host.receive()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        self._host.send("load_state_dict", [state])
        self._host.receive()

    def restart(self, seed: int) -> None:
        """Replace the environment by a new one with another seed, which must be reset or given a state.

        With the old seed it would begin the episodes again that the first one began with.
        """
        self._host.close()
        self._arguments = self._arguments | {"seed": seed}
        self._host = self._start()

    def close(self) -> None:
        """End the process or free the simulation."""
        self._host.close()


class EnvPool:
    """Several BenchmarkEnvs, of different shifts if need be, stepped together.

    Args:
        arguments: of each BenchmarkEnv; observation and action sizes must agree.
        processes: the environments are spread over; 0 keeps them in this process. Results do not depend
            on it.

    Raises:
        UserError: as BenchmarkEnv.
        EnvironmentDied: a process ended, or was killed because it hung. Every method may raise it; the pool
            is then of no more use.
    """

    def __init__(self, arguments: Sequence[dict[str, Any]], processes: int) -> None:
        self._count = len(arguments)
        self._hosts: list[_Server] = []
        if processes == 0:
            self._hosts.append(_Here(arguments))
            return
        processes = min(processes, self._count)
        threads = render_threads(processes)
        children = [_Child(arguments[first::processes], threads) for first in range(processes)]
        self._hosts.extend(children)
        try:
            for child in children:
                child.wait_until_ready()
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return self._count

    @property
    def action_size(self) -> int:
        """Values per action."""
        return self._hosts[0].shapes.action_size

    def reset(
        self, indices: Sequence[int], options: Sequence[dict[str, Any] | None]
    ) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """Reset environments by number, each with its options; observations (n, 3 * frames, H, W), infos."""
        infos = self._ask("reset", indices, options)
        return self._observations(indices), infos

    def step(self, actions: np.ndarray, indices: Sequence[int] | None = None) -> PoolStep:
        """Step all environments, or those numbered `indices`, with actions (n, A); results in that order."""
        indices = range(self._count) if indices is None else indices
        results = self._ask("step", indices, actions)
        rewards, terminated, truncated, infos = zip(*results, strict=True)
        flags = np.array(terminated, bool), np.array(truncated, bool)
        return PoolStep(self._observations(indices), np.array(rewards), *flags, list(infos))

    def segmentation(self, indices: Sequence[int]) -> np.ndarray:
        """The true foreground, bool (n, image_size, image_size), in environments by number as they stand."""
        return np.stack(self._ask("segmentation", indices, [None] * len(indices)))

    def close(self) -> None:
        """End the processes or free the simulations."""
        for host in self._hosts:
            host.close()

    def _ask(self, method: str, indices: Sequence[int], arguments: Sequence[Any] | np.ndarray) -> list[Any]:
        """Send each host its share, then gather the answers in the order of `indices`."""
        shares: dict[int, list[tuple[int, Any]]] = {}
        for index, argument in zip(indices, arguments, strict=True):
            shares.setdefault(index % len(self._hosts), []).append((index // len(self._hosts), argument))
        for host, share in shares.items():
            self._hosts[host].send(method, share)
        answers = {host: iter(self._hosts[host].receive()) for host in shares}
        return [next(answers[index % len(self._hosts)]) for index in indices]

    def _observations(self, indices: Sequence[int]) -> np.ndarray:
        hosts = len(self._hosts)
        return np.stack([self._hosts[index % hosts].observations[index // hosts] for index in indices])


def render_threads(processes: int) -> int:
    """Threads Mesa's software renderer gets in each process, so that all together leave the learner a core.

    On 2 cores one thread for each of two processes renders 1.6 times the frames that two threads do in one.
    """
    cores = len(os.sched_getaffinity(0))
    return max(1, min(MAX_RENDER_THREADS, cores // (processes + 1)))


class _Server(Protocol):
    """A Host that answers one request at a time, somewhere."""

    observations: np.ndarray
    shapes: Shapes

    def send(self, method: str, *arguments: Any) -> None: ...

    def receive(self) -> Any: ...

    def close(self) -> None: ...


class _Here:
    """A Host in this process, which works when its answer is asked for."""

    def __init__(self, arguments: Sequence[dict[str, Any]]) -> None:
        self._host = Host(arguments)
        self.observations = self._host.observations
        self.shapes = self._host.shapes
        self._request: tuple[str, tuple[Any, ...]] | None = None

    def send(self, method: str, *arguments: Any) -> None:
        if self._request is not None:
            raise RuntimeError("the previous request has not been received yet")
        self._request = (method, arguments)

    def receive(self) -> Any:
        if self._request is None:
            raise RuntimeError("no request was sent")
        (method, arguments), self._request = self._request, None
        try:
            return getattr(self._host, method)(*arguments)
        except (UserError, MemoryError):
            raise
        except Exception as error:
            raise SimulationFailed(f"the simulation failed: {type(error).__name__}: {error}") from error

    def close(self) -> None:
        self._host.close()


class _Child:
    """A Host in a process of its own.

    The child ends when this end of the connection closes, however this process ends. It is started by its
    own command line and not by multiprocessing, which would import this program's main module, and with it
    torch, anew.
    """

    def __init__(self, arguments: Sequence[dict[str, Any]], threads: int) -> None:
        gl.select_backend()
        self._waiting = True
        self._frames = os.memfd_create("observations")
        self._connection, theirs = Pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "common.envs.worker", str(theirs.fileno()), str(self._frames)],
                pass_fds=(theirs.fileno(), self._frames),
                env=_child_environment(threads),
                stdin=subprocess.DEVNULL,
                # Out of the terminal's group: Ctrl-C must not end it before the run has been saved.
                start_new_session=True,
            )
        finally:
            theirs.close()
        self._connection.send(list(arguments))

    def wait_until_ready(self) -> None:
        """Wait until the environments are made; then `observations` and `shapes` are there."""
        self.shapes: Shapes = self._receive()
        self.observations = shared_observations(self._frames, self.shapes)

    def send(self, method: str, *arguments: Any) -> None:
        if self._waiting:
            raise RuntimeError("the previous request has not been received yet")
        self._waiting = True
        try:
            self._connection.send((method, arguments))
        except (BrokenPipeError, ConnectionResetError):
            raise self._death() from None

    def receive(self) -> Any:
        if not self._waiting:
            raise RuntimeError("no request was sent")
        if not any(self._connection.poll(ANSWER_SECONDS) for _ in range(2)):
            self._process.kill()
            self._process.wait()
            raise EnvironmentDied(
                f"the environment process {self._process.pid} gave no answer for {2 * ANSWER_SECONDS} s"
            )
        return self._receive()

    def _receive(self) -> Any:
        """The answer, however long it takes: making environments may decode hundreds of clips."""
        try:
            kind, content = self._connection.recv()
        except (EOFError, ConnectionResetError):
            raise self._death() from None
        self._waiting = False
        if kind == "user error":
            raise UserError(content)
        if kind == "error":
            message, trace = content
            error = SimulationFailed(f"the simulation failed: {message}")
            error.add_note(trace)
            raise error
        return content

    def close(self) -> None:
        self._connection.close()
        self._wait()
        if self._frames >= 0:
            os.close(self._frames)
            self._frames = -1

    def _wait(self) -> int:
        """The child's exit status; it ends by itself once the connection is closed on either side."""
        try:
            return self._process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _death(self) -> EnvironmentDied:
        status = self._wait()
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        return EnvironmentDied(f"the environment process {self._process.pid} {how}")


def _child_environment(threads: int) -> dict[str, str]:
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
    }
    # Mesa's 0 means no threads besides the caller's.
    environment.setdefault("LP_NUM_THREADS", str(threads) if threads > 1 else "0")
    return environment
