"""SMG's losses (Zhang et al., NeurIPS 2024), pure functions of tensors.

Frames are kept apart, images (B, F, 3, H, W) and masks (B, F, 1, H, W), so that a mask covers a frame's
colours. Images hold 0–255: the weights between the image losses and the others belong to that scale.
"""

import torch.nn.functional as F
from torch import Tensor


def attended(foreground: Tensor, mask: Tensor) -> Tensor:
    """Attrib(o) = o⁺ ⊙ M, the pixels the agent attends to."""
    return foreground * mask


def reconstruct(foreground: Tensor, mask: Tensor, background: Tensor) -> Tensor:
    """o' = o⁺ ⊙ M + o⁻ ⊙ (1 − M)."""
    return background.lerp(foreground, mask)


def reconstruction(reconstructed: Tensor, obs: Tensor) -> Tensor:
    """Mean of |o' − o|: foreground and background together explain the observation."""
    return F.l1_loss(reconstructed, obs)


def mask_ratio(mask: Tensor, rho: float) -> Tensor:
    """Mean over samples and frames of (ΣM / (H·W) − ρ)² (poster eq. 1)."""
    return (mask.mean((2, 3, 4)) - rho).square().mean()


def background(predicted: Tensor, backdrop: Tensor) -> Tensor:
    """Mean of |g⁻(f⁻(τ_attrib(o))) − ε|: the background branch paints the whole backdrop (poster eq. 2).

    Args:
        predicted: (B, F, 3, H, W).
        backdrop: ε (B, F, 3, H, W), or (B, 1, 3, H, W), the same for every frame of a sample.
    """
    return F.l1_loss(predicted, backdrop.expand_as(predicted))


def empowerment(predicted_action: Tensor, action: Tensor) -> Tensor:
    """Mean of (q(z⁺_t, z⁺_{t+1}) − a_t)²: the foreground latent tells the action (poster eq. 3)."""
    return F.mse_loss(predicted_action, action)


def foreground_consistency(augmented: Tensor, plain: Tensor) -> Tensor:
    """Mean of |Attrib(τ(o)) − sg Attrib(o)|: τ does not change what is attended to (poster eq. 4)."""
    return F.l1_loss(augmented, plain.detach())


def q_consistency(q_augmented: tuple[Tensor, Tensor], q: tuple[Tensor, Tensor]) -> Tensor:
    """Σ over both heads of MSE(Q(f⁺(τ(o)), a), sg Q(f⁺(o), a)) (poster eq. 5)."""
    return F.mse_loss(q_augmented[0], q[0].detach()) + F.mse_loss(q_augmented[1], q[1].detach())
