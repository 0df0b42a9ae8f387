"""Attributions against Captum's module-based ones, an exact derivative and a double loop."""

import pytest
import torch
from captum.attr import GuidedBackprop, LayerGradCam
from torch import nn

from common.explain import attributions
from common.rl.networks import Trunk, trunk_resolution
from tests import released
from tests.common.rl.modular_critic import ModularCritic


class LinearCritic(nn.Module):
    """Q₁ = Σ w ⊙ o + Σ a."""

    def __init__(self, weights):
        super().__init__()
        self.weights = weights

    def first_q(self, obs, action, relu):
        return ((obs * self.weights).sum((1, 2, 3)) + action.sum(1))[:, None]


@pytest.fixture
def linear():
    torch.manual_seed(0)
    return LinearCritic(torch.randn(6, 18, 24))


@pytest.fixture
def seen():
    torch.manual_seed(1)
    return torch.randint(0, 256, (2, 6, 18, 24), dtype=torch.uint8), torch.rand(2, 3)


def test_vanilla_gradient_of_a_linear_q_is_its_weights(linear, seen):
    found = attributions.vanilla_gradient(linear, *seen)
    torch.testing.assert_close(found, linear.weights.abs().expand(2, -1, -1, -1))


def test_occlusion_is_the_mean_drop_of_q_over_the_squares_that_cover_a_pixel(linear, seen):
    obs, action = seen
    window, stride = attributions.WINDOW, attributions.STRIDE
    mean = obs.float().mean((2, 3), keepdim=True)
    drops, covers = torch.zeros(2, 18, 24), torch.zeros(18, 24)
    for top in range(0, 18 - window + 1, stride):
        for left in range(0, 24 - window + 1, stride):
            square = (slice(top, top + window), slice(left, left + window))
            drop = ((obs - mean) * linear.weights)[:, :, *square].sum((1, 2, 3))
            drops[:, *square] += drop[:, None, None]
            covers[*square] += 1
    found = attributions.occlusion(linear, obs, action)
    assert covers.min() == 1 and covers.max() == 4
    for channel in range(6):
        torch.testing.assert_close(found[:, channel], drops / covers, rtol=1e-3, atol=0.1)


@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU")  # Captum says how it works
@pytest.mark.filterwarnings("ignore:Input Tensor .* did not already require gradients")
@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks")
def test_guided_gradcam_is_captums():
    stored = released.numbers("sgqn")
    agent = released.agent("sgqn", stored)
    obs, action = (released.tensor(stored[f"batch/{name}"]) for name in ("obs", "action"))
    module = ModularCritic(agent.critic)
    layer = agent.critic.trunk.convolutions[-1]
    cells = LayerGradCam(module, layer).attribute(
        obs.float(), additional_forward_args=action, relu_attributions=True
    )
    assert isinstance(cells, torch.Tensor)
    gradient = GuidedBackprop(module).attribute(obs.float(), additional_forward_args=action)
    expected = attributions.enlarged(cells, agent.critic.trunk.convolutions, 84) * gradient
    found = attributions.guided_gradcam(agent.critic, obs, action)
    assert (found > 0).any() and (found == 0).any()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize("strides", [[1], [2, 1], [2, 2, 1], [2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]])
def test_a_cell_stands_where_its_receptive_field_lies(strides):
    trunk = Trunk(3, 2, strides, 64)
    for weight in trunk.parameters():
        torch.nn.init.constant_(weight, 1.0)
    side = trunk_resolution(64, strides)
    pixels = torch.ones(1, 3, 64, 64, requires_grad=True)
    output = trunk(pixels).view(2, side, side)
    cells = torch.arange(side * side, dtype=torch.float32).view(1, 1, side, side)
    placed = attributions.enlarged(cells, trunk.convolutions, 64)[0, 0]
    for row, column in ((0, 0), (side // 2, side - 1), (side - 1, 1)):
        (seen,) = torch.autograd.grad(output[0, row, column], pixels, retain_graph=True)
        rows, columns = seen[0, 0].nonzero().float().mean(0).round().long().tolist()
        assert placed[rows, columns] == row * side + column
