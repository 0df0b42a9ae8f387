"""Environments in processes of their own: equal numbers, and what happens when something dies."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.envs import processes
from common.envs.processes import EnvironmentDied, EnvPool, TrainingEnv, render_threads
from common.errors import UserError

ROOT = Path(__file__).parents[3]
SMALL: dict[str, Any] = {"task": "cartpole_swingup", "seed": 3, "episode_steps": 40, "action_repeat": 8}


@pytest.fixture
def start(data_folder: Path) -> Iterator[Callable[..., TrainingEnv]]:
    """TrainingEnvs that are closed afterwards."""
    started = []

    def build(own_process: bool, **arguments: Any) -> TrainingEnv:
        env = TrainingEnv(SMALL | {"data_root": str(data_folder)} | arguments, own_process)
        started.append(env)
        return env

    yield build
    for env in started:
        env.close()


def child(env: TrainingEnv) -> int:
    """Process id of an environment in its own process."""
    return env._host._process.pid  # type: ignore[attr-defined]


def actions(count: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (count, 1)).astype(np.float32)


def test_a_process_of_its_own_gives_equal_numbers(start: Callable[..., TrainingEnv]) -> None:
    here, there = start(False, shift="video_hard"), start(True, shift="video_hard")
    assert (here.action_size, here.obs_shape) == (there.action_size, there.obs_shape) == (1, (9, 84, 84))
    np.testing.assert_array_equal(here.reset(), there.reset())
    saved = None
    for index, action in enumerate(actions(4)):
        for env in (here, there):
            env.send(action)
        one, two = here.receive(), there.receive()
        np.testing.assert_equal(one._asdict(), two._asdict())
        if index == 1:
            saved = here.state_dict()
            np.testing.assert_equal(there.state_dict(), saved)
    assert saved is not None
    there.load_state_dict(saved)
    there.send(actions(4)[2])
    here.load_state_dict(saved)
    here.send(actions(4)[2])
    np.testing.assert_equal(here.receive()._asdict(), there.receive()._asdict())


@pytest.mark.parametrize("own_process", [False, True])
def test_received_observations_stay_as_they_are(start: Callable[..., TrainingEnv], own_process: bool) -> None:
    env = start(own_process)
    first = env.reset()
    copy = first.copy()
    for action in actions(2):
        env.send(action)
        env.receive()
    np.testing.assert_array_equal(first, copy)


@pytest.mark.parametrize("own_process", [False, True])
def test_one_request_at_a_time(start: Callable[..., TrainingEnv], own_process: bool) -> None:
    env = start(own_process)
    env.reset()
    with pytest.raises(RuntimeError, match="no request"):
        env.receive()
    env.send(actions(1)[0])
    with pytest.raises(RuntimeError, match="previous request"):
        env.send(actions(1)[0])
    env.receive()


def test_a_killed_process_is_noticed_and_replaced(start: Callable[..., TrainingEnv]) -> None:
    env = start(True)
    first = env.reset()
    env.send(actions(1)[0])
    os.kill(child(env), signal.SIGKILL)
    with pytest.raises(EnvironmentDied, match="was killed by signal 9"):
        env.receive()
        env.reset()  # where the step was done before the signal came
    env.restart(seed=5)
    begun = env.reset()
    assert not np.array_equal(begun, first)
    np.testing.assert_array_equal(begun, start(False, seed=5).reset())


@pytest.mark.slow
def test_a_process_that_hangs_is_ended_and_replaced(
    start: Callable[..., TrainingEnv], monkeypatch: pytest.MonkeyPatch
) -> None:
    env = start(True)
    first = env.reset()
    hung = child(env)
    os.kill(hung, signal.SIGSTOP)
    monkeypatch.setattr(processes, "ANSWER_SECONDS", 0.1)
    env.send(actions(1)[0])
    with pytest.raises(EnvironmentDied, match=f"process {hung} gave no answer for 0.2 s"):
        env.receive()
    assert not Path(f"/proc/{hung}").exists()
    monkeypatch.undo()
    env.restart(seed=3)
    np.testing.assert_array_equal(env.reset(), first)


def test_a_process_that_dies_between_requests_is_noticed(start: Callable[..., TrainingEnv]) -> None:
    env = start(True)
    env.reset()
    os.kill(child(env), signal.SIGKILL)
    with pytest.raises(EnvironmentDied, match="was killed by signal 9"):
        env.send(actions(1)[0])
        env.receive()


def test_interrupts_and_terminations_are_left_to_the_learner(start: Callable[..., TrainingEnv]) -> None:
    env = start(True)
    env.reset()
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(child(env), number)
        env.send(actions(1)[0])
        assert env.receive().obs.shape == (9, 84, 84)
    assert os.getsid(child(env)) != os.getsid(0)


def test_the_process_is_small_and_single_threaded(start: Callable[..., TrainingEnv]) -> None:
    env = start(True)
    env.reset()
    libraries = Path(f"/proc/{child(env)}/maps").read_text()
    assert "mujoco" in libraries
    assert "libtorch" not in libraries
    variables = Path(f"/proc/{child(env)}/environ").read_text().split("\0")
    assert {"OMP_NUM_THREADS=1", "OPENBLAS_NUM_THREADS=1"} <= set(variables)


def test_user_errors_come_through(start: Callable[..., TrainingEnv]) -> None:
    with pytest.raises(UserError, match="unknown task 'cartpole'"):
        start(True, task="cartpole")


def test_a_failing_simulation_is_a_death_with_its_reason(start: Callable[..., TrainingEnv]) -> None:
    env = start(True)
    env.reset()
    env.send(np.zeros(3, np.float32))
    with pytest.raises(EnvironmentDied, match="the simulation failed: ValueError") as caught:
        env.receive()
    assert "Traceback" in "".join(caught.value.__notes__)


@pytest.mark.slow
def test_the_process_ends_with_its_parent() -> None:
    """Even when the parent is killed outright, in the middle of nothing or of a step."""
    code = (
        "import sys, numpy as np\n"
        "from common.envs.processes import TrainingEnv\n"
        "env = TrainingEnv({'task': 'cartpole_swingup'}, True)\n"
        "env.reset()\n"
        "if sys.argv[1] == 'stepping': env.send(np.zeros(1))\n"
        "print(env._host._process.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    for moment in ("idle", "stepping"):
        parent = subprocess.Popen(
            [sys.executable, "-c", code, moment],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        with parent:
            assert parent.stdout is not None
            handle = os.pidfd_open(int(parent.stdout.readline()))
            parent.kill()
        readable, _, _ = select.select([handle], [], [], 30)
        os.close(handle)
        assert readable, "the environment outlived its parent"


@pytest.mark.slow
def test_a_pools_results_do_not_depend_on_its_processes(data_folder: Path) -> None:
    shifts = ("train", "color_hard", "video_hard")
    arguments = [SMALL | {"shift": shift, "data_root": str(data_folder)} for shift in shifts]
    results = []
    for count in (0, 2, 9):
        pool = EnvPool(arguments, count)
        assert (len(pool), pool.action_size) == (3, 1)
        options = [{"evaluation": 1, "episode": number, "episodes": 3} for number in range(3)]
        first, infos = pool.reset(range(3), options)
        steps = [pool.step(np.repeat(action[None], 3, axis=0)) for action in actions(2)]
        # A part of them, in an order of its own: what an evaluation does when some episodes have ended.
        part = pool.step(actions(2), [2, 0])
        again, _ = pool.reset([1], [options[1]])
        results.append((first, infos, [step._asdict() for step in steps], part._asdict(), again))
        pool.close()
    for other in results[1:]:
        np.testing.assert_equal(other, results[0])
    first, infos, steps, part, again = results[0]
    assert first.shape == (3, 9, 84, 84)
    np.testing.assert_array_equal(again[0], first[1])
    np.testing.assert_array_equal(part["obs"][1][:6], steps[1]["obs"][0][3:])
    assert len({obs.tobytes() for obs in first}) == 3
    assert not steps[-1]["truncated"].any()


@pytest.mark.slow
def test_a_pool_equals_environments_one_by_one(start: Callable[..., TrainingEnv], data_folder: Path) -> None:
    pool = EnvPool([SMALL | {"shift": "color_hard", "data_root": str(data_folder)}] * 2, 2)
    options = [{"evaluation": 0, "episode": number, "episodes": 2} for number in range(2)]
    observations, _ = pool.reset(range(2), options)
    returns = np.zeros(2)
    truncated = np.zeros(2, bool)
    while not truncated.all():
        step = pool.step(np.full((2, 1), 0.5, np.float32))
        returns += step.rewards
        truncated = step.truncated
    pool.close()
    env = start(False, shift="color_hard")
    for number in range(2):
        np.testing.assert_array_equal(env.reset(options[number]), observations[number])
        total, over = 0.0, False
        while not over:
            env.send(np.full(1, 0.5, np.float32))
            result = env.receive()
            total, over = total + result.reward, result.truncated
        assert total == returns[number]


def test_a_pool_notices_a_dead_process(data_folder: Path) -> None:
    pool = EnvPool([SMALL | {"data_root": str(data_folder)}] * 2, 2)
    pool.reset([0, 1], [None, None])
    os.kill(pool._hosts[1]._process.pid, signal.SIGKILL)  # type: ignore[attr-defined]
    with pytest.raises(EnvironmentDied, match="signal 9"):
        pool.step(actions(2))
        pool.step(actions(2))
    pool.close()


@pytest.mark.slow
def test_a_pool_notices_a_process_that_hangs(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = EnvPool([SMALL | {"data_root": str(data_folder)}] * 2, 2)
    pool.reset([0, 1], [None, None])
    os.kill(pool._hosts[1]._process.pid, signal.SIGSTOP)  # type: ignore[attr-defined]
    monkeypatch.setattr(processes, "ANSWER_SECONDS", 0.1)
    with pytest.raises(EnvironmentDied, match="gave no answer"):
        pool.step(actions(2))
    pool.close()


def test_a_pool_that_cannot_start_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    popen = subprocess.Popen

    def record(*arguments: Any, **keywords: Any) -> subprocess.Popen[bytes]:
        started.append(popen(*arguments, **keywords))
        return started[-1]

    monkeypatch.setattr(processes.subprocess, "Popen", record)
    with pytest.raises(UserError, match="unknown shift"):
        EnvPool([SMALL, SMALL | {"shift": "video_hrad"}], 2)
    assert len(started) == 2
    assert all(process.poll() is not None for process in started)


def test_renderer_threads_leave_the_learner_a_core(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = {(2, 1): 1, (2, 2): 1, (4, 1): 2, (16, 1): 4, (16, 4): 3, (64, 50): 1}
    for (cores, count), threads in expected.items():
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid, cores=cores: set(range(cores)))
        assert render_threads(count) == threads
