"""Tables: numbers against hand-computed ones, what is missing, and what is refused."""

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from common.config.loading import load, to_yaml
from common.errors import UserError
from common.study import formats
from common.study.definition import Study
from common.study.results import collect
from common.study.table import Table, build, lead
from tests.common.study.written_runs import PROVENANCE, STUDY, study, write_lines, write_run

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
    # The preset smoke is not what was published.
    assert (sac.meets_conditions, sac.difference) == (False, None)


PAPER = """
published: smg_video_hard
shifts: [video_hard]
seeds: [0, 1]
preset: paper
settings: {train: {batch: 64}, network: {latent: 256}, eval: {episodes: 1}}
tasks: [walker_walk, cartpole_swingup]
agents: [sac, smg]
"""


def paper_table(folder: Path, *overrides: str, text: str = PAPER) -> Table:
    folder.mkdir(exist_ok=True)
    planned = study(folder, *overrides, text=text)
    for run in planned.runs:
        returns = {"sac": (100, 140), "smg": (800, 860)}[run.config.agent]
        write_run(run, {"video_hard": [returns[run.seed]]}, steps=[run.config.train.steps])
    return table_of(planned)


def test_a_difference_is_of_runs_that_meet_the_published_conditions(tmp_path: Path) -> None:
    walker, cartpole = paper_table(tmp_path).blocks[0].rows
    # Pooled: ((2 - 1)·800 + (4 - 1)·26²) / 4 = 707.
    assert walker.cells[0].difference == pytest.approx((120 - 132) / 707**0.5)
    # The published cartpole is a changed one.
    assert [cell.difference for cell in cartpole.cells] == [None, None]
    changed = paper_table(tmp_path / "changed", "env.model=smg").blocks[0].rows[1]
    assert changed.cells[1].difference == pytest.approx((830 - 764) / ((1800 + 3 * 32**2) / 4) ** 0.5)


def test_a_robotic_tasks_scores_are_shown_but_not_compared_in_numbers(tmp_path: Path) -> None:
    text = PAPER.replace("[walker_walk, cartpole_swingup]", "[robot_peg_in_box]")
    text = text.replace("smg_video_hard", "smg_peg_in_box").replace("[video_hard]", "[train, test1]")
    cells = [cell for row in paper_table(tmp_path, text=text).blocks[0].rows for cell in row.cells]
    assert [cell.published and cell.published.mean for cell in cells] == [31, 237, -33, 237]
    assert [(cell.meets_conditions, cell.difference) for cell in cells] == [(True, None)] * 4


def test_published_scores_stand_in_a_column_headed_by_their_conditions(tmp_path: Path) -> None:
    table = paper_table(tmp_path)
    text = formats.markdown(table)
    head = (
        "| task | agent | ours | seeds × episodes | SMG poster (4 seeds × 5 episodes): 500,000 agent steps, "
        "batch 64, latent 256, 84×84 pixels, frames 3, action repeat 4, action repeat 8 (cartpole_swingup), "
        "models smg (cartpole_swingup) | difference [sd] |"
    )
    assert head in text
    assert "| walker_walk | sac | 120 ± 28 | 2 × 1 | 132 ± 26 | −0.5 |" in text
    assert "|  | smg | **830 ± 42** | 2 × 1 | 814 ± 51 | +0.3 |" in text
    assert "| cartpole_swingup | sac | 120 ± 28 | 2 × 1 | 156 ± 16* |  |" in text
    note = "* Published of other settings than ours, so not compared in numbers: models smg (here dmcgb) for "
    assert f"\\{note}cartpole_swingup." in text
    # Where the whole table is in one paragraph, the conditions are too.
    assert any(
        found.startswith("Published scores: SMG poster (4 seeds × 5 episodes): 500,000")
        for found in table.notes
    )
    assert r"models smg (here dmcgb) for cartpole\_swingup" in formats.latex(table)
    rows = list(csv.DictReader(io.StringIO(formats.comma_separated(table))))
    assert [row["conditions_unmet"] for row in rows] == ["0", "0", "1", "1", "", ""] + [""] * len(table.notes)


def test_a_note_tells_when_an_agents_own_code_changed_between_its_runs(tmp_path: Path) -> None:
    planned = study(tmp_path, "tasks=[walker_walk]")
    for run in planned.runs:  # of another file in each column, which is as it should be
        write_run(run, provenance=PROVENANCE | {"agent_code": {f"{run.column}.py": "11" * 32}})
    assert not any("code of" in note for note in build(collect(planned)).notes)
    [first, second] = [run for run in planned.runs if run.column == "smg"]
    write_run(second, provenance=PROVENANCE | {"agent_code": {"smg.py": "22" * 32}})
    note = f"The code of smg is not the same in all its runs: smg.py 1111111111 in {first.name}, but smg.py "
    assert f"{note}2222222222 in {second.name}." in build(collect(planned)).notes
    (second.folder / "provenance-until-30.json").write_text(json.dumps(PROVENANCE))
    assert any(
        f"unknown, then smg.py 2222222222 in {second.name}." in note for note in build(collect(planned)).notes
    )


def test_the_note_names_what_is_unmet_under_every_shift(tmp_path: Path) -> None:
    text = PAPER.replace("smg_video_hard", "sgqn_table1").replace("[video_hard]", "[video_easy, video_hard]")
    text = text.replace("[sac, smg]", "[sac, sgqn]").replace(", cartpole_swingup]", "]")
    easy = {"source": "dmcgb", "video_easy": {"clips": 4}, "video_hard": {"clips": 100}}
    for data, unmet in (
        (easy, "10 clips of video_easy (here 4)"),
        (
            easy | {"video_hard": {"clips": 50}},
            "10 clips of video_easy (here 4), 100 clips of video_hard (here 50)",
        ),
    ):
        planned = study(tmp_path, text=text)
        for run in planned.runs:
            write_run(run, steps=[run.config.train.steps], provenance=PROVENANCE | {"data": data})
        notes = build(collect(planned)).notes
        [starred] = [note for note in notes if note.startswith("* Published")]
        assert starred.endswith(f"latent 100 (here 256), {unmet}.")


def test_a_column_of_another_method_has_no_published_score(tmp_path: Path) -> None:
    text = PAPER.replace(
        "[sac, smg]",
        "{sac: {}, smg: {agent: smg, losses: {background: 0}}, low: {agent: smg, smg: {rho: 0.02}}}",
    )
    cells = paper_table(tmp_path, text=text).blocks[0].rows[0].cells
    assert [cell.published and cell.published.mean for cell in cells] == [132, None, None]


def test_procedural_backgrounds_do_not_meet_the_published_conditions(tmp_path: Path) -> None:
    planned = study(tmp_path, "tasks=walker_walk", text=PAPER)
    data = PROVENANCE | {"data": {"source": "procedural"}}
    for run in planned.runs:
        write_run(run, steps=[run.config.train.steps], provenance=data)
    table = table_of(planned)
    assert not table.blocks[0].rows[0].cells[1].meets_conditions
    assert "the benchmark's backgrounds (here procedural)" in table.notes[-1]


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


def test_a_missing_cell_is_a_dash_and_its_task_counts_for_no_agent(tmp_path: Path) -> None:
    without = ("walker_walk/drq/seed0", "walker_walk/drq/seed1", "finger_spin/sac/seed1")
    table = table_of(written(tmp_path, without=without))
    block = table.blocks[0]
    assert block.rows[0].cells[1].mean is None
    assert block.counted == ("finger_spin",)
    assert block.average is None  # of one task
    # Of finger spin alone: 20; 50 and 70; 40 and 44.
    assert [item.interquartile_mean for item in block.aggregates] == [20, 60, 42]
    # A task with a single run leaves the interval out.
    assert [item.interval is None for item in block.aggregates] == [True, False, False]
    assert [item.beaten for item in block.aggregates] == [1, 0, None]
    assert lead(block.rows[0], 2) is None
    text = formats.markdown(table)
    assert "| walker_walk | sac | 120 ± 28 | 2 × 1 | 132 ± 26* |" in text
    assert "|  | drq | - | - | 110 ± 33* |" in text
    assert "| finger_spin | sac | 20 | 1 × 1 | 22 ± 10* |" in text
    assert "| walker_walk | - |" in text and "| finger_spin | −18 (−30%) |" in text
    assert "Averages, IQM and P are over finger_spin." in text
    # Two agents of the walker, and of finger spin all three.
    assert "The mean of Kendall's τ is over walker_walk, finger_spin." in text
    assert "seeds × episodes beside each" in text


def test_runs_beyond_the_grid_and_cells_that_are_left_out(tmp_path: Path) -> None:
    text = (
        STUDY
        + """more:
- {tasks: [walker_walk], agents: [smg], seeds: [2]}
- {tasks: [cheetah_run], agents: [drq, smg], seeds: [0]}
"""
    )
    planned = study(tmp_path, text=text)
    for run in planned.runs:
        value = RETURNS.get((run.task, run.column), (5, 7))[run.seed] if run.seed < 2 else 875
        write_run(run, {"video_hard": [value]})
    block = table_of(planned).blocks[0]
    walker, _, cheetah = block.rows
    assert walker.cells[2].scores == (800, 860, 875)
    assert [cell.planned for cell in cheetah.cells] == [0, 1, 1]
    # A lead over those that the study has there; both returned 5.
    assert lead(cheetah, 2) == (0, 0)
    assert lead(walker, 2) == (pytest.approx(845 - 120), pytest.approx(100 * 725 / 120))
    # SAC has no run of cheetah, which therefore counts for nobody.
    assert block.counted == ("walker_walk", "finger_spin")
    assert block.average is not None
    assert block.average.ours == (pytest.approx(72.5), pytest.approx(80), pytest.approx((845 + 42) / 2))
    # In thirtieths, finger's runs weigh 7.5 each and the walker's three 5 each; 6 are cut off each end.
    iqm = (1.5 * 40 + 7.5 * 44 + 5 * 800 + 4 * 860) / 18
    assert (block.aggregates[2].runs, block.aggregates[2].interquartile_mean) == (5, pytest.approx(iqm))
    text = formats.markdown(table_of(planned))
    assert "|  | smg | **845 ± 40** | 3 × 1 |" in text
    assert "| cheetah_run | drq | **5** | 1 × 1 |" in text and "| cheetah_run | sac" not in text
    assert "Averages, IQM and P are over walker_walk, finger_spin." in text
    assert re.search(r"\| mean \| .* \| 2 to 3 \|\n", text)  # SAC is compared on two of the three tasks
    states = {
        (row["task"], row["agent"]): row["state"]
        for row in csv.DictReader(io.StringIO(formats.comma_separated(table_of(planned))))
    }
    assert states["cheetah_run", "sac"] == "not planned" and states["walker_walk", "smg"] == "complete"


def test_the_order_of_the_agents_is_compared_with_the_published_one(tmp_path: Path) -> None:
    block = table_of(written(tmp_path)).blocks[0]
    # Walker, printed: DrQ 110, SAC 132, SMG 814; ours: DrQ 100, SAC 120, SMG 830. Finger, printed: SAC 22,
    # DrQ 54, SMG 910; ours: SAC 25, SMG 42, DrQ 60, one pair of three reversed.
    (walker, finger), mean = block.orders, block.mean_order
    assert (walker.label, walker.agents, walker.tau) == ("walker_walk", (3, 3), 1)
    assert (finger.label, finger.agents, finger.tau) == ("finger_spin", (3, 3), pytest.approx(1 / 3))
    assert mean is not None and (mean.label, mean.tau) == ("mean", pytest.approx(2 / 3))
    # Drawing seeds: SAC's 100 to 140 and DrQ's 90 to 110 can change places, SMG's cannot; on finger nothing
    # can, as 20 to 30, 40 to 44 and 50 to 70 lie apart.
    assert walker.interval == (pytest.approx(1 / 3), 1)
    assert finger.interval == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    text = formats.markdown(table_of(study(tmp_path)))
    assert "|  | Δ smg | Kendall's τ with the paper's order | 95% interval | agents |" in text
    assert "| walker_walk | +710 (+592%) | 1.00 | [0.33, 1.00] | 3 |" in text
    assert "| mean | - | 0.67 |" in text


def test_hours_are_summed_by_agent_and_device(tmp_path: Path) -> None:
    planned = written(tmp_path)
    write_run(planned.runs[0], {"video_hard": [100]}, provenance=PROVENANCE | {"device": "GPU"})
    table = table_of(planned)
    found = {(cost.column, cost.device): (cost.runs, cost.hours) for cost in table.costs}
    # A written run took 30 seconds.
    assert planned.runs[0].column == "sac"
    assert found["sac", "GPU"] == (1, pytest.approx(30 / 3600))
    assert found["smg", "CPU, 2 threads"] == (4, pytest.approx(120 / 3600))
    # Of a run that went on elsewhere nobody knows the hours on each device.
    (planned.runs[3].folder / "provenance-until-30.json").write_text(json.dumps({"device": "GPU"}))
    moved = {(cost.column, cost.device): cost.runs for cost in table_of(planned).costs}
    assert moved["sac", "GPU and CPU, 2 threads"] == 1 and moved["sac", "CPU, 2 threads"] == 2
    text = formats.markdown(table)
    assert "| smg | CPU, 2 threads | 4 | 0.03 |" in text
    assert "| all | CPU, 2 threads | 11 | 0.09 |" in text and "| all | GPU | 1 | 0.01 |" in text


def test_one_seed_has_no_deviation(tmp_path: Path) -> None:
    planned = study(tmp_path, "seeds=0")
    for run in planned.runs:
        write_run(run, {"video_hard": [RETURNS[run.task, run.column][0]]})
    table = table_of(planned)
    text = formats.markdown(table)
    assert "Episode return, mean of each run's last evaluation; 1 seed × 1 episode in every cell." in text
    assert "| walker_walk | sac | 100 | 1 × 1 |" in text
    assert "± 0" not in text and "100 ±" not in formats.latex(table)


def test_shifts_that_hardly_change_the_picture_are_named(tmp_path: Path) -> None:
    planned = study(tmp_path, "shifts=[train,video_easy,video_hard]")
    for run in planned.runs:
        shares = {"train": 0.0, "color_easy": 0.0, "video_easy": 0.03, "video_hard": 0.8}
        if run.task == "finger_spin":
            shares |= {"video_easy": 0.5, "video_hard": 0.08}
        write_run(run, provenance=PROVENANCE | {"shifts": shares})
    notes = [note for note in table_of(planned).notes if "hardly shows" in note]
    assert [note.partition("'")[0] for note in notes] == ["walker_walk", "finger_spin"]
    assert [note.partition("changes: ")[2] for note in notes] == ["video_easy 3.0%.", "video_hard 8.0%."]


def test_unfinished_and_damaged_runs_are_listed_and_left_out(tmp_path: Path) -> None:
    planned = written(tmp_path)
    write_run(planned.runs[0], {"video_hard": [9999]}, steps=[30])
    (planned.runs[1].folder / "eval.jsonl").write_text("nonsense\n")
    table = table_of(planned)
    assert [found.run for found in table.left_out] == [planned.runs[0], planned.runs[1]]
    text = formats.markdown(table)
    assert "9999" not in text
    assert f"- {planned.runs[0].name}: unfinished (last evaluated at step 30 of 60)" in text
    assert f"- {planned.runs[1].name}: corrupt (" in text
    assert "eval.jsonl: line 1 is not JSON" in text


def test_markdown(tmp_path: Path) -> None:
    text = formats.markdown(table_of(written(tmp_path)))
    assert "2 seeds × 1 episode in every cell" in text
    assert "preset smoke" in text
    assert "backgrounds of video_hard files, 100 clips, hash bb" in text
    assert (
        "| task | agent | ours | seeds × episodes | SMG poster (4 seeds × 5 episodes): 500,000 agent steps, "
        in text
    )
    assert "| walker_walk | sac | 120 ± 28 | 2 × 1 | 132 ± 26* |" in text
    assert "|  | drq | 100 ± 14 | 2 × 1 | 110 ± 33* |" in text
    assert "|  | smg | **830 ± 42** | 2 × 1 | 814 ± 51* |" in text
    assert "| finger_spin | sac | 25 ± 7 | 2 × 1 |" in text and "|  | drq | **60 ± 14** | 2 × 1 |" in text
    assert "difference" not in text
    assert "| finger_spin | −18 (−30%) | 0.33 |" in text
    assert "|  | average | paper | IQM | 95% interval | runs | P(smg better) |" in text
    assert "| drq | 80 | 82 | 80 |" in text
    assert "500,000 agent steps (here 60)" in text


def test_comma_separated_values_read_back(tmp_path: Path) -> None:
    planned = written(
        tmp_path, without=("walker_walk/drq/seed0", "walker_walk/drq/seed1", "walker_walk/sac/seed1")
    )
    rows = list(csv.DictReader(io.StringIO(formats.comma_separated(table_of(planned)))))
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
    whole = {row["agent"]: row for row in rows if row["agent"] and not row["task"]}
    assert len(found.keys() - {("", "")}) == 6 + len(whole) == 6 + 3
    # DrQ lacks the walker, so only finger spin counts.
    assert (whole["drq"]["state"], float(whole["drq"]["interquartile_mean"])) == ("1 of 2 tasks", 60)
    assert whole["drq"]["counted"] == "finger_spin"
    assert whole["drq"]["notes"].startswith("Averages, IQM and P are over finger_spin.")
    assert "50% of cases with 2 seeds (simulated" in whole["drq"]["notes"]
    assert float(whole["smg"]["interquartile_mean"]) == (40 + 44) / 2
    assert float(whole["smg"]["interval_low"]) <= 42 <= float(whole["smg"]["interval_high"])
    # Of 40 and 44 against 20 and 30 all win.
    assert (float(whole["sac"]["subject_better"]), whole["smg"]["subject_better"]) == (1, "")


def test_statistics_of_all_tasks_are_complete_unless_seeds_are_missing(tmp_path: Path) -> None:
    planned = written(tmp_path, without=("walker_walk/sac/seed1",))
    rows = csv.DictReader(io.StringIO(formats.comma_separated(table_of(planned))))
    whole = {row["agent"]: row for row in rows if row["agent"] and not row["task"]}
    assert {agent: (row["state"], row["counted"]) for agent, row in whole.items()} == {
        "sac": ("seeds missing", "walker_walk finger_spin"),
        "drq": ("complete", "walker_walk finger_spin"),
        "smg": ("complete", "walker_walk finger_spin"),
    }
    # One of SAC's cells has a single seed.
    assert (whole["sac"]["interval_low"], whole["sac"]["better_low"]) == ("", "")
    assert float(whole["smg"]["interval_low"]) < 422


def test_where_no_task_counts_the_notes_say_so(tmp_path: Path) -> None:
    without = [f"{cell}/seed{seed}" for cell in ("walker_walk/drq", "finger_spin/sac") for seed in (0, 1)]
    rows = csv.DictReader(
        io.StringIO(formats.comma_separated(table_of(written(tmp_path, without=tuple(without)))))
    )
    whole = [row for row in rows if row["agent"] and not row["task"]]
    assert {row["state"] for row in whole} == {"missing"}
    assert all("over no task, as each lacks an agent's runs" in row["notes"] for row in whole)


def test_warnings_stand_where_readers_of_latex_and_csv_see_them(tmp_path: Path) -> None:
    planned = written(tmp_path, "sac.discount=0.9")
    other = study(tmp_path, "env.model=smg").runs[-1]
    write_run(other, {"video_hard": [44]})
    (planned.runs[0].folder / "eval.jsonl").write_text("100%\n")
    table = table_of(study(tmp_path), mix=True)
    mixed = "Runs that differ are mixed here: model variant: dmcgb in 10 runs such as "
    left_out = f"Left out: {planned.runs[0].name}, corrupt ("
    note = (
        "95% intervals are too narrow with few seeds: on one task, those of a mean hold the true one in 50%"
    )
    text = formats.latex(table)
    body = text.split(r"\parbox")[1].split(r"\end{table}")[0]
    for warning in (mixed, "sac.discount (0.9 instead of 0.99", left_out, note):
        assert warning.replace("_", r"\_").replace("%", r"\%") in body
    assert not any(line.startswith("%") for line in text.splitlines())
    rows = list(csv.DictReader(io.StringIO(formats.comma_separated(table))))
    notes = "\n".join(row["notes"] for row in rows if row["state"] == "note")
    for warning in (mixed, "sac.discount (0.9 instead of 0.99", left_out):
        assert warning in notes
    assert all(note in row["notes"] for row in rows if row["agent"] and not row["task"])


@pytest.mark.parametrize(
    ("seeds", "shares"),
    [
        ([1], None),
        ([2], "50% of cases with 2 seeds"),
        ([3, 4, 1], "75% of cases with 3 seeds, 80% of cases with 4 seeds"),
        ([5], None),
    ],
)
def test_what_few_seeds_intervals_cover_is_said(tmp_path: Path, seeds: list[int], shares: str | None) -> None:
    planned = study(tmp_path, "seeds=[0,1,2,3,4]", "tasks=walker_walk")
    for run in planned.runs:
        count = dict(zip(planned.columns, seeds * 3, strict=False))[run.column]
        if run.seed < count:
            write_run(run, {"video_hard": [100 + run.seed]})
    text = formats.markdown(table_of(planned))
    expected = [] if shares is None else [f"those of a mean hold the true one in {shares} (simulated,"]
    assert re.findall(r"those of a mean hold .*? \(simulated,", text) == expected
    assert ("none from 1 seed" in text) == (1 in seeds)


def test_latex_is_balanced_booktabs_without_bare_specials(tmp_path: Path) -> None:
    text = formats.latex(table_of(written(tmp_path)))
    for name in ("toprule", "midrule", "bottomrule", "end{tabular}"):
        assert text.count(f"\\{name}") == 4
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 2
    for form, cells in (("llrrrr", 6), ("lrrr", 4), ("lrrrr", 5), ("llrr", 4)):
        body = text.split(rf"\begin{{tabular}}{{{form}}}")[1].split(r"\end{tabular}")[0]
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {cells}
    assert r"smg & 422 & [" in text and "P(smg better)" in text
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    assert not re.search(r"(?<!\\)[_#%]", body)
    assert body.isascii()
    assert r"walker\_walk & ours & 120 $\pm$ 28" in body
    assert r"\textbf{830 $\pm$ 42}" in body
    assert r" & Kendall's $\tau$ with the paper's order & 95\% interval & agents \\" in body
    assert r"walker\_walk & 1.00 & [0.33, 1.00] & 3 \\" in body and "mean & 0.67 & [" in body
    # Of 30 seconds each.
    assert r"smg & CPU, 2 threads & 4 & 0.03 \\" in body and r"all & CPU, 2 threads & 12 & 0.10 \\" in body


def test_what_a_table_leaves_out_of_its_averages_is_said_in_latex_too(tmp_path: Path) -> None:
    without = ("walker_walk/drq/seed0", "walker_walk/drq/seed1")
    text = formats.latex(table_of(written(tmp_path, without=without)))
    assert "Averages, IQM and P are over finger\\_spin.\nThe mean of Kendall's $\\tau$ is over walker" in text


ELEVEN = "11 runs such as walker_walk/sac/seed0"


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("env.model=smg", f"model variant: dmcgb in {ELEVEN}, but smg in finger_spin/smg/seed1"),
        ("eval.episodes=3", f"episodes: 1 per seed in {ELEVEN}, but 3 per seed in finger_spin/smg/seed1"),
        ("eval.clips=[0, 4]", f"clips shown: all in {ELEVEN}, but 0 to 4 in finger_spin/smg/seed1"),
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


@pytest.mark.parametrize("seeds", ["one seed", "a seed of every cell"])
def test_seeds_of_unequal_episodes_are_counted_one_by_one(tmp_path: Path, seeds: str) -> None:
    planned = written(tmp_path)
    longer = [run for run in study(tmp_path, "eval.episodes=3").runs if run.seed == 1]
    for run in longer if seeds == "a seed of every cell" else longer[-1:]:
        write_run(run, {"video_hard": [44.0] * 3})
    table = table_of(planned, mix=True)
    text = formats.markdown(table)
    assert "seeds × episodes beside each" in text and "| 1 × 1 + 1 × 3 |" in text
    assert "in every cell" not in text + formats.latex(table)
    assert r"(1$\times$1 + 1$\times$3)" in formats.latex(table)
    lines = list(csv.DictReader(io.StringIO(formats.comma_separated(table))))
    [cell] = [line for line in lines if (line["task"], line["agent"]) == ("finger_spin", "smg")]
    assert (cell["seeds"], cell["episodes_per_seed"]) == ("2", "")


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
    with pytest.raises(UserError, match="preset: laptop in walker_walk/sac/seed0, but smoke in 11"):
        table_of(planned)


def test_a_table_of_other_settings_than_the_study_says_so(tmp_path: Path) -> None:
    written(tmp_path, "sac.discount=0.9")
    note = "Not as the study is written: sac.discount (0.9 instead of 0.99 in all runs)."
    assert note in table_of(study(tmp_path)).notes
    # Also if the table is asked for with the overrides that the runs were made with.
    assert note in table_of(study(tmp_path, "sac.discount=0.9")).notes
    assert note in table_of(study(tmp_path, "agents=[sac]", "sac.discount=0.9")).notes


def test_runs_that_depart_from_the_study_are_named(tmp_path: Path) -> None:
    planned = written(tmp_path)
    departing = ("walker_walk/sac/seed0", "walker_walk/sac/seed1", "walker_walk/smg/seed1")
    for run in study(tmp_path, "optim.actor.lr=0.01").runs:
        if run.column == "drq" or run.name in departing:
            write_run(run, {"video_hard": [RETURNS[run.task, run.column][run.seed]]})
    note = (
        "Not as the study is written: optim.actor.lr (0.01 instead of 0.001 in every run of walker_walk/sac "
        "and every run of drq and walker_walk/smg/seed1)."
    )
    assert note in table_of(planned, mix=True).notes


def test_runs_of_unplanned_lengths_do_not_mix(tmp_path: Path) -> None:
    planned = written(tmp_path)
    longer = study(tmp_path, "train.steps=120")
    for run in longer.runs:
        if run.column == "drq":
            write_run(run, steps=[60, 120])
    reason = "train.steps: unequal, 120 instead of 60 in every run of drq"
    with pytest.raises(
        UserError, match=f"one table: {reason}. Leave some out with tasks=, agents= or seeds="
    ):
        table_of(planned)
    assert f"Runs that differ are mixed here: {reason}." in table_of(planned, mix=True).notes
    # Nor where the longer ones are what is asked for.
    with pytest.raises(UserError, match="60 instead of 120 in every run of sac and every run of smg"):
        table_of(longer)
    # Equal lengths are only told, and so are unequal ones that the study or the command line plans.
    assert "train.steps (120 instead of 60 in all runs)" in table_of(study(tmp_path, "agents=drq")).notes[1]
    asked = table_of(study(tmp_path, "agents.drq.train.steps=120"))
    assert "train.steps (120 instead of 60 in every run of drq)" in asked.notes[1]
    text = STUDY.replace("[sac, drq, smg]", "{sac: {}, drq: {train: {steps: 120}}, smg: {}}")
    assert not any("train.steps (" in note for note in table_of(study(tmp_path, text=text)).notes)


def test_runs_of_several_commits_are_named(tmp_path: Path) -> None:
    planned = written(tmp_path)
    assert not any("commit" in note for note in table_of(planned).notes)
    first, second, third, *_ = planned.runs
    newer, oldest = ({"git_commit": letter * 40} for letter in "ba")
    write_run(first, {"video_hard": [100]}, provenance=PROVENANCE | {"git_commit": "c" * 40 + "-dirty"})
    for step, earlier in ((5, oldest), (30, newer)):
        (second.folder / f"provenance-until-{step}.json").write_text(json.dumps(earlier))
    (third.folder / "provenance-until-30.json").write_text('{"git_commit": "\\ud800"}')
    (third.folder / "provenance-until-40.json").write_text("damaged")
    done = collect(planned, mix=True).done
    assert [found.run.name for found in done[:3]] == [first.name, second.name, third.name]
    note = (
        f"The runs are not of one clean commit: cccccccccc (dirty) in {first.name}, "
        f"aaaaaaaaaa and bbbbbbbbbb and 0123456789 in {second.name}, unknown and 0123456789 in {third.name}, "
        "0123456789 elsewhere."
    )
    assert note in table_of(planned, mix=True).notes
    for run in planned.runs:
        write_run(run, provenance=PROVENANCE | {"git_commit": "c" * 40 + "-dirty"})
        for path in run.folder.glob("provenance-until-*"):
            path.unlink()
    assert "The runs are not of one clean commit: cccccccccc (dirty) in all runs." in table_of(planned).notes


def test_cameras_of_one_task_do_not_mix(tmp_path: Path) -> None:
    text = """
    shifts: [train]
    seeds: [0]
    preset: smoke
    tasks: [robot_reach, robot_peg_in_box]
    agents: {sac: {}, drq: {env: {camera: first_person}}}
    """
    planned = study(tmp_path, text=text)
    for run in planned.runs:
        write_run(run)
    with pytest.raises(UserError, match=r"camera of robot_reach: .* but first_person in robot_reach/drq"):
        table_of(planned)
    # Tasks may have cameras of their own.
    changed = text.replace("[robot_reach, robot_peg_in_box]", "{robot_reach: {env: {camera: first_person}}}")
    for run in study(tmp_path, text=changed).runs:
        write_run(run)
    planned = study(tmp_path, text=text.replace("{sac: {}, drq: {env: {camera: first_person}}}", "[sac]"))
    assert len(table_of(planned, mix=False).blocks) == 2


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
    with pytest.raises(UserError, match=r"overlay images: 9 files, names' hash one in \w+/smg/seed0, but"):
        table_of(planned)


def test_data_that_changed_on_the_way_are_a_mixture(tmp_path: Path) -> None:
    def recorded(source: str, hash_: str | None) -> dict[str, Any]:
        clips = {"clips": 100, "hash": hash_} if hash_ else {"clips": 10, "hash": None}
        return PROVENANCE | {
            "data": {"source": "files" if hash_ else "procedural", "video_hard": clips},
            "overlay": {"source": source, "images": 9, "sha256": "names"},
        }

    planned = written(tmp_path)
    for run in planned.runs:
        write_run(run, provenance=recorded("photographs", "bb"))
    assert table_of(planned).blocks
    for run in planned.runs:  # all alike, which is no better
        earlier = recorded("procedural" if run.column == "smg" else "photographs", None)
        (run.folder / "provenance-until-57.json").write_text(json.dumps(earlier))
    with pytest.raises(UserError) as refusal:
        table_of(planned)
    assert "overlay images: 9 procedural, then 9 files, names' hash names in 4 runs" in str(refusal.value)
    backgrounds = "backgrounds of video_hard: procedural, 10 clips, then files, 100 clips, hash bb in 12 runs"
    assert backgrounds in str(refusal.value)
    table = build(collect(planned, mix=True))
    assert any(backgrounds in note for note in table.notes)
    [(sac, _, smg), *_] = [row.cells for row in table.blocks[0].rows]
    for cell, unmet in ((sac, ["backgrounds"]), (smg, ["overlay images", "backgrounds"])):
        assert cell.comparison is not None
        assert [each.key for each in cell.comparison.unmet][-len(unmet) :] == unmet


@pytest.mark.parametrize("damaged", ["", "damaged", "[]", '{"git_commit": "\\ud800"}'])
def test_data_of_an_earlier_session_that_cannot_be_read_may_be_others(tmp_path: Path, damaged: str) -> None:
    planned = written(tmp_path)
    run = planned.runs[0]
    (run.folder / "provenance-until-30.json").write_text(damaged)
    with pytest.raises(UserError, match=f"what data an earlier session of {run.name} had cannot be read"):
        table_of(planned)


def test_settings_that_changed_on_the_way_are_a_mixture(tmp_path: Path) -> None:
    planned = written(tmp_path)
    run = planned.runs[0]
    text = to_yaml(run.config)
    earlier = run.folder / "config-until-30.yaml"
    shorter = load("sac", "walker_walk", "smoke", overrides=["train.steps=30", "train.log_every=5"])
    earlier.write_text(to_yaml(shorter))  # a run may be prolonged, and its replay with it
    assert shorter.replay.capacity != run.config.replay.capacity
    assert table_of(planned).blocks
    earlier.write_text(re.sub(r"overlay_bank: \d+", "overlay_bank: 3", text))
    with pytest.raises(UserError, match=f"data.overlay_bank: 3 until step 30 of {run.name}"):
        table_of(planned)
    earlier.write_text(text.replace("discount: 0.99", "discount: 0.9"))
    with pytest.raises(UserError, match=f"sac.discount: 0.9 until step 30 of {run.name}, then 0.99"):
        table_of(planned)
    earlier.write_text("damaged")
    with pytest.raises(UserError, match=f"settings until step 30 of {run.name} cannot be read"):
        table_of(planned)


def test_emptied_replays_and_diverged_simulations_are_named(tmp_path: Path) -> None:
    planned = written(tmp_path)
    first, second, *_ = planned.runs
    (first.folder / "provenance-until-40.json").write_text(
        json.dumps(PROVENANCE | {"replay_emptied": ["at step 20"]})
    )
    (first.folder / "provenance.json").write_text(
        json.dumps(PROVENANCE | {"replay_emptied": ["at step 40", 3]})
    )
    lines = (second.folder / "eval.jsonl").read_text().splitlines()
    episodes = [json.loads(line) for line in lines]
    # Of the last evaluation one, of the first all.
    for episode in (*episodes[: len(episodes) // 2], episodes[-1]):
        episode["diverged"] = True
    write_lines(second.folder / "eval.jsonl", episodes)
    notes = table_of(planned).notes
    assert f"Resumed without its replay: {first.name}, at step 20, at step 40, 3." in notes
    shown = sum(episode["shift"] == "video_hard" for episode in episodes) // 2
    assert (
        f"The simulation diverged in 1 of {shown} final episodes of {second.name}, whose returns end there."
    ) in notes


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


DMCGB2 = """
published: null
shifts: [train, dmcgb2]
seeds: [0, 1]
preset: smoke
settings: {eval: {shifts: [train, dmcgb2], episodes: 2}}
tasks: [walker_walk, finger_spin]
agents: [sac, smg]
"""


def test_means_over_photometric_and_over_geometric_shifts_stand_in_blocks_of_their_own(
    tmp_path: Path,
) -> None:
    planned = study(tmp_path, text=DMCGB2)
    assert len(planned.shifts) == 13
    for run in planned.runs:
        base = 100 * run.seed + (50 if run.column == "smg" else 0) + (7 if run.task == "finger_spin" else 0)
        returns = {
            "train": [999, 999],
            "rotate_hard": [base + 60, base],
            "video_hard": [base + 600, base + 6],
        }
        write_run(run, {shift: returns.get(shift, [base, base]) for shift in run.config.eval.shifts})
    blocks = {block.title: block for block in table_of(planned).blocks}
    assert list(blocks) == [*planned.shifts, "photometric mean", "geometric mean"]
    # Per seed: 10 more in one of two episodes of geometric, 100 and 1 more in photometric.
    geometric = blocks["geometric mean"].rows[0].cells[0]
    assert geometric.returns == ((10, 0), (110, 100))
    assert (geometric.mean, geometric.episodes, geometric.comparison) == (55, 2, None)
    photometric = blocks["photometric mean"].rows[1].cells[1]
    assert photometric.scores == pytest.approx((57 + 50.5, 157 + 50.5))
    assert blocks["photometric mean"].average is not None
    assert blocks["photometric mean"].aggregates[0].runs == 4
    assert "## geometric mean" in formats.markdown(table_of(planned))
    lines = csv.DictReader(io.StringIO(formats.comma_separated(table_of(planned))))
    means = {
        (line["task"], line["agent"]): line["mean"] for line in lines if line["shift"] == "geometric mean"
    }
    assert float(means["walker_walk", "smg"]) == 105
    # Part of a kind has no mean.
    few = study(tmp_path, "shifts=[train,rotate_easy,rotate_hard]", text=DMCGB2)
    assert [block.title for block in table_of(few).blocks] == ["train", "rotate_easy", "rotate_hard"]


def test_a_study_without_a_single_run_has_a_table(tmp_path: Path) -> None:
    table = table_of(study(tmp_path))
    assert formats.markdown(table).count("| - | - |") == 6
    assert table.left_out == ()
