"""The transposed convolution that the benchmark compares with is the same function."""

import pytest
import torch
import torch.nn.functional as F

from benchmarks.upsampling import TransposedConvolution, measure


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(("height", "width"), [(4, 6), (1, 1)])
def test_one_transposed_convolution_is_an_upsampling_and_a_convolution(layout, height, width):
    torch.manual_seed(0)
    image = torch.randn(2, 3, height, width, dtype=torch.float64).contiguous(memory_format=layout)
    convolution = TransposedConvolution(3, 5).double().to(memory_format=layout)  # pyright: ignore
    inputs = [image.requires_grad_(), convolution.weight, convolution.bias]
    upsampled = F.interpolate(image, scale_factor=2, mode="nearest")
    plain = F.conv2d(upsampled, convolution.weight, convolution.bias, padding=1)
    found = convolution(image)
    torch.testing.assert_close(found, plain)
    upstream = torch.randn_like(plain)
    expected = torch.autograd.grad(plain, inputs, upstream)
    torch.testing.assert_close(torch.autograd.grad(found, inputs, upstream), expected)


@pytest.mark.parametrize("amp", ["off", "bf16"])
def test_both_ways_are_measured(amp):
    found = measure("smoke", ["device=cpu", f"amp={amp}"], rounds=1)
    assert found["amp"] == amp
    ratio = found["phases_ms"] / found["transposed_ms"]
    assert found["transposed_is_faster_by"] == pytest.approx(ratio)
