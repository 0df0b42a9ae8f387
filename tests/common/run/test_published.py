"""Published cells are found whatever the shape of the table they are printed in."""

import pytest

from common.run.published import TABLES, printed, published_score, tables


@pytest.mark.parametrize(
    ("table", "agent", "task", "shift", "mean", "deviation"),
    [
        ("smg_video_hard", "smg", "cheetah_run", "video_hard", 303, 46),
        ("smg_peg_in_box", "smg", "robot_peg_in_box", "test2", 219, 37),
        ("sgqn_table1", "sgqn", "cartpole_swingup", "video_easy", 717, 35),
        ("sgqn_table5_starred", "sgqn", "cartpole_swingup", "video_easy", 761, 28),
        ("sgqn_table5_starred", "sgqn", "walker_walk", "video_hard", 739, 21),
        ("sgqn_table2_ablation", "sac_consistency", "walker_stand", "train", 857, 120),
        ("sgqn_table6_robot", "svea", "robot_reach", "test3", 1.4, 29),
        ("sgqn_table7_rho", "rho_0.95", "ball_in_cup_catch", "video_hard", 789, 96),
        ("sgqn_table8_svea_soda", "svea_soda", "finger_spin", "video_hard", 244, 27),
        ("sgqn_table8_svea_soda", "soda", "cartpole_swingup", "video_hard", 339, 87),
        ("sgqn_table8_svea_soda", "soda", "finger_spin", "video_hard", 309, 49),
        ("sgqn_table8_svea_soda", "soda", "walker_walk", "video_hard", 312, 32),
    ],
)
def test_cells(table: str, agent: str, task: str, shift: str, mean: float, deviation: float) -> None:
    found = printed(table, agent, task, shift)
    assert found is not None
    assert (found.mean, found.deviation, found.usable) == (mean, deviation, True)


@pytest.mark.parametrize(
    ("table", "agent", "task", "shift"),
    [
        ("smg_video_hard", "smg", "walker_walk", "video_easy"),
        ("smg_peg_in_box", "smg", "robot_reach", "train"),
        ("sgqn_table1", "smg", "walker_walk", "video_hard"),
        ("sgqn_table6_robot", "sgqn", "robot_reach", "test5"),
    ],
)
def test_cells_that_are_not_printed(table: str, agent: str, task: str, shift: str) -> None:
    assert printed(table, agent, task, shift) is None


def test_copied_deviations_are_not_computed_with() -> None:
    peg = printed("sgqn_table6_robot", "sgqn", "robot_peg_in_box", "test1")
    assert peg is not None
    assert (peg.mean, peg.deviation, peg.usable) == (-72.0, 14, False)
    page = printed("sgqn_benchmark_page", "sgqn", "walker_walk", "color_easy")
    assert page is not None
    assert (page.mean, page.deviation, page.usable) == (805, None, False)


def test_every_table_of_the_file_that_a_study_could_show_is_known() -> None:
    assert set(TABLES) == set(tables()) - {"sgqn_table4_hours", "field_video_hard"}


def test_an_agent_is_compared_with_its_own_paper() -> None:
    sgqn, smg = (published_score(agent, "walker_walk", "video_hard") for agent in ("sgqn", "smg"))
    assert sgqn is not None and smg is not None
    assert (sgqn.mean, smg.mean) == (739, 814)
    srm = published_score("srm", "walker_walk", "video_hard")
    assert srm is not None
    assert srm.source == "SMG poster"
