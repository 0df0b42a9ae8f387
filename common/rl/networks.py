"""Networks that every agent is built from: convolutional trunk, projection, MLP, image decoder.

Images are (N, C, H, W) with values 0–255; networks scale them to [0, 1] themselves.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from common.config.schema import trunk_resolution
from common.rl.frames import chosen

Activation = Callable[[Tensor], Tensor]
ModuleT = TypeVar("ModuleT", bound=nn.Module)


class PixelConvolution(nn.Conv2d):
    """A convolution that takes pixel values 0–255 as 255ths.

    The weights are divided instead of the pixels, whose 255ths bfloat16 would round.
    """

    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, self.weight / 255, self.bias)


class Trunk(nn.Module):
    """3×3 convolutions without padding, ReLUs between them and none after the last, then flattened.

    SGQN's and SMG's encoder has 11 of them with 32 filters, strides 2, 1, …, 1: 84×84 → 32×21×21.

    Args:
        channels: input channels, 9 for three stacked RGB frames.
        filters: channels of every convolution.
        strides: one stride per convolution.
        image_size: height and width of the input in pixels.
    """

    def __init__(self, channels: int, filters: int, strides: Sequence[int], image_size: int) -> None:
        super().__init__()
        inputs = [channels] + [filters] * (len(strides) - 1)
        kinds = [PixelConvolution] + [nn.Conv2d] * (len(strides) - 1)
        self.convolutions = nn.ModuleList(
            kind(size, filters, 3, stride=stride)
            for kind, size, stride in zip(kinds, inputs, strides, strict=True)
        )
        self.output_size = filters * trunk_resolution(image_size, strides) ** 2
        self.bf16 = False

    def forward(self, *views: Tensor, relu: Activation = F.relu) -> Tensor:
        """Views (B, C, H, W), pixel values 0–255, encoded as one batch → (views·B, output_size).

        `relu` may bring a backward of its own.
        """
        with bf16_autocast(views[0].device, self.bf16):
            # Whole pixel values are exact in bfloat16. In the weights' memory format at once, because the
            # first convolution would convert them itself, and in its backward pass again.
            weight = next(self.convolutions.parameters())
            dtype, layout = torch.bfloat16 if self.bf16 else weight.dtype, memory_format(weight)
            pixels = [view.to(dtype, memory_format=layout) for view in views]
            features = self.convolve(pixels[0] if len(pixels) == 1 else torch.cat(pixels), relu)
        return features.flatten(1).to(weight.dtype)

    def convolve(self, pixels: Tensor, relu: Activation) -> Tensor:
        """Pixels (N, C, H, W) → the last convolution's output."""
        return convolved(self.convolutions, pixels, relu)


def convolved(convolutions: Iterable[nn.Module], features: Tensor, relu: Activation) -> Tensor:
    """Convolutions one after the other, with ReLUs between them."""
    for index, convolution in enumerate(convolutions):
        features = convolution(relu(features) if index > 0 else features)
    return features


class Projection(nn.Module):
    """Linear → LayerNorm → tanh: trunk features (B, F) → latent (B, latent) in (−1, 1)."""

    def __init__(self, features: int, latent: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, latent)
        self.norm = nn.LayerNorm(latent)

    def forward(self, features: Tensor) -> Tensor:
        return torch.tanh(self.norm(self.linear(features)))


class MLP(nn.Module):
    """Two hidden ReLU layers: (B, inputs) → (B, outputs)."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.linear0 = nn.Linear(inputs, hidden)
        self.linear1 = nn.Linear(hidden, hidden)
        self.linear2 = nn.Linear(hidden, outputs)

    def forward(self, inputs: Tensor, relu: Activation = F.relu) -> Tensor:
        return self.linear2(relu(self.linear1(relu(self.linear0(inputs)))))


class Decoder(nn.Module):
    """Latent → image: linear, then three 3×3 convolutions with two nearest-neighbour ×2 upsamplings.

    Linear → filters[0]×(H/4)² → ReLU → conv to filters[1] → ×2 → ReLU → conv to filters[2] → ×2 → ReLU
    → conv to `channels`. Both convolutions that follow an upsampling run at the low resolution
    (`upsampled_convolution`), which is the same function for less than half the work.

    Args:
        latent: size of the input.
        filters: channels of the linear layer's image and of the two hidden convolutions.
        channels: output channels, returned without a non-linearity.
        image_size: output height and width, a multiple of 4.
    """

    def __init__(self, latent: int, filters: Sequence[int], channels: int, image_size: int) -> None:
        super().__init__()
        self.shape = (filters[0], image_size // 4, image_size // 4)
        self.linear = nn.Linear(latent, filters[0] * (image_size // 4) ** 2)
        self.conv0 = nn.Conv2d(filters[0], filters[1], 3, padding=1)
        self.conv1 = nn.Conv2d(filters[1], filters[2], 3, padding=1)
        self.conv2 = nn.Conv2d(filters[2], channels, 3, padding=1)
        self.bf16 = False

    def forward(self, latent: Tensor) -> Tensor:
        """(N, latent) → (N, channels, H, W)."""
        with bf16_autocast(latent.device, self.bf16):
            image = F.relu(self.linear(latent)).unflatten(1, self.shape)
            # So that a channels_last network also decodes in that format.
            image = image.contiguous(memory_format=memory_format(self.conv0.weight))
            image = F.relu(self.conv0(image))
            image = F.relu(upsampled_convolution(image, self.conv1.weight, self.conv1.bias))
            image = upsampled_convolution(image, self.conv2.weight, self.conv2.bias)
        # Contiguous, because every loss goes through these pixels in this order.
        return image.to(self.linear.weight.dtype, memory_format=torch.contiguous_format)


def upsampled_convolution(image: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`conv2d(nearest_upsample_x2(image), weight, bias, padding=1)` without building the upsampled image.

    Each output pixel of the 3×3 kernel sees only 2×2 different input pixels, and which kernel entries
    fall on the same one depends on the parity of its row and column. Summing those entries beforehand
    gives four 2×2 kernels, run as one convolution at the input's resolution: 16 instead of 36
    multiplications per input pixel and channel pair.

    Args:
        image: (N, I, H, W).
        weight: (O, I, 3, 3).
        bias: (O,) or None.

    Returns:
        (N, O, 2H, 2W).
    """
    quarters = [quarter for half in _odd_and_even(weight, 2) for quarter in _odd_and_even(half, 3)]
    kernel = torch.cat(quarters)  # (4·O, I, 2, 2): a pixel's O channels of one phase lie next to each other
    if image.is_contiguous(memory_format=torch.channels_last):
        kernel = kernel.contiguous(memory_format=torch.channels_last)
    bias = None if bias is None else bias.repeat(4)
    phases = F.conv2d(image, kernel, bias, padding=1)
    # Row 2i of the result is the even phase's row i, row 2i+1 the odd phase's row i+1. With the odd phase
    # first, interleaving puts them at 2i+1 and 2i+2: the result is all but the border. Channels stay last
    # until all is in place, so that the copy moves whole pixels, and the next layer finds its memory format.
    interleaved = rearrange(phases, "n (p q o) h w -> n (h p) (w q) o", p=2, q=2)
    return rearrange(interleaved, "n h w o -> n o h w")[:, :, 1:-1, 1:-1]


def _odd_and_even(kernel: Tensor, dimension: int) -> tuple[Tensor, Tensor]:
    """The 2-tap kernels of odd and of even output pixels along a dimension of 3 taps.

    An odd pixel reads inputs (i, i+1) with weights (w₀+w₁, w₂), an even one (i−1, i) with (w₀, w₁+w₂).
    """
    first, middle, last = kernel.unbind(dimension)
    return torch.stack([first + middle, last], dimension), torch.stack([first, middle + last], dimension)


class FrameDecoder(nn.Module):
    """Decodes a latent of a frame stack into one image per frame (SMG's decoders g⁺ and g⁻).

    A linear head splits the latent (B, latent) into one latent per frame, (B·frames, latent), ReLU;
    one `Decoder`, shared by the frames, turns each into an image.
    """

    def __init__(
        self, latent: int, frames: int, filters: Sequence[int], channels: int, image_size: int
    ) -> None:
        super().__init__()
        self.head = nn.Linear(latent, frames * latent)
        self.decoder = Decoder(latent, filters, channels, image_size)
        self.latent = latent

    def forward(self, latent: Tensor, frames: Tensor | None = None) -> Tensor:
        """(B, latent) → (B·frames, channels, H, W), the frames of a sample next to each other.

        `frames`, int64 (k,), decodes only those of each sample.
        """
        latents = F.relu(self.head(latent)).unflatten(1, (-1, self.latent))  # (B, frames, latent)
        return self.decoder(chosen(latents, frames).flatten(0, 1))


def memory_format(weight: Tensor) -> torch.memory_format:
    """The memory format that a convolution with this weight (O, I, H, W) works in."""
    last = weight.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def bf16_autocast(device: torch.device, enabled: bool) -> torch.autocast:
    """Autocast to bfloat16 without its cache.

    The cache would hand weights cast under no_grad to a later pass that needs their gradient, and it
    cannot be captured in a CUDA graph.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled, cache_enabled=False)


def set_precision(module: nn.Module, bf16: bool) -> None:
    """Set whether the convolutions of trunks and decoders run in bfloat16, which are nearly all of the work.

    Latents, value and policy heads stay in the weights' precision: eight bits of mantissa would round a Q of
    100 to halves.
    """
    for part in module.modules():
        if isinstance(part, (Trunk, Decoder)):
            part.bf16 = bf16


class _GuidedReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, inputs: Tensor) -> Tensor:
        outputs = inputs.clamp_min(0)
        ctx.save_for_backward(outputs)
        return outputs

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        (outputs,) = ctx.saved_tensors
        return gradient.clamp_min(0) * (outputs > 0)


def guided_relu(inputs: Tensor) -> Tensor:
    """ReLU whose backward lets through only positive gradients at positive activations.

    Guided backpropagation, Springenberg et al., 2015.
    """
    return _GuidedReLU.apply(inputs)


def orthogonal(module: ModuleT) -> ModuleT:
    """The module with orthogonal linear layers, delta-orthogonal convolutions with ReLU gain, zero biases."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.orthogonal_(layer.weight)
            nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.Conv2d):
            nn.init.zeros_(layer.weight)
            # Only the centre tap is set: the layer starts as an orthogonal map of each pixel's channels.
            centre = layer.weight.data[:, :, layer.weight.size(2) // 2, layer.weight.size(3) // 2]
            nn.init.orthogonal_(centre, nn.init.calculate_gain("relu"))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return module
