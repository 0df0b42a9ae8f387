"""Tables: numbers against hand-computed ones, what is missing, and what is refused."""

import csv
import io
import re
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from common.study import formats
from common.study.definition import Study
from common.study.results import collect
from common.study.table import Table, build, lead
from tests.common.study.written_runs import PROVENANCE, STUDY, study, write_run

RETURNS = {  # by task and agent, the returns of both seeds
    ("walker_walk", "sac"): (100, 140),
    ("walker_walk", "drq"): (110, 90),
    ("walker_walk", "smg"): (800, 860),
    ("finger_spin", "sac"): (20, 30),
    ("finger_spin", "drq"): (50, 70),
    ("finger_spin", "smg"): (40, 44),
}


def written(folder: Path, *overrides: str, text: str = STUDY, without: tuple[str, ...] = ()) -> Study:
    """A study whose runs, but for those named, are done."""
    planned = study(folder, *overrides, text=text)
    for run in planned.runs:
        if run.name not in without:
            value = RETURNS[run.task, run.column][run.seed]
            write_run(run, {"video_hard": [value] * run.config.eval.episodes})
    return planned


def table_of(planned: Study, mix: bool = False) -> Table:
    return build(collect(planned, mix))


def test_cells_are_mean_and_sample_deviation_over_seed_means(tmp_path: Path) -> None:
    block = table_of(written(tmp_path)).blocks[0]
    sac = block.rows[0].cells[0]
    assert (sac.mean, sac.deviation, len(sac.scores), sac.episodes) == (120, pytest.approx(800**0.5), 2, 1)
    assert sac.published is not None
    assert (sac.published.mean, sac.published.deviation) == (132, 26)
    # Pooled: ((2 - 1)·800 + (4 - 1)·26²) / 4 = 707.
    assert sac.difference == pytest.approx((120 - 132) / 707**0.5)


def test_seed_means_come_before_the_mean_over_seeds(tmp_path: Path) -> None:
    planned = study(tmp_path, "eval.episodes=2", "tasks=walker_walk", "agents=smg")
    for run, returns in zip(planned.runs, ([0, 100], [300, 500]), strict=True):
        write_run(run, {"video_hard": returns})
    cell = table_of(planned).blocks[0].rows[0].cells[0]
    assert (cell.scores, cell.mean, cell.episodes) == ((50, 400), 225, 2)


def test_lead_is_over_the_best_other_agent(tmp_path: Path) -> None:
    walker, finger = table_of(written(tmp_path)).blocks[0].rows
    assert lead(walker, 2) == (pytest.approx(830 - 120), pytest.approx(100 * 710 / 120))
    assert lead(finger, 2) == (pytest.approx(42 - 60), pytest.approx(-30))


def test_averages_are_of_cells_and_aggregates_of_runs(tmp_path: Path) -> None:
    block = table_of(written(tmp_path)).blocks[0]
    assert block.average is not None
    assert block.average.ours == (pytest.approx(72.5), pytest.approx(80), pytest.approx(436))
    assert block.average.published == (pytest.approx(77), pytest.approx(82), pytest.approx(862))
    sac, drq, smg = block.aggregates
    # Four runs: one is cut off each end.
    assert (sac.runs, sac.interquartile_mean) == (4, (30 + 100) / 2)
    # Walker: SMG wins all pairs. Finger: against 50 and 70 it wins none.
    assert (drq.beaten, smg.beaten) == (0.5, None)


def test_missing_says_missing_and_nothing_is_averaged_over_it(tmp_path: Path) -> None:
    without = ("walker_walk/drq/seed0", "walker_walk/drq/seed1", "finger_spin/sac/seed1")
    table = table_of(written(tmp_path, without=without))
    block = table.blocks[0]
    assert block.rows[0].cells[1].mean is None
    assert block.average is not None
    assert block.average.ours == (pytest.approx((120 + 20) / 2), None, pytest.approx(436))
    assert block.aggregates[1].interquartile_mean is None
    # A task with a single run leaves the interval out.
    assert block.aggregates[0].interquartile_mean is not None
    assert block.aggregates[0].interval is None
    assert lead(block.rows[0], 2) is None
    text = formats.markdown(table)
    assert "| walker_walk | ours | 120 ± 28 (2×1) | missing | **830 ± 42 (2×1)** |  |" in text
    assert "20 (1×1)" in text


def test_unfinished_and_damaged_runs_are_listed_and_left_out(tmp_path: Path) -> None:
    planned = written(tmp_path)
    write_run(planned.runs[0], {"video_hard": [9999]}, steps=[30])
    (planned.runs[1].folder / "eval.jsonl").write_text("nonsense\n")
    table = table_of(planned)
    assert [reading.run for reading in table.left_out] == [planned.runs[0], planned.runs[1]]
    text = formats.markdown(table)
    assert "9999" not in text
    assert f"- {planned.runs[0].name}: unfinished (last evaluated at step 30 of 60)" in text
    assert f"- {planned.runs[1].name}: corrupt (" in text
    assert "eval.jsonl: line 1 is not JSON" in text


def test_markdown(tmp_path: Path) -> None:
    text = formats.markdown(table_of(written(tmp_path)))
    assert "2 seeds × 1 episodes in every cell" in text
    assert "preset smoke" in text
    assert "backgrounds of video_hard files, 100 clips, hash bb" in text
    assert "|  |  | sac | drq | smg | Δ smg |" in text
    assert "| walker_walk | ours | 120 ± 28 | 100 ± 14 | **830 ± 42** | +710 (+592%) |" in text
    assert "|  | paper | 132 ± 26 | 110 ± 33 | 814 ± 51 |  |" in text
    assert "| finger_spin | ours | 25 ± 7 | **60 ± 14** | 42 ± 3 | −18 (−30%) |" in text
    assert "|  | difference [sd] | −0.5 | −0.3 | +0.3 |  |" in text


def test_comma_separated_values_read_back(tmp_path: Path) -> None:
    planned = written(
        tmp_path, without=("walker_walk/drq/seed0", "walker_walk/drq/seed1", "walker_walk/sac/seed1")
    )
    rows = list(csv.DictReader(io.StringIO(formats.comma_separated(table_of(planned)))))
    assert len(rows) == 6 + 3
    found = {(row["task"], row["agent"]): row for row in rows}
    smg = found["walker_walk", "smg"]
    assert (float(smg["mean"]), float(smg["deviation"])) == (830, pytest.approx(1800**0.5))
    assert (smg["seeds"], smg["episodes_per_seed"], smg["published_mean"], smg["state"]) == (
        "2",
        "1",
        "814",
        "complete",
    )
    assert (found["walker_walk", "drq"]["mean"], found["walker_walk", "drq"]["state"]) == ("", "missing")
    assert found["walker_walk", "sac"]["state"] == "1 of 2 seeds"
    whole = {row["agent"]: row for row in rows if not row["task"]}
    assert (whole["drq"]["state"], whole["drq"]["interquartile_mean"]) == ("missing", "")
    # The middle half of 40, 44, 800 and 860.
    assert float(whole["smg"]["interquartile_mean"]) == (44 + 800) / 2
    assert float(whole["smg"]["interval_low"]) <= 422 <= float(whole["smg"]["interval_high"])
    # Of 800 and 860 against 100 and 120 all win; of 40 and 44 against 20 and 30 too.
    assert (float(whole["sac"]["subject_better"]), whole["smg"]["subject_better"]) == (1, "")


def test_latex_is_balanced_booktabs_without_bare_specials(tmp_path: Path) -> None:
    text = formats.latex(table_of(written(tmp_path)))
    for name in ("toprule", "midrule", "bottomrule", "end{tabular}"):
        assert text.count(f"\\{name}") == 2
    for form, cells in (("llrrrr", 6), ("lrrrr", 5)):
        body = text.split(rf"\begin{{tabular}}{{{form}}}")[1].split(r"\end{tabular}")[0]
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {cells}
    assert r"smg & 422 & [" in text and "P(smg better)" in text
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    assert not re.search(r"(?<!\\)[_#%]", body)
    assert body.isascii()
    assert r"walker\_walk & ours & 120 $\pm$ 28" in body
    assert r"\textbf{830 $\pm$ 42}" in body


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("env.model=smg", "model variant: dmcgb in 11 runs such as walker_walk/sac/seed0, but smg in 1 runs"),
        (
            "eval.episodes=3",
            "episodes: 1 per seed in 11 runs such as walker_walk/sac/seed0, but 3 per seed in 1",
        ),
        ("eval.clips=[0, 4]", "clips shown: all in 11 runs such as walker_walk/sac/seed0, but 0 to 4 in 1"),
        (
            "optim.actor.lr=0.01",
            "optim.actor.lr: 0.001 in finger_spin/smg/seed0, but 0.01 in finger_spin/smg/seed1",
        ),
    ],
)
def test_runs_that_differ_are_refused_and_mixed_only_on_demand(
    tmp_path: Path, override: str, reason: str
) -> None:
    planned = written(tmp_path)
    other = study(tmp_path, override).runs[-1]
    write_run(other, {"video_hard": [44.0] * other.config.eval.episodes})
    with pytest.raises(UserError, match="do not belong in one table") as caught:
        table_of(planned)
    assert reason in str(caught.value)
    assert "--mix" in str(caught.value)
    table = table_of(planned, mix=True)
    assert table.blocks[0].rows[1].cells[2].mean == 42
    assert any(reason in note for note in table.notes)


def test_procedural_backgrounds_do_not_mix_with_clips(tmp_path: Path) -> None:
    planned = written(tmp_path)
    data = {"source": "procedural", "video_hard": {"clips": 100, "hash": None}}
    write_run(planned.runs[3], {"video_hard": [44.0]}, provenance=PROVENANCE | {"data": data})
    with pytest.raises(UserError, match="backgrounds of video_hard: files, 100 clips, hash bb in 11 runs"):
        table_of(planned)
    # The training view shows no backgrounds.
    assert table_of(study(tmp_path, "shifts=train")).blocks[0].rows[0].cells[0].mean == 1


def test_presets_do_not_mix(tmp_path: Path) -> None:
    planned = written(tmp_path)
    other = study(tmp_path, "preset=laptop").runs[0]
    write_run(other, steps=[other.config.train.steps])
    with pytest.raises(
        UserError, match="preset: laptop in 1 runs such as walker_walk/sac/seed0, but smoke in 11"
    ):
        table_of(planned)


def test_a_table_of_other_settings_than_the_study_says_so(tmp_path: Path) -> None:
    written(tmp_path, "sac.discount=0.9")
    notes = table_of(study(tmp_path)).notes
    assert notes[-1] == "Not as the study is written: sac.discount (0.9 instead of 0.99)."
    # Also if the table is asked for with the overrides that the runs were made with.
    assert table_of(study(tmp_path, "sac.discount=0.9")).notes[-1] == notes[-1]
    assert table_of(study(tmp_path, "agents=[sac]", "sac.discount=0.9")).notes[-1] == notes[-1]


def test_scores_published_of_changed_models_are_called_so(tmp_path: Path) -> None:
    def notes(*overrides: str) -> str:
        planned = study(tmp_path, "tasks=[cheetah_run]", *overrides)
        for run in planned.runs:
            write_run(run)
        return " ".join(table_of(planned).notes)

    assert "cheetah_run: the published scores are of SMG's changed models" in notes()
    assert "changed models" not in notes("env.model=smg")


def test_photographs_and_procedural_overlays_do_not_mix(tmp_path: Path) -> None:
    def overlay(source: str, names: str) -> dict[str, Any]:
        return PROVENANCE | {"overlay": {"source": source, "images": 9, "sha256": names}}

    planned = written(tmp_path)
    for run in planned.runs:
        # SAC and DrQ draw none; procedural images of each seed are their own.
        unused = run.column in ("sac", "drq") and run.seed == 1
        write_run(run, provenance=overlay("photographs" if unused else "procedural", str(run.seed)))
    assert table_of(planned).blocks
    chosen = [run for run in planned.runs if run.column == "smg"]
    for run in chosen:
        write_run(run, provenance=overlay("photographs", "one" if run is chosen[0] else "two"))
    with pytest.raises(UserError, match="overlay images: photographs, 9, names' hash one in 1 runs"):
        table_of(planned)


def test_robotic_tasks_have_a_block_each_with_the_average_of_the_tests(tmp_path: Path) -> None:
    text = """
    published: smg_peg_in_box
    shifts: [train, test1, test2]
    seeds: [0, 1]
    preset: smoke
    tasks: [robot_peg_in_box]
    agents: [drq, smg]
    """
    planned = study(tmp_path, text=text)
    for run in planned.runs:
        base = 200 + run.seed if run.column == "smg" else 10 * run.seed
        write_run(run, {"train": [300], "test1": [base], "test2": [base + 4]})
    table = table_of(planned)
    (block,) = table.blocks
    assert [row.label for row in block.rows] == ["train", "test1", "test2"]
    assert block.average is not None
    assert block.average.label == "average of tests"
    assert block.average.ours == (pytest.approx(7), pytest.approx(202.5))
    assert block.average.published == (pytest.approx((63 - 40) / 2), pytest.approx((237 + 219) / 2))
    assert block.aggregates[1].runs == 2
    assert block.aggregates[1].interquartile_mean == pytest.approx(202.5)
    assert any("arm and meshes are not" in note for note in table.notes)
    assert "202.5" in formats.markdown(table)


def test_a_study_without_a_single_run_has_a_table(tmp_path: Path) -> None:
    table = table_of(study(tmp_path))
    assert formats.markdown(table).count("| missing | missing | missing |") == 3
    assert table.left_out == ()
