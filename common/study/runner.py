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
from common.study.folders import LOG, STOPPED, FoundRun, State, differences, is_held, read

LOSSES = 20
"""How often one run may be stopped, or lose the machine under it, before it is given up."""
REPORT_EVERY = 300
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


def check_folders(found: Sequence[FoundRun]) -> None:
    """Refuse to add to runs that were made with other settings.

    Raises:
        UserError: a folder holds such a run; the message names it and what differs.
    """
    for each in found:
        if each.config is None:
            continue
        other = [
            f"{key} is {there!r}, not {here!r}"
            for key, here, there in differences(each.run.config, each.config)
        ]
        if other:
            more = f" and {len(other) - 3} more" if len(other) > 3 else ""
            raise UserError(
                f"{each.run.folder} holds a run with other settings ({'; '.join(other[:3])}{more}): "
                "give the study another folder=, or move the run away"
            )


def run_all(
    found: Sequence[FoundRun],
    attempt: Attempt,
    workers: int,
    report: Callable[[Sequence[FoundRun]], str],
    retries: int,
    signals: Signals,
) -> list[PlannedRun]:
    """Bring every run to its end, `workers` at a time.

    A run is tried `retries` times more after a failure; an attempt that was asked to stop, or whose machine
    was lost, does not count as one. Runs that another process is at work on are waited for. What `report`
    says of the runs is printed every few minutes.

    Returns:
        The runs that did not get there.

    Raises:
        Interruption: a signal asked to stop; attempts were saved and ended.
        UserError: no run can start on this machine, or a folder cannot be written.
    """
    stopping = Event()
    losses: Counter[PlannedRun] = Counter()
    failures: Counter[PlannedRun] = Counter()
    given_up = []

    def turn(run: PlannedRun) -> int | None:
        if is_held(run.folder):
            stopping.wait(1)
            return None
        say(f"{run.name}: {'resumed' if (run.folder / RESOLVED_NAME).exists() else 'started'}")
        return attempt(run, stopping)

    def goes_on(run: PlannedRun, outcome: int | BaseException) -> bool:
        after = read(run, claimed=True)
        if after.state is State.DONE:
            say(f"{run.name}: done")
            return False
        if isinstance(outcome, UserError):
            raise outcome
        if outcome == NO_RENDERER:
            raise UserError(f"{run.name}: {after.detail}")
        why = str(outcome) if isinstance(outcome, BaseException) else after.detail
        times, limit, then = failures, retries, "tried again"
        if isinstance(outcome, Lost) or outcome in STOPPED:
            times, limit, then = losses, LOSSES, "it goes on"
            why = str(outcome) if isinstance(outcome, Lost) else f"stopped by a signal at step {after.step}"
        times[run] += 1
        if times[run] > limit:
            given_up.append(run)
            then = f"given up, see {run.folder / LOG}"
        say(f"{run.name}: {why}; {then}")
        return times[run] <= limit

    for each in found:
        if each.state is State.CORRUPT:
            say(f"{each.run.folder}: left alone, it is damaged: {each.detail}")
            given_up.append(each.run)
    due = time.monotonic() + REPORT_EVERY
    pool = ThreadPoolExecutor(workers)
    try:
        waiting = [each.run for each in found if each.state not in (State.DONE, State.CORRUPT)]
        turns = {pool.submit(turn, run): run for run in waiting}
        while turns:
            ended, _ = wait(turns, timeout=1, return_when=FIRST_COMPLETED)
            for future in [each for each in turns if each in ended]:  # in the study's order
                run = turns.pop(future)
                outcome = future.exception() or future.result()
                if outcome is None or goes_on(run, outcome):
                    turns[pool.submit(turn, run)] = run
            if time.monotonic() >= due:
                say(report([read(each.run) for each in found]))
                due = time.monotonic() + REPORT_EVERY
            signals.check()
    except (Interruption, KeyboardInterrupt, UserError):
        say("stopping: running attempts save first")
        raise
    finally:
        stopping.set()
        pool.shutdown(cancel_futures=True)
    return given_up
