"""Stacked frames: (B, 3F, H, W) holds F RGB frames, oldest first; apart they are (B, F, 3, H, W)."""

from einops import rearrange, repeat
from torch import Tensor


def apart(stack: Tensor) -> Tensor:
    """(B, 3F, H, W) → (B, F, 3, H, W), a view."""
    return rearrange(stack, "b (f c) h w -> b f c h w", c=3)


def stacked(frames: Tensor) -> Tensor:
    """(B, F, 3, H, W) → (B, 3F, H, W)."""
    return rearrange(frames, "b f c h w -> b (f c) h w")


def chosen(frames: Tensor, numbers: Tensor | None) -> Tensor:
    """Some frames of (B, F, …) by number, int64 (k,): (B, k, …); None chooses all.

    A single frame that stands for all of a stack stays.
    """
    return frames if numbers is None or frames.shape[1] == 1 else frames.index_select(1, numbers)


def over_colours(mask: Tensor) -> Tensor:
    """Repeats each frame's mask over its three colours: (B, F, H, W) → (B, 3F, H, W)."""
    return repeat(mask, "b f h w -> b (f c) h w", c=3)
