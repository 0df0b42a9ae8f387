"""Acting on the foreground alone: o ⊙ M + b ⊙ (1 − M), with b the mean background of training.

M is the agent's own mask, or the simulator's, which is perfect: how much could a perfect mask buy?
"""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from common.envs.processes import EnvPool, PoolStep
from common.errors import UserError, did_you_mean
from common.rl.augment import compose
from common.rl.sac import SAC
from common.run.evaluate import Policy

MASKS = ("learned", "truth")


@runtime_checkable
class Masking(Policy, Protocol):
    """A policy that has a mask of its own."""

    def mask(self, obs: Tensor) -> Tensor:
        """M (N, F, H, W) in [0, 1] of observations (N, 3F, H, W), 0–255."""
        ...


def check_masks(masks: Sequence[str], agent: SAC) -> None:
    """Refuse the names of masks that there are not.

    Raises:
        UserError: one is unknown, or the agent has no mask.
    """
    for mask in masks:
        if mask not in MASKS:
            raise UserError(f"--masks: unknown mask '{mask}'; {did_you_mean(mask, MASKS)}")
    if "learned" in masks and not isinstance(agent, Masking):
        raise UserError(
            f"--masks learned: agent {agent.config.agent} has no mask of its own; --masks truth takes the "
            "simulator's"
        )


class OwnMask:
    """The policy of an agent with a `mask`, shown the foreground that this mask keeps.

    Args:
        agent: the policy and its mask.
        background: b, uint8 (3, H, W).
    """

    def __init__(self, agent: Masking, background: np.ndarray) -> None:
        self.agent = agent
        self.device = agent.device
        self._background = torch.from_numpy(background)[None].to(agent.device)

    def act(self, obs: Tensor, sample: bool) -> Tensor:
        """Actions (N, A) for uint8 observations (N, 3F, H, W)."""
        seen = compose(obs.float(), self.agent.mask(obs), self._background)
        return self.agent.act(seen.round().to(torch.uint8), sample)


class TrueMask(EnvPool):
    """Environments whose observations show the true foreground of each frame before one background.

    Args:
        arguments, processes: of the EnvPool.
        background: b, uint8 (3, H, W).
    """

    def __init__(self, arguments: Sequence[dict[str, Any]], processes: int, background: np.ndarray) -> None:
        super().__init__(arguments, processes)
        self._background = background
        self._truth: dict[int, np.ndarray] = {}
        """By environment, of each stacked frame: bool (F, H, W)."""

    def reset(
        self, indices: Sequence[int], options: Sequence[dict[str, Any] | None]
    ) -> tuple[np.ndarray, list[dict[str, Any]]]:
        obs, infos = super().reset(indices, options)
        frames = obs.shape[1] // 3
        for index, truth in zip(indices, self.segmentation(indices), strict=True):
            self._truth[index] = np.repeat(truth[None], frames, 0)  # as the first frame is
        return self._foreground(obs, indices), infos

    def step(self, actions: np.ndarray, indices: Sequence[int] | None = None) -> PoolStep:
        indices = range(len(self)) if indices is None else indices
        step = super().step(actions, indices)
        # After an episode nobody looks at its last observation, and a diverged state cannot be drawn.
        ended = step.terminated | step.truncated
        playing = [index for index, over in zip(indices, ended, strict=True) if not over]
        if playing:
            for index, truth in zip(playing, self.segmentation(playing), strict=True):
                self._truth[index] = np.concatenate([self._truth[index][1:], truth[None]])
        return step._replace(obs=self._foreground(step.obs, indices))

    def _foreground(self, obs: np.ndarray, indices: Sequence[int]) -> np.ndarray:
        return foreground_alone(obs, np.stack([self._truth[index] for index in indices]), self._background)


def foreground_alone(obs: np.ndarray, mask: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Observations, uint8 (N, 3F, H, W), with the background (3, H, W) where the mask, bool (N, F, H, W), is
    not."""
    frames = obs.reshape(*mask.shape[:2], *background.shape)
    return np.where(mask[:, :, None], frames, background).reshape(obs.shape)
