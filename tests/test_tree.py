"""The checkout stays small enough to carry to another machine."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIMIT = 20_000_000
"""Bytes of all tracked files."""


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs a git checkout")
def test_tracked_files_are_few_megabytes() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    sizes = {name: (ROOT / name).stat().st_size for name in listed.decode().split("\0") if name}
    largest = sorted(sizes, key=lambda name: -sizes[name])[:5]
    assert sum(sizes.values()) <= LIMIT, f"the largest are {', '.join(largest)}"
