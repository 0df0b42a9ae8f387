"""SMG whose overlay images drift from frame to frame, as videos do in a test (an idea of SimGRL, 2024)."""

import torch
from torch import Tensor

from common.config.schema import Count
from common.rl.augment import random_offsets, translate
from smg import agent
from smg.agent import SMG


class Settings(agent.Settings):
    """The `smg:` section; configs/agents/smg_drift.yaml documents the key that is new."""

    drift: Count


class SMGDrift(SMG):
    """SMG whose ε moves within a stack, in overlay, attribution view and background target alike."""

    Settings = Settings
    settings: Settings

    def backdrops(self, count: int) -> Tensor:
        """ε (count, 3F, H, W), each image with a velocity of its own, up to ±`drift` pixels per frame."""
        images, drift = super().backdrops(count), self.settings.drift
        if drift == 0:
            return images
        return drifting(images, random_offsets(count, drift, images.device), self.config.env.frames)


def drifting(images: Tensor, velocity: Tensor, frames: int) -> Tensor:
    """Images (B, 3, H, W) as stacks (B, 3F, H, W) of which the middle frame, of an even number the earlier
    middle one, is the image itself, and each next one lies `velocity`, int64 (B, 2), further."""
    middle = (frames - 1) // 2
    return torch.cat([translate(images, (frame - middle) * velocity) for frame in range(frames)], 1)
