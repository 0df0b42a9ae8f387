"""What a study is expected to cost: from measured speeds, or unknown."""

import json
from pathlib import Path

import pytest
import torch

from common.study.command import plan
from common.study.estimate import remaining, total_line
from common.study.folders import read
from tests.common.study.written_runs import study, write_run

MACHINE = {"processor": "a processor", "cores": 2}


def measured(folder: Path, agent: str, speed: float, **changes: object) -> None:
    """A file such as `python -m benchmarks.loop --json` writes."""
    report = {"agent": agent, "preset": "smoke", "batch": 8, "steps_per_second": speed, "machine": MACHINE}
    folder.mkdir(exist_ok=True)
    (folder / f"{agent}-{speed}.json").write_text(json.dumps(report | changes))


def test_hours_are_the_steps_left_at_the_fastest_measured_speed(tmp_path: Path) -> None:
    planned = study(tmp_path)
    performance = tmp_path / "performance"
    measured(performance, "smg", 0.5)
    measured(performance, "smg", 0.25)
    measured(performance, "sac", 100.0, batch=64)  # of another batch
    measured(performance, "drq", 100.0, preset="paper")
    (performance / "damaged.json").write_text("{")
    (performance / "other.json").write_text('{"frames_per_second": 3}')
    found = {row.column: row for row in remaining([read(run) for run in planned.runs], performance)}
    assert (found["smg"].runs, found["smg"].steps) == (4, 4 * 60)  # 2 tasks x 2 seeds of 60 steps
    assert found["smg"].hours == pytest.approx(240 / 0.5 / 3600)
    assert found["smg"].pace is not None and found["smg"].pace[1].startswith("a processor, 2 cores")
    assert found["sac"].hours is None and found["drq"].hours is None


def test_a_processor_is_not_as_fast_as_a_gpu(tmp_path: Path) -> None:
    planned = study(tmp_path, "agents=[smg]")
    performance = tmp_path / "performance"
    measured(performance, "smg", 0.5)
    measured(performance, "smg", 100.0, machine=MACHINE | {"gpu": "a GPU"})
    [row] = remaining([read(run) for run in planned.runs], performance)
    assert row.pace is not None and row.pace[0] == (0.01 if torch.cuda.is_available() else 2)


def test_finished_runs_cost_nothing_and_tell_the_speed_of_the_others(tmp_path: Path) -> None:
    planned = study(tmp_path, "agents=[smg]", "tasks=[walker_walk]")
    write_run(planned.runs[0])  # its records say two steps per second
    measured(tmp_path / "performance", "smg", 1000.0)
    [row] = remaining([read(run) for run in planned.runs], tmp_path / "performance")
    assert (row.runs, row.steps) == (1, 60)
    assert row.hours == pytest.approx(60 / 2 / 3600)
    assert row.pace == (0.5, "1 of its runs on CPU, 2 threads")


def test_random_steps_tell_no_speed(tmp_path: Path) -> None:
    planned = study(tmp_path, "agents=[smg]", "tasks=[walker_walk]", "train.random_steps=40")
    write_run(planned.runs[0], steps=[40])
    [row] = remaining([read(run) for run in planned.runs], tmp_path / "none")
    assert row.pace is None
    write_run(planned.runs[1], steps=[50])
    [row] = remaining([read(run) for run in planned.runs], tmp_path / "none")
    assert row.pace == (0.5, "1 of its runs on CPU, 2 threads")


def test_the_sum_is_of_what_is_known_and_of_runs_that_go_on_at_the_same_time(tmp_path: Path) -> None:
    planned = study(tmp_path, "train.steps=36000")
    write_run(planned.runs[0], steps=[36_000])  # SAC's, two steps per second
    rows = remaining([read(run) for run in planned.runs], tmp_path / "none")
    assert [row.hours for row in rows] == [3 * 5, None, None]
    assert total_line(rows).startswith(
        "estimate: 15.0 hours for the others; unknown for drq, smg, whose speed"
    )
    assert total_line(rows[:1]) == "estimate: 15.0 hours of that device, one run at a time"
    assert total_line(rows[:1], 2) == "estimate: 7.5 hours of that device, 2 runs at a time"
    # Three runs of five hours take five, on however many devices.
    assert total_line(rows[:1], 8) == "estimate: 5.0 hours of that device, 3 runs at a time"


def test_a_benchmark_tells_nothing_of_other_networks(tmp_path: Path) -> None:
    measured(tmp_path / "performance", "smg", 0.5)

    def pace(*overrides: str) -> float | None:
        planned = study(tmp_path, "agents=[smg]", *overrides)
        [row] = remaining([read(run) for run in planned.runs], tmp_path / "performance")
        return row.pace and row.pace[0]

    assert pace() == pace("network.latent=32", "losses.background=0", "eval.episodes=3") == 2
    slower = ("network.hidden=64", "env.image_size=48", "train.update_every=2", "smg.auxiliary_every=4")
    for changed in slower:
        assert pace(changed) is None


def test_the_plan_shows_every_run_and_adds_up_what_is_known(tmp_path: Path) -> None:
    planned = study(tmp_path)
    text = plan(planned, planned.runs)
    assert text.count("missing     smg train ") == 12
    assert "estimate: unknown for sac, drq, smg" in text
