"""Threads of a CPU: what is chosen, before PyTorch is loaded, and that the user's own choice wins."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from common.config.loading import load
from common.run import device
from common.run.device import apply_switches, for_trained, resolve_auto
from common.threads import SPINS

VARIABLES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS")
WAYS = {
    "smg": "import sys; from common.cli import main; sys.exit(main(sys.argv[1:]))",  # as the installed script
    "benchmarks": "from benchmarks import machine",
}


def told_by_openmp(command: list[str], **variables: str) -> str:
    """The spin count that libgomp says it took as it was loaded."""
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    environment |= {"OMP_DISPLAY_ENV": "verbose"} | variables
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    [line] = [line for line in process.stderr.splitlines() if "GOMP_SPINCOUNT" in line]
    return line.split("'")[1]


needs_libgomp = pytest.mark.skipif(
    "openmp" not in torch.__config__.parallel_info().lower() or sys.platform != "linux",
    reason="needs the OpenMP of PyTorch's Linux builds",
)
CONFIG = ["config", "--agent", "sac", "--task", "walker_walk"]


@pytest.mark.slow
@needs_libgomp
@pytest.mark.parametrize(
    "command",
    [
        [sys.executable, "-c", WAYS["smg"], *CONFIG],
        [sys.executable, "-m", "common.cli", *CONFIG],
        [sys.executable, "-c", WAYS["benchmarks"]],
    ],
    ids=["smg", "module", "benchmarks"],
)
def test_pytorch_is_loaded_with_the_chosen_spin_count(command):
    assert told_by_openmp(command) == str(SPINS)


@pytest.mark.slow
@needs_libgomp
@pytest.mark.parametrize(
    ("variables", "expected"),
    [({"GOMP_SPINCOUNT": "77"}, "77"), ({"OMP_WAIT_POLICY": "passive"}, "0")],
)
def test_the_users_spin_count_stays(variables, expected):
    assert told_by_openmp([sys.executable, "-m", "common.cli", *CONFIG], **variables) == expected


def test_nothing_changes_once_pytorch_is_loaded(monkeypatch: pytest.MonkeyPatch):
    from common.threads import be_a_good_neighbour

    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    be_a_good_neighbour()
    assert "GOMP_SPINCOUNT" not in os.environ


def configured(*overrides: str):
    return load("sac", "walker_walk", "laptop", overrides=["device=cpu", *overrides])


@pytest.fixture
def beside(tmp_path, monkeypatch: pytest.MonkeyPatch):
    """Makes a machine of two cores on which a second passes with so many ticks in use and idle."""

    def install(used: int, idle: int, threads: int = 2) -> None:
        def stat(user: int, idle: int, waiting: int) -> None:
            # user, nice, system, idle, iowait, irq, softirq, steal; guest, guest_nice are in the first two
            (tmp_path / "stat").write_text(f"cpu  {user} 20 30 {idle} {waiting} 0 5 0 10 10\ncpu0 1 2 3\n")

        stat(1000, 9000, 50)
        monkeypatch.setattr(device, "STAT", tmp_path / "stat")
        later = 1000 + used, 9000 + idle // 2, 50 + idle // 2
        monkeypatch.setattr(device, "time", SimpleNamespace(sleep=lambda seconds: stat(*later)))
        monkeypatch.setattr(os, "cpu_count", lambda: 2)
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    return install


@pytest.mark.parametrize(("used", "idle", "cores"), [(0, 200, 0.0), (100, 100, 1.0), (150, 50, 1.5)])
def test_cores_in_use_are_counted(used, idle, cores, beside):
    beside(used, idle)
    assert device.busy_cores(1) == pytest.approx(cores)


@pytest.mark.parametrize(
    ("used", "threads", "chosen"), [(0, 2, 2), (40, 2, 2), (60, 2, 1), (100, 2, 1), (200, 2, 1), (190, 1, 1)]
)
def test_a_run_takes_the_cores_that_are_free_as_it_begins_and_says_so(used, threads, chosen, beside):
    beside(used, 200 - used, threads)
    said: list[str] = []
    assert resolve_auto(configured(), said.append).threads == chosen
    if chosen == threads:
        assert said == []
    else:
        [line] = said
        assert line.startswith(f"other processes use {used / 100:.1f} of 2 cores: threads=1 for the whole of")


@pytest.mark.parametrize(
    ("key", "variable", "expected"), [(1, None, 1), (3, None, 3), (None, "3", 3), (1, "3", 3)]
)
def test_the_users_own_number_of_threads_stays(
    key, variable, expected, beside, monkeypatch: pytest.MonkeyPatch
):
    beside(200, 0, threads=3 if variable else 2)  # PyTorch obeys the variable by itself
    monkeypatch.delattr(device, "time")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8))
    if variable is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    asked = [torch.get_num_threads()]
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    apply_switches(resolve_auto(configured(*([f"threads={key}"] if key else []))))
    assert asked[-1] == expected


def test_a_run_of_a_larger_machine_takes_no_more_threads_than_there_are_cores(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(4))
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    apply_switches(configured("threads=64"))
    assert asked == [4]


def test_an_agent_that_learns_no_more_waits_for_no_look(beside, monkeypatch: pytest.MonkeyPatch):
    beside(200, 0)
    monkeypatch.delattr(device, "time")
    assert for_trained(configured()).threads == 2


def test_where_the_system_does_not_tell_nothing_changes(beside, monkeypatch: pytest.MonkeyPatch, tmp_path):
    beside(200, 0)
    monkeypatch.setattr(device, "STAT", tmp_path / "none")
    assert resolve_auto(configured()).threads == 2
