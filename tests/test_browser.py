"""The browser of the tests and the machine that it shares with them."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from selenium import webdriver

pytestmark = pytest.mark.slow


def parents() -> dict[int, int]:
    """Every process's parent, by number."""
    found = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            found[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
    return found


def threads_of(process: int) -> Iterator[int]:
    """Its threads, and those of its descendants."""
    family, parent = {process}, parents()
    while young := {child for child in parent if parent[child] in family} - family:
        family |= young
    for member in family:
        with suppress(OSError):
            yield from (int(task.name) for task in Path(f"/proc/{member}/task").iterdir())


def precedence(thread: int) -> tuple[bool, int, int]:
    """Whether a thread has real-time scheduling, its priority there, and elsewhere (niceness, negated)."""
    real_time = os.sched_getscheduler(thread) in (os.SCHED_FIFO, os.SCHED_RR)
    return real_time, os.sched_getparam(thread).sched_priority, -os.getpriority(os.PRIO_PROCESS, thread)


def test_it_takes_no_core_before_its_turn(browser: webdriver.Chrome) -> None:
    browser.get("data:text/html,<p>text</p>")
    precedences = []
    for thread in threads_of(browser.service.process.pid):
        with suppress(OSError):
            precedences.append(precedence(thread))
    assert len(precedences) > 20
    assert max(precedences) <= precedence(0)
