"""Parts of networks against the plain way to compute them."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.upsampling import TransposedConvolution
from common.rl.networks import (
    Convolution,
    Decoder,
    Linear,
    Trunk,
    UpsampledConvolution,
    rounded_weights,
    set_precision,
)


@pytest.mark.parametrize("kind", [UpsampledConvolution, TransposedConvolution])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(("height", "width"), [(4, 6), (1, 1)])
def test_convolving_an_upsampled_image_without_making_it(kind, layout, height, width):
    torch.manual_seed(0)
    image = torch.randn(2, 3, height, width, dtype=torch.float64).contiguous(memory_format=layout)
    convolution = kind(3, 5).double().to(memory_format=layout)  # pyright: ignore
    inputs = [image.requires_grad_(), convolution.weight, convolution.bias]
    upsampled = F.interpolate(image, scale_factor=2, mode="nearest")
    plain = F.conv2d(upsampled, convolution.weight, convolution.bias, padding=1)
    fast = convolution(image)
    torch.testing.assert_close(fast, plain)
    upstream = torch.randn_like(plain)
    expected = torch.autograd.grad(plain, inputs, upstream)
    torch.testing.assert_close(torch.autograd.grad(fast, inputs, upstream), expected)


def test_layers_rounded_together_are_rounded_as_one_by_one():
    torch.manual_seed(0)
    convolution = Convolution(3, 4, 2).to(memory_format=torch.channels_last)  # pyright: ignore
    linear = Linear(5, 4)
    rounded = rounded_weights([convolution, linear], bf16=True)
    loss = torch.zeros((), dtype=torch.bfloat16)
    for layer, weights in zip((convolution, linear), rounded, strict=True):
        assert weights is not None
        assert torch.equal(weights[0], layer.weight.bfloat16()) and torch.equal(
            weights[1], layer.bias.bfloat16()
        )
        assert weights[0].stride() == layer.weight.stride()
        loss = loss + (weights[0] * weights[0]).sum()
    loss = loss + rounded[0][1].sum()  # pyright: ignore[reportOptionalSubscript]; nothing reads the other bias
    for layer in (convolution, linear):
        (gradient,) = torch.autograd.grad(loss, layer.weight, retain_graph=True)
        assert gradient.dtype == torch.float32
        assert torch.equal(gradient, (2 * layer.weight.detach().bfloat16()).float())
    found = torch.autograd.grad(loss, [convolution.bias, linear.bias], allow_unused=True)
    assert found[0] is not None and torch.equal(found[0], torch.ones(4)) and found[1] is None


def test_a_network_that_rounds_nothing_computes_with_its_own_weights():
    assert rounded_weights([Linear(2, 2)], bf16=False) == [None]


@pytest.mark.parametrize("kind", ["trunk", "decoder"])
def test_a_changed_weight_is_in_the_next_pass(kind):
    torch.manual_seed(0)
    network, inputs = {
        "trunk": lambda: (Trunk(3, 4, [2, 1], 12), torch.rand(2, 3, 12, 12) * 255),
        "decoder": lambda: (Decoder(5, [4, 4, 4], 3, 12), torch.randn(2, 5)),
    }[kind]()
    set_precision(network, bf16=True)
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    with torch.no_grad():
        before = network(inputs)
        assert torch.equal(network(inputs), before)
    network(inputs).square().mean().backward()
    saved = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer.step()
    with torch.no_grad():
        assert not torch.equal(network(inputs), before)
        network.load_state_dict(saved)
        assert torch.equal(network(inputs), before)
        for weight in network.parameters():
            nn.init.zeros_(weight)
        assert not network(inputs).any()
