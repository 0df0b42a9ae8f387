"""Standard output and error as they may be: without the characters, closed, or without a reader."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import runs
from tests.reliability import tiny

pytestmark = pytest.mark.slow


def smg(folder: Path, redirections: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """Train a run of a second in `folder`, in a shell."""
    arguments = ["--agent", "sac", "--task", "finger_spin", "--preset", "smoke", *tiny.SETTINGS]
    command = [sys.executable, "-m", "common.cli", "train", *arguments, f"run.dir={json.dumps(str(folder))}"]
    shell = ["bash", "-c", f'set -o pipefail; "$@" {redirections}', "bash", *command]
    return subprocess.run(shell, capture_output=True, env=os.environ | variables)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in a folder whose name ASCII cannot show, trained with both streams closed."""
    folder = tmp_path_factory.mktemp("streams") / "läuft"
    trained = smg(folder, ">&- 2>&-")
    assert (trained.returncode, trained.stdout, trained.stderr) == (0, b"", b"")
    return folder


def test_nothing_that_libraries_print_gets_into_files(finished: Path):
    assert [line["step"] for line in runs.metrics(finished) if "loss/bellman" in line] == list(range(9, 25))
    assert [record["step"] for record in runs.evaluations(finished)] == [12, 24]


def test_what_a_stream_cannot_show_is_replaced(finished: Path):
    shown = smg(finished, "", PYTHONIOENCODING="ascii")
    assert shown.returncode == 0 and b"Traceback" not in shown.stderr
    assert b"run folder: " in shown.stdout and b"/l?uft\n" in shown.stdout


def test_messages_and_the_bar_are_replaced_too(tmp_path: Path):
    trained = smg(tmp_path / "läuft", "", PYTHONIOENCODING="ascii")
    assert trained.returncode == 0 and b"Traceback" not in trained.stderr
    assert b"/l?uft: sac on finger_spin" in trained.stderr and b"24/24" in trained.stderr


@pytest.mark.parametrize(
    ("redirections", "shown"), [("2>&-", b"sac on finger_spin after 24"), (">&-", b""), ("| true", b"")]
)
def test_a_closed_stream_changes_nothing_else(redirections: str, shown: bytes, finished: Path):
    ended = smg(finished, redirections)
    assert ended.returncode == 0 and shown in ended.stdout and b"Traceback" not in ended.stderr


def test_nobody_reading_messages_costs_them_alone(tmp_path: Path):
    trained = smg(tmp_path / "run", "2> >(true)")
    assert trained.returncode == 0 and b"sac on finger_spin after 24" in trained.stdout
