"""Parts of networks against the plain way to compute them."""

import pytest
import torch
import torch.nn.functional as F

from common.rl.networks import upsampled_convolution


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(("height", "width"), [(4, 6), (1, 1)])
def test_convolving_an_upsampled_image_without_making_it(layout, height, width):
    torch.manual_seed(0)
    image = torch.randn(2, 3, height, width, dtype=torch.float64).contiguous(memory_format=layout)
    weight = torch.randn(5, 3, 3, 3, dtype=torch.float64).contiguous(memory_format=layout)
    bias = torch.randn(5, dtype=torch.float64)
    inputs = [value.requires_grad_() for value in (image, weight, bias)]
    plain = F.conv2d(F.interpolate(image, scale_factor=2, mode="nearest"), weight, bias, padding=1)
    fast = upsampled_convolution(image, weight, bias)
    torch.testing.assert_close(fast, plain)
    upstream = torch.randn_like(plain)
    expected = torch.autograd.grad(plain, inputs, upstream)
    torch.testing.assert_close(torch.autograd.grad(fast, inputs, upstream), expected)
