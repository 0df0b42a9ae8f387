"""Every number on maps small enough to work it out by hand."""

import numpy as np
import pytest

from common.explain import metrics

TRUTH = np.array([[1, 1, 0, 0], [0, 0, 0, 0]], bool)


def test_iou_counts_pixels():
    mask = np.array([[0, 1, 1, 1], [0, 0, 0, 0]], bool)
    assert metrics.mask_iou(mask, TRUTH) == 1 / 4
    assert metrics.mask_iou(TRUTH, TRUTH) == 1
    nothing = np.zeros_like(TRUTH)
    assert metrics.mask_iou(nothing, TRUTH) == 0
    assert metrics.mask_iou(nothing, nothing) == 1


def test_average_precision_is_the_sum_over_recall_steps():
    # Ranked: true, false, true. Precision 1 at recall ½, ⅔ at recall 1.
    scores = np.array([[0.9, 0.5, 0.7, 0.1], [0.1, 0.1, 0.1, 0.1]])
    assert metrics.average_precision(scores, TRUTH) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert metrics.average_precision(TRUTH.astype(float), TRUTH) == 1
    assert metrics.average_precision(np.full(TRUTH.shape, 0.3), TRUTH) == TRUTH.mean()
    assert metrics.average_precision(scores, np.zeros_like(TRUTH)) is None
    assert metrics.average_precision(np.where(TRUTH, np.nan, scores), TRUTH) is None


def test_average_precision_does_not_depend_on_the_order_of_equal_scores():
    # One true and one false pixel share the top score: precision ½ at recall ½, then 2/8 at recall 1.
    for first, second in ((0, 2), (1, 3)):
        scores = np.zeros(TRUTH.shape)
        scores[0, [first, second]] = 1
        assert metrics.average_precision(scores, TRUTH) == pytest.approx(0.5 * 0.5 + 0.5 * 2 / 8)


def test_mass_is_the_foregrounds_share_of_the_sum():
    attribution = np.array([[3.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 2.0]])
    assert metrics.mass_on(attribution, TRUTH) == 0.5
    assert metrics.mass_on(np.zeros(TRUTH.shape), TRUTH) is None


def test_pointing_asks_where_the_largest_value_lies():
    attribution = np.array([[3.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 2.0]])
    assert metrics.pointing_hit(attribution, TRUTH) == 1
    assert metrics.pointing_hit(attribution, ~TRUTH) == 0
    attribution[1, 3] = 3.0
    assert metrics.pointing_hit(attribution, TRUTH) == 0.5
    assert metrics.pointing_hit(np.zeros(TRUTH.shape), TRUTH) is None


def test_error_is_the_mean_over_colours_and_chosen_pixels():
    image, other = np.zeros((3, 2, 4), np.uint8), np.zeros((3, 2, 4), np.uint8)
    other[0, 0, 0], other[2, 0, 1], other[1, 1, 1] = 60, 30, 200
    assert metrics.mean_error(image, other, TRUTH) == (60 + 30) / 6
    assert metrics.mean_error(image, other, ~TRUTH) == pytest.approx(200 / 18)
    assert metrics.mean_error(image, other, np.zeros_like(TRUTH)) is None


@pytest.mark.parametrize("kind", ["deletion", "insertion"])
def test_pixels_go_in_the_order_of_attribution_each_frame_by_its_own(kind):
    stack = np.arange(6 * 4, dtype=np.uint8).reshape(6, 2, 2)
    attribution = np.array([[[1, 4], [3, 2]], [[9, 8], [7, 6]]], float)
    order = [[(0, 1), (1, 0), (1, 1), (0, 0)], [(0, 0), (0, 1), (1, 0), (1, 1)]]
    shown = metrics.perturbed(stack, attribution, kind, (0, 0.25, 0.5, 1))
    for result, touched in zip(shown, (0, 1, 2, 4), strict=True):
        for channel in range(6):
            for place in order[channel // 3]:
                gone = (place in order[channel // 3][:touched]) == (kind == "deletion")
                expected = stack[channel].mean() if gone else stack[channel][place]
                assert result[channel][place] == expected


def test_curve_area_is_scaled_by_its_ends():
    # Q falls from 10 to 4 at once: half of the first of ten steps is above nothing.
    fall = np.array([10.0] + [4.0] * 10)
    assert metrics.curve_area(fall, "deletion") == pytest.approx(0.05)
    assert metrics.curve_area(np.linspace(10, 4, 11), "deletion") == pytest.approx(0.5)
    assert metrics.curve_area(np.array([4.0] + [10.0] * 10), "insertion") == pytest.approx(0.95)
    assert metrics.curve_area(np.full(11, 3.0), "insertion") is None


def test_a_mean_leaves_out_what_is_undefined():
    assert metrics.mean([1.0, None, 2.0]) == 1.5
    assert metrics.mean([None]) is None
