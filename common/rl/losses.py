"""Soft actor-critic's losses, one pure function per equation (Haarnoja et al., 2018)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def squashed_gaussian(mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Sample a tanh-squashed Gaussian and its log-density (SAC appendix C, eq. 21).

    Args:
        mean, log_std: (B, A), before squashing.
        noise: (B, A), standard normal.

    Returns:
        action (B, A) in (−1, 1) and log π(action) (B, 1).
    """
    log_density = (-0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)).sum(1, keepdim=True)
    action = torch.tanh(mean + noise * log_std.exp())
    # relu: rounding can carry tanh² past 1, and the logarithm must not see it.
    log_density = log_density - (F.relu(1 - action.square()) + 1e-6).log().sum(1, keepdim=True)
    return action, log_density


def soft_target(
    reward: Tensor,
    not_done: Tensor,
    discount: float,
    next_q: tuple[Tensor, Tensor],
    alpha: Tensor,
    log_pi: Tensor,
) -> Tensor:
    """y = r + γ·(1 − done)·(min(Q₁', Q₂') − α·log π'), the soft Bellman target (SAC eq. 3 and 8).

    All tensors (B, 1) but `alpha` (0-d); `not_done` is 0 only at a true terminal, never at a time limit.
    """
    return reward + not_done * discount * (torch.minimum(*next_q) - alpha * log_pi)


def bellman(q: tuple[Tensor, Tensor], target: Tensor) -> Tensor:
    """Σ over both heads of the mean squared error to the target (SAC eq. 5, with twin critics)."""
    return F.mse_loss(q[0], target) + F.mse_loss(q[1], target)


def policy(alpha: Tensor, log_pi: Tensor, q: tuple[Tensor, Tensor]) -> Tensor:
    """E[α·log π − min(Q₁, Q₂)] (SAC eq. 7)."""
    return (alpha.detach() * log_pi - torch.minimum(*q)).mean()


def temperature(alpha: Tensor, log_pi: Tensor, target_entropy: float) -> Tensor:
    """E[−α·(log π + H̄)] (SAC eq. 18); only α receives gradient."""
    return (alpha * (-log_pi.detach() - target_entropy)).mean()
