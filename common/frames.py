"""Stacked frames: (B, 3F, H, W) holds F RGB frames, oldest first; masks have one channel per frame."""

from einops import repeat
from torch import Tensor


def over_colours(mask: Tensor) -> Tensor:
    """Repeats each frame's mask over its three colours: (B, F, H, W) → (B, 3F, H, W)."""
    return repeat(mask, "b f h w -> b (f c) h w", c=3)


def over_frames(image: Tensor, frames: int) -> Tensor:
    """Repeats one RGB image per sample over its stacked frames: (B, 3, H, W) → (B, 3F, H, W)."""
    return repeat(image, "b c h w -> b (f c) h w", f=frames)
