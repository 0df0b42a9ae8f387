"""Evaluation of the robotic tasks: what records and tables say besides returns."""

from common.config.loading import load
from common.run.evaluate import Evaluator, summary_table
from tests.runs import Still


def test_records_hold_the_tasks_reports_at_the_episodes_end() -> None:
    arguments = {"task": "robot_peg_in_box", "action_repeat": 1, "episode_steps": 4, "seed": 0}
    evaluator = Evaluator(arguments, ("train", "test3"), episodes=1, envs=2, processes=0)
    train, test = evaluator.run(Still(3), 0)
    evaluator.close()
    assert train["success"] is False and train["inserted"] is False and train["background"] is None
    assert (train["shift"], test["shift"]) == ("train", "test3")
    assert train["length"] == 4 and train["return"] == test["return"]


def test_tables_warn_against_comparing_raw_scores() -> None:
    records = [{"shift": "test1", "return": 100.0}]
    assert "another arm" in summary_table(records, load("smg", "robot_peg_in_box", "paper"), [])
    assert "another arm" not in summary_table(records, load("smg", "walker_walk", "paper"), [])
