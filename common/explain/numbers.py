"""An agent's numbers under one shift: means over frames; docs/explain.md defines them."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from common.explain import metrics
from common.explain.explainer import Explanation

CURVES = ("deletion", "insertion")
Value = Callable[[Tensor, Tensor], np.ndarray]
"""Q₁ (N,) of observations and actions."""
LEVEL = 0.5
"""A pixel belongs to a soft mask from here on."""


class Tally:
    """Gathers frames of one agent under one shift."""

    def __init__(self) -> None:
        self._values: dict[str, list[float | None]] = defaultdict(list)
        self._curves: dict[str, list[np.ndarray]] = defaultdict(list)

    def add(
        self, explained: Explanation, plain: dict[str, Tensor] | None = None, q: Value | None = None
    ) -> None:
        """Count what an agent made of N observations.

        Args:
            explained: under the shift.
            plain: the masks (N, F, H, W) that it makes of the same simulator states in training's looks;
                without them stability is not measured.
            q: of the agent; without it neither are deletion and insertion.
        """
        for index, truth in enumerate(explained.truth.numpy()):
            self._note("truth/share", truth.mean())
            for name, masks in explained.masks.items():
                mask = masks[index, -1].numpy()
                self._mask(name, mask, truth)
                if plain is not None:
                    before = plain[name][index, -1].numpy() >= LEVEL
                    self._note(f"{name}/stability", metrics.mask_iou(mask >= LEVEL, before))
            for name, maps in explained.attributions.items():
                self._attribution(name, maps[index, -1].numpy(), truth)
                if q is not None:
                    self._perturb(name, explained, index, q)
            if "reconstruction" in explained.images:
                frame = explained.obs[index, -3:].numpy()
                painted = explained.images["reconstruction"][index, -3:].numpy()
                self._note("reconstruction/foreground_error", metrics.mean_error(painted, frame, truth))
                self._note("reconstruction/background_error", metrics.mean_error(painted, frame, ~truth))

    def means(self) -> dict[str, float | None]:
        """Every number, by `<column>/<number>`; None where no frame defines it, or Q is not finite."""
        numbers = {name: metrics.mean(values) for name, values in self._values.items()}
        for name, curve in self._means():
            numbers[f"{name}_area"] = metrics.curve_area(curve, name.rsplit("/", 1)[1])
        return {name: finite(value) for name, value in numbers.items()}

    def curves(self) -> dict[str, list[float | None]]:
        """Mean Q₁ at each of `metrics.FRACTIONS`, by `<attribution>/deletion` and `…/insertion`."""
        return {name: [finite(value) for value in curve.tolist()] for name, curve in self._means()}

    def _means(self) -> Iterator[tuple[str, np.ndarray]]:
        for name, curves in self._curves.items():
            yield name, np.mean(curves, axis=0)

    def _mask(self, name: str, mask: np.ndarray, truth: np.ndarray) -> None:
        self._note(f"{name}/iou", metrics.mask_iou(mask >= LEVEL, truth))
        self._note(f"{name}/average_precision", metrics.average_precision(mask, truth))

    def _attribution(self, name: str, attribution: np.ndarray, truth: np.ndarray) -> None:
        self._note(f"{name}/average_precision", metrics.average_precision(attribution, truth))
        self._note(f"{name}/foreground_mass", metrics.mass_on(attribution, truth))
        self._note(f"{name}/pointing", metrics.pointing_hit(attribution, truth))

    def _perturb(self, name: str, explained: Explanation, index: int, q: Value) -> None:
        obs, maps = explained.obs[index].numpy(), explained.attributions[name][index].numpy()
        stacks = np.concatenate([metrics.perturbed(obs, maps, kind) for kind in CURVES])
        action = explained.action[index].expand(len(stacks), -1)
        curves = q(torch.from_numpy(stacks), action).reshape(len(CURVES), -1)
        for kind, curve in zip(CURVES, curves, strict=True):
            self._curves[f"{name}/{kind}"].append(curve)

    def _note(self, name: str, value: float | None) -> None:
        self._values[name].append(value)


def finite(value: float | None) -> float | None:
    """The value, or None for infinity and NaN, which JSON does not have: Q of an agent that diverged."""
    return value if value is not None and math.isfinite(value) else None
