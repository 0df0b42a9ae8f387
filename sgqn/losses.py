"""SGQN's losses (Bertoin et al., 2022), pure functions of tensors."""

import torch.nn.functional as F
from torch import Tensor

from common.rl.frames import over_colours


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
