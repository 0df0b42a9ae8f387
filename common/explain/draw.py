"""Explanations as pictures: panels, and grids of them with names above and beside."""

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from common.explain.explainer import Explanation

SCALE = 2
MARGIN, HEADER = 4, 18
TEXT = 12
"""Height of the letters in pixels."""
INK, PAPER = (30, 30, 30), (255, 255, 255)
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
    return matplotlib.colormaps["inferno"](scaled.numpy(), bytes=True)[..., :3]


def grid(rows: dict[str, Panels], scale: float = SCALE) -> np.ndarray:
    """Rows of the same columns as one picture, uint8 (height, width, 3); panels get one size."""
    font = ImageFont.load_default(TEXT)
    names = list(next(iter(rows.values())))
    side = round(scale * max(len(panel) for shown in rows.values() for panel in shown.values()))
    label = 12 + round(max(font.getlength(row) for row in rows))
    widths = [max(side, round(font.getlength(name))) + MARGIN for name in names]
    lefts = [int(left) for left in label + np.cumsum([0, *widths])]
    sheet = Image.new("RGB", (lefts[-1], HEADER + len(rows) * (side + MARGIN)), PAPER)
    pen = ImageDraw.Draw(sheet)
    for name, left in zip(names, lefts, strict=False):
        pen.text((left, HEADER - 5), name, INK, font, anchor="ls")
    for row, (title, shown) in enumerate(rows.items()):
        top = HEADER + row * (side + MARGIN)
        pen.text((4, top + side // 2), title, INK, font, anchor="lm")
        for name, left in zip(names, lefts, strict=False):
            large = Image.fromarray(shown[name]).resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(large, (left, top))
    return np.asarray(sheet)
