"""A run of a second that passes through everything, and a way to interfere with it at a given moment."""

import os
import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import common.run.train
from common import gl
from common.run.console import Console
from tests.reliability import tiny

gl.select_backend()


@pytest.fixture(scope="session")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    assert tiny.start(folder) == 0
    return folder


class Moments:
    """What happened to runs in this test: their messages and steps, and actions to take at given moments.

    A moment is an event of the console ("step", "burst", "episode" or "evaluating") and how often it came.
    """

    def __init__(self) -> None:
        self.said: list[str] = []
        self.step = 0
        self._counts: dict[str, int] = defaultdict(int)
        self._actions: dict[tuple[str, int], Callable[[], Any]] = {}

    def at(self, event: str, count: int, action: Callable[[], Any]) -> None:
        """Call `action` when `event` comes for the `count`-th time."""
        self._actions[event, count] = action

    def count(self, event: str) -> int:
        """How often the event has come."""
        return self._counts[event]

    def happened(self, event: str) -> None:
        self._counts[event] += 1
        self._actions.get((event, self._counts[event]), lambda: None)()


@pytest.fixture
def moments(monkeypatch: pytest.MonkeyPatch) -> Moments:
    return watch(monkeypatch)


def watch(patch: pytest.MonkeyPatch) -> Moments:
    """What happens to runs for as long as the patch lasts."""
    seen = Moments()

    class Watched(Console):
        def say(self, line: str) -> None:
            seen.said.append(line)

        def step(self, step: int) -> None:
            seen.step = step
            seen.happened("step")

        def burst(self, done: int, of: int) -> None:
            seen.happened("burst")

        def episode(self, episode_return: float) -> None:
            seen.happened("episode")

        def evaluating(self, done: int, of: int) -> None:
            seen.happened("evaluating")

    patch.setattr(common.run.train, "Console", Watched)
    return seen


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a test's run goes: a name that needs quoting everywhere."""
    return tmp_path / "ein Lauf, nº 1 — 走る"


@pytest.fixture(scope="session")
def stopped_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that SIGTERM stopped at step 17; its checkpoints are those of steps 15 and 17."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.MonkeyPatch.context() as patch:
        watch(patch).at("step", 17, lambda: os.kill(os.getpid(), tiny.SIGTERM))
        assert tiny.start(folder) == 75
    return folder


@pytest.fixture
def stopped(stopped_once: Path, folder: Path) -> Path:
    """A copy of it for one test."""
    shutil.copytree(stopped_once, folder)
    return folder
