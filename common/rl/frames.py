"""Stacked frames: (B, 3F, H, W) holds F RGB frames, oldest first; apart they are (B, F, 3, H, W)."""

from einops import rearrange, repeat
from torch import Tensor


def apart(stack: Tensor) -> Tensor:
    """(B, 3F, H, W) → (B, F, 3, H, W), a view."""
    return rearrange(stack, "b (f c) h w -> b f c h w", c=3)


def stacked(frames: Tensor) -> Tensor:
    """(B, F, 3, H, W) → (B, 3F, H, W)."""
    return rearrange(frames, "b f c h w -> b (f c) h w")


def over_colours(mask: Tensor) -> Tensor:
    """Repeats each frame's mask over its three colours: (B, F, H, W) → (B, 3F, H, W)."""
    return repeat(mask, "b f h w -> b (f c) h w", c=3)
