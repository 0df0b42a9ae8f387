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
PAPER = RESULTS / "gpu" / "walker_stand-smg-paper-seed0"
"""The beginning of a run at the paper's size, which belongs to no study that is filled here."""


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
    assert {one.run.folder for one in found} == RUNS - {PAPER}


def test_the_beginning_at_the_papers_size_is_smg_as_published() -> None:
    said = ["eval.every=5000", "eval.shifts=[train,video_easy,video_hard]", "checkpoint.replay=none"]
    planned = load("smg", "walker_stand", "paper", overrides=said)
    assert list(differences(planned, load_run_config(PAPER))) == []
