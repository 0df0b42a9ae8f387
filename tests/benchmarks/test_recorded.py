"""The ranges in docs/metrics.md are those of the recorded runs."""

import json

import pytest

from benchmarks import recorded
from common.errors import UserError

PAGE = """# Title

| key | what | recorded | then |
|---|---|---|---|
| `step` | steps | | |
| `critic/q` | Q₁(o, a) | old | `step` \\| so |
| `other` | absent | 7 | |

| key | what | recorded |
|---|---|---|
| `dead/actor` | units | – |
"""


def write(folder, lines):
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_column_is_rewritten_and_nothing_else(tmp_path):
    steps = range(100, 4001, 100)
    write(tmp_path / "walker_stand-smg-seed0", [{"step": step, "critic/q": step / 100} for step in steps])
    dead = [{"step": step, "dead/actor": 0.25} for step in (1000, 3000)]
    write(tmp_path / "walker_stand-drq-seed1", [{"step": 3000, "critic/q": -12.4}, *dead])
    write(tmp_path / "notes", [{"step": 3000, "critic/q": 1e6}])
    values = recorded.collected(tmp_path)
    found = recorded.rewritten(PAGE, values)
    expected = PAGE.replace("old", "drq −12; smg 22 to 39, rising").replace("| 7 |", "| – |")
    assert found == expected.replace("units | –", "units | drq 0.25")
    assert recorded.rewritten(found, values) == found
    only = recorded.rewritten(PAGE, recorded.collected(tmp_path, ["smg"]))
    assert only == PAGE.replace("old", "smg 22 to 39, rising").replace("| 7 |", "| – |")
    # A second run as low as the first began: the range is of both, the trend of each.
    write(tmp_path / "walker_stand-smg-seed1", [{"step": step, "critic/q": step / 200} for step in steps])
    assert "smg 11 to 38, rising" in recorded.rewritten(PAGE, recorded.collected(tmp_path))
    write(tmp_path / "walker_stand-smg-seed2", [{"step": step, "critic/q": -step} for step in steps])
    assert "rising" not in recorded.rewritten(PAGE, recorded.collected(tmp_path))


def test_trends_follow_ranks():
    assert recorded.trend([2.0**-i for i in range(10)]) == ", falling"
    assert recorded.trend([0.0, 1.0] * 10) == recorded.trend([1.0] * 20) == recorded.trend([1.0, 2.0]) == ""


def test_a_folder_without_runs_is_named(tmp_path):
    with pytest.raises(UserError, match="holds no runs"):
        recorded.collected(tmp_path)
    write(tmp_path / "walker_stand-drq-seed0", [{"step": 4000, "critic/q": 5.0}])
    write(tmp_path / "walker_stand-svea-seed0", [{"step": 4000, "seconds": 5.0}])
    with pytest.raises(UserError, match="walker_stand-svea-seed0 has no metrics: it holds scores alone"):
        recorded.collected(tmp_path)
