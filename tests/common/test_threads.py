"""Threads of a CPU: what is chosen, before PyTorch is loaded, and that the user's own choice wins."""

import os
import subprocess
import sys

import pytest
import torch

from common.config.loading import load
from common.run import device
from common.run.device import apply_switches, encoder_products, resolve_auto
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


def configured(preset: str):
    return resolve_auto(load("sac", "walker_walk", preset, overrides=["device=cpu"]))


def test_the_encoders_work_by_hand():
    # 84 → 41 → 20 → 18 pixels, 4 filters, 9 and then 4 channels, 3×3 kernels, a batch of 8
    assert encoder_products(configured("smoke")) == 8 * 4 * 9 * (41**2 * 9 + 20**2 * 4 + 18**2 * 4)


@pytest.mark.parametrize(
    ("preset", "own", "expected"),
    [("smoke", None, 1), ("laptop", None, 3), ("paper", None, 3), ("smoke", "3", 3)],
)
def test_small_networks_take_one_thread(preset, own, expected, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if own is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", own)
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    apply_switches(configured(preset))
    assert [3, *asked][-1] == expected


@pytest.fixture
def beside(tmp_path, monkeypatch: pytest.MonkeyPatch):
    """Makes a machine of two cores on which a second passes with so many ticks in use and idle."""

    def install(used: int, idle: int, threads: int = 2) -> None:
        def stat(user: int, idle: int, waiting: int) -> None:
            # user, nice, system, idle, iowait, irq, softirq, steal; guest, guest_nice are in the first two
            (tmp_path / "stat").write_text(f"cpu  {user} 20 30 {idle} {waiting} 0 5 0 10 10\ncpu0 1 2 3\n")

        stat(1000, 9000, 50)
        monkeypatch.setattr(device, "STAT", tmp_path / "stat")
        monkeypatch.setattr(
            device.time, "sleep", lambda seconds: stat(1000 + used, 9000 + idle // 2, 50 + idle // 2)
        )
        monkeypatch.setattr(os, "cpu_count", lambda: 2)
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    return install


@pytest.mark.parametrize(("used", "idle", "cores"), [(0, 200, 0.0), (100, 100, 1.0), (150, 50, 1.5)])
def test_cores_in_use_are_counted(used, idle, cores, beside):
    beside(used, idle)
    assert device.busy_cores(1) == pytest.approx(cores)


@pytest.mark.parametrize(
    ("used", "threads", "told"), [(100, 2, True), (60, 2, True), (40, 2, False), (190, 1, False)]
)
def test_a_busy_neighbour_is_told_and_changes_nothing(used, threads, told, beside):
    beside(used, 200 - used, threads)
    advice = device.advice_on_threads(configured("laptop"))
    assert (advice is not None) == told
    if advice is not None:
        assert f"use {used / 100:.1f} of 2 cores: while they do, OMP_NUM_THREADS=1" in advice


def test_the_users_own_number_of_threads_needs_no_advice(beside, monkeypatch: pytest.MonkeyPatch):
    beside(200, 0)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert device.advice_on_threads(configured("laptop")) is None


def test_where_the_system_does_not_tell_nothing_is_said(beside, monkeypatch: pytest.MonkeyPatch, tmp_path):
    beside(200, 0)
    monkeypatch.setattr(device, "STAT", tmp_path / "none")
    assert device.advice_on_threads(configured("laptop")) is None
