"""Explanations as pictures: panels, and grids of them with names above and beside."""

import cv2
import numpy as np
import torch
from torch import Tensor

from common.explain.explainer import Explanation

SCALE = 2
MARGIN, HEADER = 4, 18
FONT, SIZE = cv2.FONT_HERSHEY_SIMPLEX, 0.4
INK, PAPER = (30, 30, 30), 255
Panels = dict[str, np.ndarray]
"""Pictures, uint8 (H, W, 3), by the names of their columns."""


def panels(explained: Explanation, index: int, columns: tuple[str, ...]) -> Panels:
    """The newest frame of observation `index` in every column."""
    return {name: _panel(explained, index, name) for name in columns}


def _panel(explained: Explanation, index: int, name: str) -> np.ndarray:
    if name == "observation":
        return colours(explained.obs[index, -3:])
    if name == "truth":
        return greys(explained.truth[index].float())
    if name in explained.attributions:
        return heat(explained.attributions[name][index, -1])
    if name in explained.masks:
        return greys(explained.masks[name][index, -1])
    return colours(explained.images[name][index, -3:])


def colours(image: Tensor) -> np.ndarray:
    """(3, H, W), 0–255 → uint8 (H, W, 3)."""
    return image.clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()


def greys(mask: Tensor) -> np.ndarray:
    """(H, W) in [0, 1], 1 is white → uint8 (H, W, 3)."""
    return np.repeat((255 * mask).byte().numpy()[..., None], 3, axis=2)


def heat(attribution: Tensor) -> np.ndarray:
    """(H, W), at least 0, bright where large → uint8 (H, W, 3)."""
    scaled = (attribution / attribution.quantile(0.995).clamp_min(1e-12)).clamp(0, 1)
    coloured = cv2.applyColorMap((255 * scaled).byte().numpy(), cv2.COLORMAP_INFERNO)
    return cv2.cvtColor(coloured, cv2.COLOR_BGR2RGB)


def grid(rows: dict[str, Panels], scale: int = SCALE) -> np.ndarray:
    """Rows of the same columns as one picture, uint8 (height, width, 3); panels get one size."""
    names = list(next(iter(rows.values())))
    side = scale * max(len(panel) for shown in rows.values() for panel in shown.values())
    label = 12 + max(cv2.getTextSize(row, FONT, SIZE, 1)[0][0] for row in rows)
    widths = [max(side, cv2.getTextSize(name, FONT, SIZE, 1)[0][0]) + MARGIN for name in names]
    lefts = label + np.cumsum([0, *widths])
    sheet = np.full((HEADER + len(rows) * (side + MARGIN), lefts[-1], 3), PAPER, np.uint8)
    for name, left in zip(names, lefts, strict=False):
        write(sheet, name, int(left), HEADER - 5)
    for row, (title, shown) in enumerate(rows.items()):
        top = HEADER + row * (side + MARGIN)
        write(sheet, title, 4, top + side // 2)
        for name, left in zip(names, lefts, strict=False):
            large = cv2.resize(shown[name], (side, side), interpolation=cv2.INTER_NEAREST)
            sheet[top : top + side, left : left + side] = large
    return sheet


def write(sheet: np.ndarray, text: str, left: int, bottom: int) -> None:
    """Small dark text with its lower left corner at a pixel."""
    cv2.putText(sheet, text, (left, bottom), FONT, SIZE, INK, 1, cv2.LINE_AA)
