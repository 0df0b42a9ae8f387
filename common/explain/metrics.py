"""How well what an agent attends to agrees with the true foreground: pure functions of arrays.

A map belongs to one frame: a mask or truth is bool (H, W), soft masks and attributions are float (H, W).
Where a number is undefined (no foreground in sight, no attribution at all) it is None. docs/explain.md
defines each in words.
"""

from collections.abc import Sequence

import numpy as np

FRACTIONS = tuple(np.linspace(0, 1, 11).tolist())
"""Shares of a frame's pixels at which deletion and insertion curves are taken."""


def mask_iou(mask: np.ndarray, other: np.ndarray) -> float:
    """Pixels in both masks over pixels in either, in [0, 1]; 1 for two empty masks."""
    either = np.logical_or(mask, other).sum()
    return float(np.logical_and(mask, other).sum() / either) if either else 1.0


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float | None:
    """Area under precision over recall, a step per distinct score: Σₙ (Rₙ − Rₙ₋₁) Pₙ, in (0, 1].

    Pixels of equal score are taken together, so that a constant map scores the foreground's share.
    None without foreground, and for scores that are not all numbers.
    """
    positives = int(truth.sum())
    if positives == 0 or np.isnan(scores).any():
        return None
    order = np.argsort(-scores, axis=None, kind="stable")
    ranked, found = scores.ravel()[order], np.cumsum(truth.ravel()[order])
    last_of_score = np.append(np.flatnonzero(np.diff(ranked)), ranked.size - 1)
    found = found[last_of_score]
    precision = found / (last_of_score + 1)
    return float((np.diff(found, prepend=0) / positives * precision).sum())


def mass_on(attribution: np.ndarray, truth: np.ndarray) -> float | None:
    """Share of the attribution's sum that lies on the foreground, in [0, 1]; None where there is none.

    The attribution is not negative.
    """
    total = attribution.sum(dtype=np.float64)
    return float(attribution[truth].sum(dtype=np.float64) / total) if total > 0 else None


def pointing_hit(attribution: np.ndarray, truth: np.ndarray) -> float | None:
    """The pointing game: 1 if the largest attribution lies on the foreground, else 0.

    Of several equally large pixels the share that does. None for an attribution of zero everywhere, which
    points nowhere.
    """
    largest = attribution.max()
    return float(truth[attribution == largest].mean()) if largest > 0 else None


def mean_error(image: np.ndarray, other: np.ndarray, where: np.ndarray) -> float | None:
    """Mean |difference| of two images (3, H, W), 0–255, over the pixels `where` (H, W); None without any."""
    if not where.any():
        return None
    return float(np.abs(image.astype(np.float64) - other)[:, where].mean())


def ranks(attribution: np.ndarray) -> np.ndarray:
    """Each pixel's place, 0 for the largest attribution; equal ones in reading order. Int (H, W)."""
    order = np.argsort(-attribution, axis=None, kind="stable")
    places = np.empty(order.size, np.int64)
    places[order] = np.arange(order.size)
    return places.reshape(attribution.shape)


def perturbed(
    stack: np.ndarray, attribution: np.ndarray, kind: str, fractions: Sequence[float] = FRACTIONS
) -> np.ndarray:
    """A frame stack with ever more of its pixels deleted, or inserted, the largest attribution first.

    A deleted pixel has its frame's mean colour; insertion begins with a stack of nothing else.

    Args:
        stack: uint8 (3F, H, W).
        attribution: (F, H, W).
        kind: deletion or insertion.
        fractions: of each frame's pixels.

    Returns:
        Float32 (len(fractions), 3F, H, W), 0–255.
    """
    frames = stack.reshape(len(attribution), 3, *stack.shape[1:]).astype(np.float32)
    blank = np.broadcast_to(frames.mean(axis=(2, 3), keepdims=True), frames.shape)
    places = np.stack([ranks(each) for each in attribution])[:, None]
    before, after = (frames, blank) if kind == "deletion" else (blank, frames)
    count = attribution[0].size
    steps = [np.where(places < round(fraction * count), after, before) for fraction in fractions]
    return np.stack(steps).reshape(len(fractions), *stack.shape)


def curve_area(curve: np.ndarray, kind: str, fractions: Sequence[float] = FRACTIONS) -> float | None:
    """Area under a deletion or insertion curve of Q, scaled so that Q of the whole is 1 and of nothing 0.

    Small is good for deletion, large for insertion. Noise apart it lies in [0, 1], but Q may leave the range
    between its ends. None where both ends are equal.
    """
    whole, nothing = (curve[0], curve[-1]) if kind == "deletion" else (curve[-1], curve[0])
    if abs(whole - nothing) < 1e-9:
        return None
    return float(np.trapezoid((np.asarray(curve) - nothing) / (whole - nothing), fractions))


def mean(values: Sequence[float | None]) -> float | None:
    """The mean of the defined values; None if there is none."""
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None
