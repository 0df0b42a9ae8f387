"""Brings every run of a study to its end: skips finished runs, resumes broken ones, retries failed ones."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from threading import Event

from common.config.loading import RESOLVED_NAME
from common.errors import UserError
from common.run.signals import Interruption, Signals
from common.study.definition import PlannedRun, Study
from common.study.folders import LOG, STOPPED, FoundRun, State, from_plan, is_held, read

LOSSES = 20
"""How often one run may be stopped, or lose the machine under it, before it is given up."""
PROGRESS_EVERY = 300
"""Seconds between two lines about the whole study."""
NO_RENDERER = 3
"""Exit status of `smg train` on a machine where no run could start."""

Attempt = Callable[[PlannedRun, Event], int | None]
"""See `common.study.attempt.attempt`, which is one."""


class Lost(Exception):
    """The machine or process that an attempt ran in is gone."""


def say(line: str) -> None:
    """Print a line where a study's user looks."""
    print(line, file=sys.stderr, flush=True)


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


def check_folders(found_runs: Sequence[FoundRun]) -> None:
    """Refuse to add to runs that were made with other settings.

    Raises:
        UserError: a folder holds such a run; the message names it and what differs.
    """
    for found in found_runs:
        if found.config is None:
            continue
        other = [f"{key} is {there!r}, not {here!r}" for key, here, there in from_plan(found)]
        if other:
            more = f" and {len(other) - 3} more" if len(other) > 3 else ""
            raise UserError(
                f"{found.run.folder} holds a run with other settings ({'; '.join(other[:3])}{more}): "
                "give the study another folder=, or move the run away"
            )


class Runner:
    """Brings every run to its end, some at a time.

    A run is tried again after a failure; an attempt that was asked to stop, or whose machine was lost, does
    not count as one. Runs that another process is at work on are waited for.

    Args:
        attempt: makes one attempt at a run.
        workers: how many attempts are made at a time.
        retries: how often a run is tried again.
        progress_line: says how far runs have come; it is printed every few minutes.
        signals: says when to stop.
    """

    def __init__(
        self,
        attempt: Attempt,
        workers: int,
        retries: int,
        progress_line: Callable[[Sequence[FoundRun]], str],
        signals: Signals,
    ) -> None:
        self.attempt = attempt
        self.workers = workers
        self.retries = retries
        self.progress_line = progress_line
        self.signals = signals
        self.stopping = Event()
        self.losses: Counter[PlannedRun] = Counter()
        self.failures: Counter[PlannedRun] = Counter()
        self.given_up: list[PlannedRun] = []

    def bring_to_end(self, found_runs: Sequence[FoundRun]) -> list[PlannedRun]:
        """Do what is left of the runs, once; returns those that did not get there.

        Raises:
            Interruption: a signal asked to stop; attempts were saved and ended.
            UserError: no run can start on this machine, or a folder cannot be written.
        """
        for found in found_runs:
            if found.state is State.CORRUPT:
                say(f"{found.run.folder}: left alone, it is damaged: {found.detail}")
                self.given_up.append(found.run)
        waiting = [found.run for found in found_runs if found.state not in (State.DONE, State.CORRUPT)]
        pool = ThreadPoolExecutor(self.workers)
        try:
            self._work_off(waiting, pool, everything=[found.run for found in found_runs])
        except (Interruption, KeyboardInterrupt, UserError):
            say("stopping: running attempts save first")
            raise
        finally:
            self.stopping.set()
            pool.shutdown(cancel_futures=True)
        return self.given_up

    def _work_off(
        self, waiting: Sequence[PlannedRun], pool: ThreadPoolExecutor, everything: Sequence[PlannedRun]
    ) -> None:
        due = time.monotonic() + PROGRESS_EVERY
        turns = {pool.submit(self._take_turn, run): run for run in waiting}
        while turns:
            ended, _ = wait(turns, timeout=1, return_when=FIRST_COMPLETED)
            for future in [turn for turn in turns if turn in ended]:  # in the study's order
                run = turns.pop(future)
                outcome = future.exception() or future.result()
                if outcome is None or self._goes_on(run, outcome):
                    turns[pool.submit(self._take_turn, run)] = run
            if time.monotonic() >= due:
                say(self.progress_line([read(run) for run in everything]))
                due = time.monotonic() + PROGRESS_EVERY
            self.signals.check()

    def _take_turn(self, run: PlannedRun) -> int | None:
        """An attempt's exit status; None if another process is at work on the run."""
        if is_held(run.folder):
            self.stopping.wait(1)
            return None
        say(f"{run.name}: {'resumed' if (run.folder / RESOLVED_NAME).exists() else 'started'}")
        return self.attempt(run, self.stopping)

    def _goes_on(self, run: PlannedRun, outcome: int | BaseException) -> bool:
        """Say how an attempt ended, and whether there is to be another.

        Raises:
            UserError: no run can start on this machine, or a folder cannot be written.
        """
        found = read(run, claimed=True)
        if found.state is State.DONE:
            say(f"{run.name}: done")
            return False
        if isinstance(outcome, UserError):
            raise outcome
        if outcome == NO_RENDERER:
            raise UserError(f"{run.name}: {found.detail}")
        if isinstance(outcome, Lost) or outcome in STOPPED:
            times, limit, then = self.losses, LOSSES, "it goes on"
            why = str(outcome) if isinstance(outcome, Lost) else f"stopped by a signal at step {found.step}"
        else:
            times, limit, then = self.failures, self.retries, "tried again"
            why = str(outcome) if isinstance(outcome, BaseException) else found.detail
        times[run] += 1
        if times[run] > limit:
            self.given_up.append(run)
            then = f"given up, see {run.folder / LOG}"
        say(f"{run.name}: {why}; {then}")
        return times[run] <= limit
