"""Studies of real runs of about a second, in processes of their own that can be killed."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGKILL
from typing import Any

from common.config.loading import CONFIGS
from common.run.records import progress, read_json_lines
from common.study.definition import PlannedRun
from common.study.folders import ATTEMPTS, LOG, TRAINING, locked

STEPS, BURST = 16, 8
# At step 8 the burst takes a second or more, in which a run can be met half-way.
STUDY = f"""
shifts: [train]
seeds: [0]
preset: smoke
settings:
  train: {{steps: {STEPS}, random_steps: {BURST}, burst_updates: 400, batch: 4, log_every: 1}}
  eval: {{every: {STEPS}, shifts: [train]}}
  env: {{episode_steps: 40, image_size: 24}}
  network: {{strides: [2]}}
  data: {{overlay_bank: 2}}
  checkpoint: {{every: 1h}}
  wandb: {{mode: disabled}}
tasks: [walker_walk]
agents: [sac, drq]
resources: {{gpus: 0, cpus: 1}}
"""


class StudyProcess:
    """`smg study run` in a process of its own."""

    def __init__(self, file: Path, arguments: tuple[str, ...]) -> None:
        self._output = file.with_name(f"{time.monotonic_ns()}.output")
        command = [sys.executable, "-m", "common.cli", "study", "run", str(file), *arguments]
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                cwd=CONFIGS.parent,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.signal = self._process.send_signal

    def kill(self) -> None:
        """Kill it outright."""
        self._process.send_signal(SIGKILL)
        self._process.wait()

    def wait(self) -> int:
        """Its exit status."""
        return self._process.wait(600)

    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def printed(self) -> str:
        """What it has printed so far."""
        return self._output.read_text()


@contextmanager
def studying(file: Path, *arguments: str) -> Iterator[StudyProcess]:
    """A `StudyProcess` that a failing test does not leave behind."""
    study = StudyProcess(file, arguments)
    try:
        yield study
    except BaseException:
        print(study.printed())
        raise
    finally:
        if study.running():
            study.kill()


def until(true: Callable[[], Any], what: str) -> None:
    """Wait for something."""
    deadline = time.monotonic() + 600
    while not true():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.05)


def meet_half_way(run: PlannedRun) -> int:
    """Wait until a run is in its burst; returns the process that trains."""
    until(lambda: progress(run.folder)[0] >= BURST, f"the burst of {run.name}")
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().decode()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if "\0train\0" in command and str(run.folder) in command:
            return int(process.name)
    raise AssertionError(f"{run.name} ended before it could be met half-way")


def at_work(run: PlannedRun) -> bool:
    """Whether a trainer holds the run's folder."""
    return locked(run.folder / TRAINING)


def log(run: PlannedRun) -> str:
    """What its trainers printed."""
    return (run.folder / LOG).read_text()


def attempts(run: PlannedRun) -> list[int]:
    """Exit statuses of the attempts at a run that were seen to their end."""
    path = run.folder / ATTEMPTS
    return [record["status"] for record in read_json_lines(path)] if path.exists() else []


def returns(run: PlannedRun) -> list[float]:
    """Returns of the final evaluation, each of whose episodes must stand there once."""
    lines = (run.folder / "eval.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [(record["step"], record["shift"], record["episode"]) for record in records] == [
        (STEPS, "train", 0)
    ]
    return [record["return"] for record in records]


def assert_finished_once(run: PlannedRun) -> None:
    """One attempt reached the last step, no step is recorded twice, and none is missing."""
    assert attempts(run).count(0) == 1
    assert log(run).count("run folder: ") == 1
    records = read_json_lines(run.folder / "metrics.jsonl")
    assert [record["step"] for record in records if "seconds" in record] == list(range(1, STEPS + 1))
    returns(run)
