"""The tables in results/ are what the code of today makes of the runs beside them."""

from pathlib import Path

import pytest

from common.cli import main
from common.config.loading import load, load_run_config
from common.study.definition import load_study
from common.study.folders import State, differences, read

RESULTS = Path(__file__).parents[3] / "results"
OVERRIDES = {
    "laptop_video_hard": [],
    "laptop_ablation": [],
    "laptop_sgqn": [],
    "laptop_robot": [],
    # smg and drq are among laptop's, with other shifts.
    "variants": ["agents=[sada,smg_drift,smg_sada,smg_lite,smg_frames]"],
}
TABLES = sorted(RESULTS.glob("*/*.md"))
RUNS = {path.parent for path in RESULTS.glob("*/*/eval.jsonl")}
SHOWN = "eval.shifts=[train,video_easy,video_hard]"
PAPER_SIZE = {
    RESULTS / "paper_size" / "walker_stand-smg-seed0": ["eval.every=5000", SHOWN, "checkpoint.replay=none"],
    RESULTS / "paper_size" / "walker_stand-sgqn-seed0": ["eval.every=2500", SHOWN],
}
"""Beginnings of runs at the papers' sizes, with what was overridden; no study here is filled from them."""


@pytest.mark.parametrize("file", TABLES, ids=lambda path: path.stem)
def test_a_table_says_what_its_runs_say(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "table", file.stem, f"folder={file.parent}", *OVERRIDES[file.stem]]) == 0
    assert capsys.readouterr().out == file.read_text()


def test_every_run_is_the_one_that_a_study_would_make_under_its_name() -> None:
    plans = [(file.stem, file.parent, OVERRIDES[file.stem]) for file in TABLES]
    # These are in no table.
    plans += [("variants", RESULTS / "variants", ["tasks=[walker_walk]", *OVERRIDES["variants"]])]
    found = [
        read(run)
        for name, folder, overrides in plans
        for run in load_study(name, [f"folder={folder}", *overrides]).runs
        if run.folder in RUNS
    ]
    for one in found:
        assert one.state is State.DONE and one.config is not None, one.run.folder
        assert list(differences(one.run.config, one.config)) == [], one.run.folder
    assert {one.run.folder for one in found} == RUNS - set(PAPER_SIZE)


@pytest.mark.parametrize("run", PAPER_SIZE, ids=lambda run: run.name)
def test_a_beginning_at_the_papers_size_is_the_agent_as_published(run: Path) -> None:
    task, agent, _ = run.name.split("-")
    planned = load(agent, task, "paper", overrides=PAPER_SIZE[run])
    assert list(differences(planned, load_run_config(run))) == []
