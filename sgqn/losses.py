"""SGQN's losses and its saliency mask (Bertoin et al., 2022), pure functions of tensors."""

import math

import torch.nn.functional as F
from torch import Tensor

from common.frames import over_colours


def saliency_mask(attribution: Tensor, quantile: float) -> Tensor:
    """M_ρ: the pixels whose attribution is at or above the frame's ρ-quantile (section 4.1).

    Args:
        attribution: (B, F, H, W), one map per stacked frame.
        quantile: ρ in (0, 1), of each frame's H·W values, linearly interpolated.

    Returns:
        bool (B, F, H, W), about 1 − ρ of it true.
    """
    values = attribution.flatten(2)  # (B, F, H·W)
    # An interpolated quantile lies above its lower neighbour, so "at or above" it means at or above the
    # upper neighbour: one order statistic decides, and no sort is needed.
    rank = math.ceil(quantile * (values.shape[-1] - 1)) + 1
    threshold = values.kthvalue(rank, dim=-1).values
    return attribution >= threshold[..., None, None]


def masked(obs: Tensor, mask: Tensor, fill: Tensor) -> Tensor:
    """s ⊙ M_ρ with the pixels outside the mask set to `fill`.

    Args:
        obs: (B, 3F, H, W), 0–255.
        mask: bool (B, F, H, W).
        fill: 0-d, one value for the batch. The paper has 0; the released code draws it uniformly between
            the batch's smallest and largest pixel value.
    """
    return obs.where(over_colours(mask), fill)


def consistency(q: tuple[Tensor, Tensor], q_masked: tuple[Tensor, Tensor]) -> Tensor:
    """L_C: Σ over both heads of MSE(Q(s, a), Q(s ⊙ M_ρ, a)), with gradient on both sides (eq. 3)."""
    return F.mse_loss(q[0], q_masked[0]) + F.mse_loss(q[1], q_masked[1])


def self_supervised(logits: Tensor, mask: Tensor) -> Tensor:
    """L_SSL: binary cross-entropy between predicted and computed saliency mask (eq. 4).

    Args:
        logits: (B, 3F, H, W).
        mask: bool (B, F, H, W), a target without gradient.
    """
    return F.binary_cross_entropy_with_logits(logits, over_colours(mask).to(logits.dtype))
