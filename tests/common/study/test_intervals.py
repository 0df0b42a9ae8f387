"""Statistics against hand-computed values and against rliable, the definitions' own implementation."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from common.study import intervals
from common.study.intervals import Ranked

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"


@pytest.fixture(scope="module")
def rliable() -> dict[str, Any]:
    """Scores by task of two agents (6 and 4 runs of 5 tasks) and what rliable 1.2.0 computes from them."""
    return json.loads((FIXTURES / "rliable.json").read_text())


def iqm(*strata: list[float]) -> float:
    return intervals.aggregate(strata)[0]


def test_interquartile_mean_of_eight_scores_is_the_mean_of_the_middle_four() -> None:
    assert iqm([100, 1, 2, 3, 4, 5, 6, -50]) == pytest.approx((2 + 3 + 4 + 5) / 4)


@pytest.mark.parametrize(("tasks", "seeds"), [(1, 3), (1, 5), (1, 6), (2, 2), (3, 2), (3, 5), (5, 4)])
def test_with_equal_seeds_the_interquartile_mean_is_scipys_trimmed_mean(tasks: int, seeds: int) -> None:
    scores = np.random.default_rng(4).normal(size=(tasks, seeds))
    assert iqm(*scores.tolist()) == pytest.approx(stats.trim_mean(scores.ravel(), 0.25))


def test_a_task_with_more_seeds_weighs_no_more_in_the_interquartile_mean() -> None:
    assert iqm([500, 500, 500], [100, 100]) == iqm([500, 500], [100, 100]) == 300
    # Five runs, so one of five parts is cut off each end. In sixtieths of the whole, 10 for each of the three
    # and 15 for each of the two: 12 of the lowest's 15 go; of the highest 10, and 2 of the next's 10.
    expected = (3 * 1 + 15 * 2 + 10 * 10 + 8 * 11) / 36
    assert iqm([10, 11, 12], [1, 2]) == pytest.approx(expected)
    # Fewer than four runs lose nothing.
    assert iqm([3, 5], [10]) == (4 + 10) / 2


def test_the_interval_of_unequal_seeds_weighs_tasks_alike_too() -> None:
    point, interval = intervals.aggregate([[500] * 9, [100, 100]])
    assert (point, interval) == (pytest.approx(300), pytest.approx((300, 300)))


@pytest.mark.parametrize("seeds", [2, 3, 4])
def test_intervals_of_few_seeds_cover_the_mean_as_seldom_as_is_said(seeds: int) -> None:
    scores = np.random.default_rng(5).normal(size=(20, seeds, 500))  # of a true mean of 0
    ends = [intervals.mean_interval(each) for each in scores]
    covered = [(low < 0) & (high > 0) for low, high in filter(None, ends)]
    # Of 10,000 intervals; the standard error is 0.5% or less.
    assert 100 * np.mean(covered) == pytest.approx(intervals.COVERAGE[seeds], abs=1.5)


@pytest.mark.parametrize("agent", ["ours", "others"])
def test_interquartile_mean_and_interval_are_rliables(rliable: dict[str, Any], agent: str) -> None:
    point, interval = intervals.aggregate(rliable[agent])
    assert point == pytest.approx(rliable["iqm"][agent], abs=1e-9)
    # The resampling is random on both sides: rliable's 50,000 draws, ours 10,000.
    width = rliable["iqm_interval"][agent][1] - rliable["iqm_interval"][agent][0]
    assert interval == pytest.approx(rliable["iqm_interval"][agent], abs=0.05 * width)


def test_probability_of_improvement_is_rliables(rliable: dict[str, Any]) -> None:
    point, interval = intervals.probability_of_improvement(rliable["ours"], rliable["others"])
    assert point == pytest.approx(rliable["probability"], abs=1e-12)
    assert interval == pytest.approx(rliable["probability_interval"], abs=0.02)


def test_probability_of_improvement_counts_ties_half() -> None:
    # Pairs of the first task: 3>1, 3=3, 2>1, 2<3; the second task is won outright.
    point, _ = intervals.probability_of_improvement([[3, 2], [9]], [[1, 3], [5, 6]])
    assert point == pytest.approx(((1 + 0.5 + 1 + 0) / 4 + 1) / 2)


def test_performance_profile_is_rliables(rliable: dict[str, Any]) -> None:
    shares, interval = intervals.performance_profile(rliable["ours"], rliable["thresholds"])
    assert shares == pytest.approx(rliable["profile"], abs=1e-12)
    assert interval is not None
    assert np.stack(interval) == pytest.approx(np.array(rliable["profile_interval"]), abs=0.04)


def test_one_run_of_a_task_has_no_interval() -> None:
    assert intervals.aggregate([[1, 2], [3]]) == (pytest.approx((1.5 + 3) / 2), None)
    assert intervals.probability_of_improvement([[1, 2]], [[3]])[1] is None
    assert intervals.mean_interval([[1.0, 2.0]]) is None


def test_interval_of_a_mean_contains_it_and_is_between_the_curves() -> None:
    ends = intervals.mean_interval([[0.0, 5.0], [10.0, 5.0], [20.0, 5.0]])
    assert ends is not None
    low, high = ends
    assert 0 <= low[0] < 10 < high[0] <= 20
    assert (low[1], high[1]) == (5, 5)


def test_intervals_do_not_change_from_call_to_call() -> None:
    scores = [[1.0, 5.0, 9.0], [2.0, 2.5, 7.0]]
    assert intervals.aggregate(scores) == intervals.aggregate(scores)


def test_difference_in_pooled_deviations_by_hand() -> None:
    # Ours: mean 12, s² = ((−2)² + 0 + 2²) / 2 = 4. Pooled: (2·4 + 4·9) / 6 = 22/3.
    found = intervals.difference_in_pooled_deviations([10, 12, 14], 8, 3, 5)
    assert found == pytest.approx((12 - 8) / (22 / 3) ** 0.5)


def test_difference_of_a_single_seed_uses_the_published_deviation() -> None:
    assert intervals.difference_in_pooled_deviations([20], 10, 4, 5) == pytest.approx(2.5)
    assert intervals.difference_in_pooled_deviations([20], 10, 0, 5) is None


def ranked(scores: list[float], printed: list[float]) -> Ranked:
    return Ranked([[[score]] for score in scores], printed)


def test_rank_correlation_by_hand() -> None:
    # Of the six pairs five stand in the printed order and one is swapped.
    assert intervals.rank_correlation([ranked([1, 2, 4, 3], [10, 20, 30, 40])]) == (
        pytest.approx((5 - 1) / 6),
        None,
    )
    assert intervals.rank_correlation([ranked([3, 2, 1], [1, 2, 3])])[0] == -1
    # Averaged over tasks, whatever the number of methods.
    pair = [ranked([1, 2], [5, 6]), ranked([1, 2, 4, 3], [10, 20, 30, 40])]
    assert intervals.rank_correlation(pair)[0] == pytest.approx((1 + 4 / 6) / 2)
    assert intervals.rank_correlation([ranked([5, 5], [1, 2])])[0] == 0


def test_rank_correlation_is_scipys() -> None:
    generator = np.random.default_rng(3)
    for _ in range(50):
        scores, printed = generator.integers(0, 5, size=(2, 7)).astype(float)  # with ties
        expected = stats.kendalltau(scores, printed)[0]
        assert intervals.rank_correlation([ranked([*scores], [*printed])])[0] == pytest.approx(expected)


def test_the_rank_correlations_interval_is_of_seeds_and_episodes() -> None:
    # The second method's mean over drawn seeds is 0, 5 or 10, so a quarter of the draws reverse the order.
    seeds = intervals.rank_correlation([Ranked([[[4.0], [4.0]], [[0.0], [10.0]]], [1, 2])])
    assert seeds == (1, (-1, 1))
    # The same of seeds with two episodes each, and of seeds with other numbers of episodes.
    pair = [[0.0, 10.0]] * 2
    assert intervals.rank_correlation([Ranked([[[4.0]] * 2, pair], [1, 2])]) == (1, (-1, 1))
    assert intervals.rank_correlation([Ranked([[[4.0], [4.0] * 3], pair], [1, 2])]) == (1, (-1, 1))
    # No draw changes the order of what lies apart.
    apart = Ranked([[[1.0, 2.0], [3.0]], [[10.0, 12.0, 11.0]] * 2, [[30.0], [20.0, 40.0]]], [1, 2, 3])
    assert intervals.rank_correlation([apart]) == (1, (1, 1))


def test_a_rank_correlation_with_a_single_seed_has_no_interval_and_nor_has_its_mean() -> None:
    single = Ranked([[[1.0, 2.0]], [[10.0], [11.0]]], [1, 2])
    double = Ranked([[[1.0], [2.0]], [[10.0], [11.0]]], [1, 2])
    assert intervals.rank_correlation([single]) == (1, None)
    assert intervals.rank_correlation([double, single]) == (1, None)
    assert intervals.rank_correlation([double]) == (1, (1, 1))


def test_drawn_means_have_the_bootstraps_mean_and_deviation() -> None:
    # One seed of three episodes: the mean of three draws has the episodes' variance over three.
    drawn = intervals._drawn_mean([[0.0, 3.0, 9.0]], np.random.default_rng(0))
    assert drawn.mean() == pytest.approx(4, abs=0.1)
    assert drawn.std() == pytest.approx(np.std([0, 3, 9]) / 3**0.5, rel=0.03)
    # Two seeds of one episode and of three: seeds weigh the same.
    drawn = intervals._drawn_mean([[10.0], [0.0, 0.0, 0.0]], np.random.default_rng(0))
    assert drawn.mean() == pytest.approx(5, abs=0.15)
    assert set(drawn) == {0.0, 5.0, 10.0}


def test_a_task_without_two_methods_has_no_order() -> None:
    for tasks in ([], [ranked([1], [2])], [Ranked([[[1.0]], [[2.0]]], [1])]):
        with pytest.raises(ValueError, match="two methods or more"):
            intervals.rank_correlation(tasks)


def test_empty_tasks_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one score"):
        intervals.aggregate([[1.0], []])
    with pytest.raises(ValueError, match="1 tasks on one side, 2 on the other"):
        intervals.probability_of_improvement([[1.0]], [[1.0], [2.0]])
