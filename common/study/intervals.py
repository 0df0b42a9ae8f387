"""Statistics over few seeds, with intervals, as defined in Agarwal et al., "Deep reinforcement learning at
the edge of the statistical precipice" (NeurIPS 2021).

A *stratum* holds the scores of one task, one per run; strata may differ in size. Intervals are 95% percentile
intervals of the stratified bootstrap: runs are drawn with replacement within each task. They are None where a
stratum has one run, and too narrow where it has few.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Strata = Sequence[ArrayLike]
Interval = tuple[float, float]

RESAMPLES = 10_000
SEED = 0
"""Of the resampling, so that a table is the same however often it is made."""
COVERAGE = {2: 50, 3: 75, 4: 80}
"""Runs of one task → percent of the 95% intervals of their mean that hold the true one, for normal scores."""


def interquartile_mean(strata: Sequence[Floats]) -> Floats:
    """Mean of the middle half of the scores of tasks, (..., runs) each, where every task weighs the same.

    Of N runs of T tasks one of a task with n weighs N / (T n). N / 4 of the weight, rounded down, is cut off
    each end; a run that the cut goes through counts with what is left of it. With the same n everywhere that
    is scipy's `trim_mean` and rliable's IQM, which cut whole runs: of fewer than four none.
    """
    sizes = [scores.shape[-1] for scores in strata]
    total = sum(sizes)
    weights = np.concatenate([np.full(size, total / (len(sizes) * size)) for size in sizes])
    scores = np.concatenate(strata, axis=-1)
    order = np.argsort(scores, axis=-1)
    upper = np.cumsum(weights[order], axis=-1)
    cut = total // 4
    left = np.minimum(upper, total - cut) - np.maximum(upper - weights[order], cut)
    return np.average(np.take_along_axis(scores, order, axis=-1), axis=-1, weights=np.maximum(left, 0))


def aggregate(strata: Strata) -> tuple[float, Interval | None]:
    """Interquartile mean over all runs of all tasks, and its interval."""
    arrays = _arrays(strata)
    return float(interquartile_mean(arrays)), _interval(interquartile_mean, arrays)


def probability_of_improvement(ours: Strata, others: Strata) -> tuple[float, Interval | None]:
    """Probability that a run of ours beats one of the others on the same task, averaged over tasks.

    Within a task it is the Mann-Whitney statistic: the share of pairs that ours wins, a tie counting half.

    Args:
        ours: scores by task.
        others: scores by task, in the same order.
    """
    left, right = _arrays(ours), _arrays(others)
    if len(left) != len(right):
        raise ValueError(f"{len(left)} tasks on one side, {len(right)} on the other")

    def statistic(drawn: list[Floats]) -> Floats:
        pairs = zip(drawn[: len(left)], drawn[len(left) :], strict=True)
        return np.mean([_share_won(x, y) for x, y in pairs], axis=0)

    return float(statistic([*left, *right])), _interval(statistic, [*left, *right])


def performance_profile(strata: Strata, thresholds: ArrayLike) -> tuple[Floats, tuple[Floats, Floats] | None]:
    """Share of runs that score above each threshold, averaged over tasks, and its pointwise interval.

    Returns:
        The profile (T,), and the lower and upper ends of its interval, (T,) each.
    """
    arrays, limits = _arrays(strata), np.asarray(thresholds, np.float64)

    def statistic(drawn: list[Floats]) -> Floats:
        return np.mean([(scores[..., None] > limits).mean(axis=-2) for scores in drawn], axis=0)

    return statistic(arrays), _ends(statistic, arrays, resamples=2_000)


def mean_interval(curves: ArrayLike) -> tuple[Floats, Floats] | None:
    """Pointwise interval of the mean of curves (seeds, points), drawing whole seeds; None for one curve."""
    curves = np.asarray(curves, np.float64)
    if len(curves) < 2:
        return None
    drawn = np.random.default_rng(SEED).integers(len(curves), size=(2_000, len(curves)))
    low, high = np.percentile(curves[drawn].mean(axis=1), [2.5, 97.5], axis=0)
    return low, high


@dataclass(frozen=True)
class Ranked:
    """Methods on one task: the returns of each by seed and episode, and the printed score of each."""

    returns: Sequence[Sequence[Sequence[float]]]
    printed: Sequence[float]


def rank_correlation(tasks: Sequence[Ranked]) -> tuple[float, Interval | None]:
    """Kendall's τ-b between the methods' order here and the printed one, averaged over tasks; its interval.

    A method's score here is the mean of its seeds' means. The interval draws seeds with replacement, and from
    each of them episodes. It is None if any method has one seed on any task, as what other seeds would do is
    then unknown.
    """
    if not tasks or any(len(task.printed) != len(task.returns) or len(task.printed) < 2 for task in tasks):
        raise ValueError("every task needs two methods or more, each with a printed score")
    point = float(np.mean([_tau(_seed_means(task), task.printed) for task in tasks]))
    if any(len(seeds) == 1 for task in tasks for seeds in task.returns):
        return point, None
    generator = np.random.default_rng(SEED)
    drawn = []
    for task in tasks:
        scores = np.stack([_drawn_mean(seeds, generator) for seeds in task.returns], axis=-1)
        drawn.append(_tau(scores, task.printed))
    low, high = np.percentile(np.mean(drawn, axis=0), [2.5, 97.5])
    return point, (float(low), float(high))


def _seed_means(task: Ranked) -> Floats:
    means = [np.mean([np.mean(episodes) for episodes in seeds]) for seeds in task.returns]
    return np.array(means, np.float64)


def _drawn_mean(seeds: Sequence[Sequence[float]], generator: np.random.Generator) -> Floats:
    """Means (RESAMPLES,) over seeds drawn with replacement and, in each, over episodes drawn likewise."""
    counts = np.array([len(episodes) for episodes in seeds])
    padded = np.zeros((len(seeds), counts.max()))
    for row, episodes in zip(padded, seeds, strict=True):
        row[: len(episodes)] = episodes
    chosen = generator.integers(len(seeds), size=(RESAMPLES, len(seeds)))
    fractions = generator.random((RESAMPLES, len(seeds), counts.max()))
    episodes = (fractions * counts[chosen][..., None]).astype(int)
    kept = np.arange(counts.max()) < counts[chosen][..., None]  # as many as the seed has
    sums = (padded[chosen[..., None], episodes] * kept).sum(axis=-1)
    return (sums / counts[chosen]).mean(axis=-1)


def _tau(scores: Floats, printed: ArrayLike) -> Floats:
    """Kendall's τ-b along the last axis; 0 where all are tied."""
    printed = np.asarray(printed, np.float64)
    left, right = np.triu_indices(len(printed), 1)
    ours = np.sign(scores[..., left] - scores[..., right])
    theirs = np.sign(printed[left] - printed[right])
    norm = np.sqrt((ours**2).sum(axis=-1) * (theirs**2).sum(axis=-1))
    return np.where(norm > 0, (ours * theirs).sum(axis=-1) / np.maximum(norm, 1), 0.0)


def standard_deviation(scores: Sequence[float]) -> float | None:
    """Sample standard deviation (n - 1); None for fewer than two scores."""
    return float(np.std(scores, ddof=1)) if len(scores) > 1 else None


def difference_in_pooled_deviations(
    scores: Sequence[float], mean: float, deviation: float, count: int
) -> float | None:
    """How far our mean lies above another of which only mean, deviation and count are known.

    The unit is the pooled standard deviation sqrt(((n - 1) s² + (m - 1) t²) / (n + m - 2)); with one score of
    ours it is the other's alone. None if that is zero.
    """
    own = standard_deviation(scores) or 0.0
    freedom = len(scores) - 1 + count - 1
    if freedom < 1:
        return None
    pooled = math.sqrt(((len(scores) - 1) * own**2 + (count - 1) * deviation**2) / freedom)
    return (float(np.mean(scores)) - mean) / pooled if pooled > 0 else None


def _arrays(strata: Strata) -> list[Floats]:
    arrays = [np.asarray(scores, np.float64) for scores in strata]
    if not arrays or any(array.ndim != 1 or array.size == 0 for array in arrays):
        raise ValueError("every task needs at least one score")
    return arrays


def _share_won(ours: Floats, others: Floats) -> Floats:
    """Share of pairs along the last axes in which ours is larger, ties counting half."""
    difference = ours[..., :, None] - others[..., None, :]  # (..., n, m)
    return ((difference > 0) + 0.5 * (difference == 0)).mean(axis=(-2, -1))


def _interval(statistic: Callable[[list[Floats]], Floats], arrays: list[Floats]) -> Interval | None:
    ends = _ends(statistic, arrays, RESAMPLES)
    return None if ends is None else (float(ends[0]), float(ends[1]))


def _ends(
    statistic: Callable[[list[Floats]], Floats], arrays: list[Floats], resamples: int
) -> tuple[Floats, Floats] | None:
    if any(array.size < 2 for array in arrays):
        return None
    generator = np.random.default_rng(SEED)
    drawn = [array[generator.integers(array.size, size=(resamples, array.size))] for array in arrays]
    low, high = np.percentile(statistic(drawn), [2.5, 97.5], axis=0)
    return low, high
