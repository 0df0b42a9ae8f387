"""Attribution of a Q-value to pixels, for every agent."""

import math
from functools import cache
from typing import Protocol

import torch
from einops import reduce
from torch import Tensor

from common.rl.networks import Activation, guided_relu


class ExplainableCritic(Protocol):
    """A critic whose first Q head can be evaluated with a chosen ReLU."""

    def first_q(self, obs: Tensor, action: Tensor, relu: Activation) -> Tensor:
        """Q₁ (B, 1)."""
        ...


def guided_gradient(critic: ExplainableCritic, obs: Tensor, action: Tensor) -> Tensor:
    """Guided backpropagation of Q₁(obs, action) to the pixels, the map M(Q, s, a) of SGQN section 4.1.

    Args:
        obs: (B, C, H, W), 0–255. Samples do not influence each other.
        action: (B, A), in the precision of the critic's weights.

    Returns:
        (B, C, H, W), in the action's precision, without gradient. No parameter receives a gradient.
    """
    return _backpropagate(critic, obs, action)


@cache
def keep_from_compiler() -> None:
    """Let `torch.compile` call guided backpropagation instead of tracing it; to be called before it traces.

    A backward pass inside a compiled forward one is more than every PyTorch can trace. As a decorator,
    `torch.compiler.disable` would import the compiler, for two seconds, wherever an agent is looked up.
    """
    global _backpropagate
    _backpropagate = torch.compiler.disable(_backpropagate)  # pyright: ignore[reportAssignmentType]


def _backpropagate(critic: ExplainableCritic, obs: Tensor, action: Tensor) -> Tensor:
    pixels = obs.detach().to(action.dtype).requires_grad_()
    with torch.enable_grad():
        # As a view: PyTorch's FLOP counter cannot follow autograd.grad to a leaf that enters a module.
        q = critic.first_q(pixels.view_as(pixels), action.detach(), guided_relu)
        (gradient,) = torch.autograd.grad(q.sum(), pixels)
    return gradient


def frame_attribution(gradient: Tensor) -> Tensor:
    """Largest |gradient| over each stacked frame's colours: (B, F·3, H, W) → (B, F, H, W)."""
    return reduce(gradient.abs(), "b (f c) h w -> b f h w", "max", c=3)


def saliency_mask(attribution: Tensor, quantile: float) -> Tensor:
    """The pixels whose attribution is at or above the frame's ρ-quantile: M_ρ of SGQN, section 4.1.

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
