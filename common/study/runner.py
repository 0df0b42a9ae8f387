"""Brings every run of a study to its end: skips finished runs, resumes broken ones, retries failed ones."""

import time
from collections import Counter, deque
from typing import Protocol

from common.config.loading import RESOLVED_NAME
from common.errors import UserError
from common.run.signals import Interruption, Signals
from common.study.attempt import Attempt, Claimed
from common.study.definition import PlannedRun, Study
from common.study.folders import LOG, STOPPED, FoundRun, State, differences, read
from common.study.progress import Progress

LOSSES = 20
"""How often one run may be stopped, or lose the machine under it, before that counts as a failure."""
NO_RENDERER = 3
"""Exit status of `smg train` on a machine where no run could start."""


class Lost(Exception):
    """The machine or process that an attempt ran in is gone."""


class Engine(Protocol):
    """Where attempts run."""

    slots: int
    """Attempts that go on at the same time, as far as is known."""

    def start(self, run: PlannedRun) -> bool:
        """Begin an attempt; False if there is no room, or another process holds the run."""
        ...

    def ended(self, timeout: float) -> list[tuple[PlannedRun, int | Exception]]:
        """Attempts that ended within `timeout` seconds, with their exit status or what befell them."""
        ...

    def stop(self) -> None:
        """Ask all attempts to save and stop, and wait for them."""
        ...

    def close(self) -> None:
        """Let go of what the engine holds; no attempt is under way."""
        ...


class LocalEngine:
    """One run after another, on this machine."""

    slots = 1

    def __init__(self) -> None:
        self._attempt: Attempt | None = None

    def start(self, run: PlannedRun) -> bool:
        """Begin an attempt; False if one goes on, or another process holds the run."""
        if self._attempt is not None:
            return False
        try:
            self._attempt = Attempt(run)
        except Claimed:
            return False
        return True

    def ended(self, timeout: float) -> list[tuple[PlannedRun, int | Exception]]:
        """The attempt, if it ended."""
        if self._attempt is None:
            time.sleep(timeout)  # every run left is held by other processes
            return []
        status = self._attempt.poll(timeout)
        if status is None:
            return []
        attempt, self._attempt = self._attempt, None
        return [(attempt.run, status)]

    def stop(self) -> None:
        """Ask the attempt to save and stop."""
        if self._attempt is not None:
            self._attempt.stop()

    def close(self) -> None:
        """Nothing is held between attempts."""


def shard_of(study: Study, shard: str | None) -> tuple[PlannedRun, ...]:
    """The runs of shard `i/n`, i from 0 to n - 1: every n-th run. All of them without a shard.

    Raises:
        UserError: it is not of that form.
    """
    if shard is None:
        return study.runs
    index, _, count = shard.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise UserError(f"--shard {shard}: should be i/n with i from 0 to n-1, such as 0/8")
    return study.runs[int(index) :: int(count)]


def check_folders(runs: tuple[PlannedRun, ...]) -> None:
    """Refuse to add to runs that were made with other settings.

    Raises:
        UserError: a folder holds such a run; the message names it and what differs.
    """
    for run in runs:
        found = read(run).config
        if found is None:
            continue
        other = [f"{key} is {there!r}, not {here!r}" for key, here, there in differences(run.config, found)]
        if other:
            more = f" and {len(other) - 3} more" if len(other) > 3 else ""
            raise UserError(
                f"{run.folder} holds a run with other settings ({'; '.join(other[:3])}{more}): "
                "give the study another folder=, or move the run away"
            )


def run_all(
    runs: tuple[PlannedRun, ...], engine: Engine, progress: Progress, retries: int, signals: Signals
) -> list[PlannedRun]:
    """Bring every run to its end.

    A run is tried `retries` times more after a failure; an attempt that was asked to stop, or whose machine
    was lost, does not count as one. Runs that another process holds are waited for.

    Returns:
        The runs that did not get there.

    Raises:
        Interruption: a signal asked to stop; attempts were saved and ended.
        UserError: no run can start on this machine, or a folder cannot be written.
    """
    say = progress.say
    readings = [read(run) for run in runs]
    queue = deque(found.run for found in readings if found.state not in (State.DONE, State.CORRUPT))
    given_up = [found.run for found in readings if found.state is State.CORRUPT]
    say(f"{sum(found.state is State.DONE for found in readings)} of {len(runs)} runs are done")
    for found in readings:
        if found.state is State.CORRUPT:
            say(f"{found.run.folder}: left alone, it is damaged: {found.detail}")
    active: set[PlannedRun] = set()
    failures: Counter[str] = Counter()
    losses: Counter[str] = Counter()
    try:
        while queue or active:
            for _ in range(len(queue)):
                run = queue.popleft()
                begun = (run.folder / RESOLVED_NAME).exists()
                if engine.start(run):
                    active.add(run)
                    say(f"{run.name}: {'resumed' if begun else 'started'}")
                else:
                    queue.append(run)
            for run, outcome in engine.ended(timeout=1):
                active.discard(run)
                reading = read(run, claimed=True)
                if reading.state is State.DONE:
                    say(f"{run.name}: done")
                elif (isinstance(outcome, Lost) or outcome in STOPPED) and losses[run.name] < LOSSES:
                    losses[run.name] += 1
                    say(f"{run.name}: {_why(reading, outcome)}; it goes on")
                    queue.append(run)
                elif outcome == NO_RENDERER:
                    raise UserError(f"{run.name}: {reading.detail}")
                elif failures[run.name] < retries:
                    failures[run.name] += 1
                    say(f"{run.name}: {_why(reading, outcome)}; tried again")
                    queue.append(run)
                else:
                    say(f"{run.name}: {_why(reading, outcome)}; given up, see {run.folder / LOG}")
                    given_up.append(run)
            progress.show(active, engine.slots)
            signals.check()
    except (Interruption, KeyboardInterrupt, UserError):
        say("stopping: running attempts save first")
        engine.stop()
        raise
    return given_up


def _why(reading: FoundRun, outcome: int | Exception) -> str:
    if isinstance(outcome, Exception):
        return str(outcome)
    return f"stopped by a signal at step {reading.step}" if outcome in STOPPED else reading.detail
