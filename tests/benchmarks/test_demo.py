"""The demonstration's table and picture, from runs that were written and not trained."""

import math
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import demo
from common.errors import UserError
from common.report.pages import PALETTE
from common.study.definition import load_study
from common.study.results import collect
from tests.common.study.written_runs import write_run

RETURNS = {  # by agent and seed, the returns of two episodes in train and under video_hard
    "drq": {0: ([400, 440], [100, 120]), 1: ([500, 520], [80, 100])},
    "smg": {0: ([300, 320], [290, 310]), 1: ([340, 360], [330, 350])},
}


@pytest.fixture
def overrides(tmp_path: Path) -> list[str]:
    wanted = [f"folder={tmp_path / 'runs'}", "preset=smoke", "agents=[drq,smg]", "seeds=[0,1]"]
    return [*wanted, "eval.episodes=2", "eval.clips=null"]


@pytest.fixture
def results(overrides: list[str]):
    for run in load_study("laptop", overrides).runs:
        train, hard = RETURNS[run.column][run.seed]
        write_run(run, {"train": train, "video_easy": [10, 10], "video_hard": hard})
    return collect(load_study("laptop", overrides))


def row(text: str, name: str) -> list[str]:
    [line] = [line for line in text.splitlines() if line.startswith(name)]
    return line.split()


@pytest.mark.slow
def test_the_table_has_means_and_deviations_over_seeds_and_a_random_policy(
    results, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("SMG_DATA", raising=False)
    text = demo.table(results)
    cells = [f"465 ± {statistics.stdev([420, 510]):.0f}", "10 ± 0", f"100 ± {math.sqrt(200):.0f}"]
    assert row(text, "drq") == f"drq {' '.join(cells)} 0.22 0 min".split()
    assert row(text, "smg")[7] == "320" and row(text, "smg")[10] == "0.97"
    # Random actions for 80 simulator steps: between nothing and the 20 that standing upright would give.
    assert 0 < float(row(text, "random")[1]) < 80
    assert "±" not in row(text, "random")  # of one seed there is no deviation over seeds
    assert "2 episodes per shift and seed; mean ± sd over seed means" in text


def test_what_a_run_took_is_the_mean_of_what_is_known(results):
    cell = results.done_in("walker_stand", "drq")
    one, other = (replace(found, seconds=seconds) for found, seconds in zip(cell, (600, None), strict=True))
    assert demo.wall_text([one, replace(other, seconds=1200)]) == "15 min"
    assert demo.wall_text([one, other]) == "10 min (1 of 2)"
    assert demo.wall_text([other]) == "unknown"


def test_the_picture_has_a_curve_for_each_agent(results, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(demo, "strip", lambda results: {})  # these runs have no weights
    paths = demo.draw(results)
    assert paths == [results.study.folder / f"walker_stand.{kind}" for kind in ("pdf", "png")]
    with Image.open(paths[1]) as image:
        found = image.convert("RGB").getcolors(image.width * image.height)
    assert found is not None
    colours = {colour for _, colour in found}
    expected = [tuple(bytes.fromhex(PALETTE[name][0][1:])) for name in ("c0", "c1", "c2")]
    assert [colour in colours for colour in expected] == [True, True, False]


def test_without_runs_it_says_what_makes_them(overrides: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.argv", ["demo", *overrides])
    with pytest.raises(UserError, match=r"no finished runs in .*scripts/demo\.sh makes them"):
        demo.main()
