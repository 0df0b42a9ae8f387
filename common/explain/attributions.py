"""Attributions of Q₁ to pixels that any agent with a critic offers; Captum's, but for SGQN's own.

Each takes a critic, observations (N, 3F, H, W) in 0–255 and actions (N, A), and returns (N, 3F, H, W) without
gradient. Captum's guided methods hook into ReLU modules, which these networks do not have: guided
backpropagation is `common.rl.attribution`'s, and the tests hold it and what is built on it against Captum's.
Captum is imported where it is used: that takes more than a second, which training need not wait.
"""

from collections.abc import Iterable
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from einops import reduce
from torch import Tensor

from common.rl.attribution import ExplainableCritic, guided_gradient

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
    from captum.attr import Saliency

    pixels = obs.detach().float().requires_grad_()
    return Saliency(first_q(critic)).attribute(pixels, additional_forward_args=action).detach()


def guided_gradcam(critic: ConvolutionalCritic, obs: Tensor, action: Tensor) -> Tensor:
    """Guided backpropagation times Grad-CAM of the last convolution (Selvaraju et al., 2017).

    Grad-CAM weighs the convolution's channels by their mean gradient and keeps what is positive of their sum.
    Each pixel takes the value of the cell to the middle of whose receptive field it is nearest. Captum would
    stretch the map over the whole picture, but without padding no cell has its middle near the border.
    """
    from captum.attr import LayerGradCam

    pixels = obs.detach().float().requires_grad_()
    maps = LayerGradCam(first_q(critic), critic.trunk.convolutions[-1]).attribute(
        pixels, additional_forward_args=action, relu_attributions=True
    )
    assert isinstance(maps, Tensor)
    maps = enlarged(maps.detach(), critic.trunk.convolutions, obs.shape[-1])
    return maps * guided_gradient(critic, obs, action)


def enlarged(maps: Tensor, convolutions: Iterable[Any], size: int) -> Tensor:
    """The last convolution's map (N, C, h, w) at the pixels (N, C, size, size) that its cells look at."""
    centre, apart = 0.0, 1  # of the first cell's receptive field; how far the next cell's is
    for convolution in convolutions:
        centre += ((convolution.kernel_size[0] - 1) / 2 - int(convolution.padding[0])) * apart
        apart *= convolution.stride[0]
    pixels = torch.arange(size, device=maps.device)
    cells = ((pixels - centre) / apart).round().long().clamp(0, maps.shape[-1] - 1)
    return maps[..., cells, :][..., cells]


def occlusion(critic: ExplainableCritic, obs: Tensor, action: Tensor) -> Tensor:
    """Q₁(o) less Q₁ with a square of all stacked frames in their mean colour, mean over the squares that
    cover a pixel (Zeiler and Fergus, 2014)."""
    from captum.attr import Occlusion

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
