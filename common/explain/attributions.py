"""Attributions of Q₁ to pixels that any agent with a critic offers; Captum's, but for SGQN's own.

Each takes a critic, observations (N, 3F, H, W) in 0–255 and actions (N, A), and returns (N, 3F, H, W) without
gradient. Captum's guided methods hook into ReLU modules, which these networks do not have: guided
backpropagation is `common.attribution`'s, and the tests hold it and what is built on it against Captum's.
"""

from typing import Any, Protocol

import torch.nn.functional as F
from captum.attr import LayerAttribution, LayerGradCam, Occlusion, Saliency
from einops import reduce
from torch import Tensor

from common.attribution import ExplainableCritic, guided_gradient

WINDOW, STRIDE = 12, 6
"""Side of the occluding square and how far it moves, pixels."""
EVALUATIONS = 16
"""Occluded copies of the batch that one forward pass takes."""


class ConvolutionalCritic(ExplainableCritic, Protocol):
    """A critic whose trunk ends in a convolution."""

    @property
    def trunk(self) -> Any: ...


def vanilla_gradient(critic: ExplainableCritic, obs: Tensor, action: Tensor) -> Tensor:
    """|∂Q₁/∂o| (Simonyan et al., 2014)."""
    pixels = obs.detach().float().requires_grad_()
    return Saliency(first_q(critic)).attribute(pixels, additional_forward_args=action).detach()


def guided_gradcam(critic: ConvolutionalCritic, obs: Tensor, action: Tensor) -> Tensor:
    """Guided backpropagation times Grad-CAM of the last convolution (Selvaraju et al., 2017).

    Grad-CAM weighs the convolution's channels by their mean gradient, keeps what is positive of their sum,
    and is enlarged to the observation's size by repeating pixels.
    """
    pixels = obs.detach().float().requires_grad_()
    maps = LayerGradCam(first_q(critic), critic.trunk.convolutions[-1]).attribute(
        pixels, additional_forward_args=action, relu_attributions=True
    )
    assert isinstance(maps, Tensor)
    return LayerAttribution.interpolate(maps.detach(), obs.shape[2:]) * guided_gradient(critic, obs, action)


def occlusion(critic: ExplainableCritic, obs: Tensor, action: Tensor) -> Tensor:
    """Q₁(o) less Q₁ with a square of all stacked frames in their mean colour, mean over the squares that
    cover a pixel (Zeiler and Fergus, 2014)."""
    pixels = obs.detach().float()
    mean_colour = reduce(pixels, "n c h w -> n c 1 1", "mean").expand_as(pixels)
    channels, side = pixels.shape[1], min(WINDOW, *pixels.shape[2:])
    return Occlusion(first_q(critic)).attribute(
        pixels,
        sliding_window_shapes=(channels, side, side),
        strides=(channels, STRIDE, STRIDE),
        baselines=mean_colour,
        additional_forward_args=action,
        perturbations_per_eval=EVALUATIONS,
    )


def first_q(critic: ExplainableCritic):
    """Q₁ as a function of observations and actions → (N,)."""
    return lambda obs, action: critic.first_q(obs, action, F.relu)[:, 0]
