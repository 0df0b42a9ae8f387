"""Fixtures that several kinds of tests share."""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import torch

from common.run.signals import STATUS

if TYPE_CHECKING:
    from selenium import webdriver

# Whatever started the tests: under a real-time policy threads that spin while they wait, as a browser's and a
# matrix product's do, would keep a core from the thread that they wait for.
with suppress(AttributeError, OSError):  # not on Linux; refused
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """What is marked `gpu` skips without one."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.fixture(autouse=True, scope="session")
def signals_arrive() -> None:
    """What was ignored when the tests were started, as nohup and shells do, is not ignored in them."""
    for number in STATUS:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


@pytest.fixture(autouse=True, scope="session")
def clip_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep decoded clips out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SMG_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[webdriver.Chrome]":
    """Headless Chromium."""
    # Imported here, because a machine that is only to show what a GPU computes has no browser's driver.
    from tests.browser import chromium

    with chromium(tmp_path_factory.mktemp("chromium")) as session:
        yield session
