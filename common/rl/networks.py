"""Networks that every agent is built from: convolutional trunk, projection, MLP, image decoder.

Images are (N, C, H, W) with values 0–255; networks scale them to [0, 1] themselves.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from common.config.schema import trunk_resolution
from common.rl.frames import chosen

Activation = Callable[[Tensor], Tensor]
ModuleT = TypeVar("ModuleT", bound=nn.Module)


Weights = tuple[Tensor, Tensor]
"""What a layer multiplies with, and its bias."""


class Linear(nn.Linear):
    """A linear layer whose weights can be rounded beforehand, together with those of other layers."""

    def weights(self) -> Weights:
        """What `forward` computes with, in the parameters' precision."""
        return self.weight, self.bias

    def forward(self, input: Tensor, weights: Weights | None = None) -> Tensor:
        """Multiply; `weights` may be what `weights()` returns in another precision."""
        return F.linear(input, *(weights or self.weights()))


class Convolution(nn.Conv2d):
    """A convolution whose weights can be rounded beforehand, together with those of other layers."""

    bias: nn.Parameter  # pyright: ignore[reportIncompatibleVariableOverride]

    def weights(self) -> Weights:
        """The kernel and the bias that `forward` computes with, in the parameters' precision."""
        return self.weight, self.bias

    def forward(self, input: Tensor, weights: Weights | None = None) -> Tensor:
        """Convolve; `weights` may be what `weights()` returns in another precision."""
        return self._conv_forward(input, *(weights or self.weights()))


Layers = Sequence[tuple[Convolution, Weights | None]]
"""Convolutions and the weights to run them with, None for their own."""


class PixelConvolution(Convolution):
    """A convolution that takes pixel values 0–255 as 255ths.

    The weights are divided instead of the pixels, whose 255ths bfloat16 would round.
    """

    def weights(self) -> Weights:
        return self.weight / 255, self.bias


class UpsampledConvolution(Convolution):
    """A 3×3 convolution, with a pixel of padding, of the image upsampled by nearest neighbours, which it does
    not build: (N, I, H, W) → (N, O, 2H, 2W).

    Each output pixel of the 3×3 kernel sees only 2×2 different input pixels, and which kernel entries
    fall on the same one depends on the parity of its row and column. Summing those entries beforehand
    gives four 2×2 kernels, run as one convolution at the input's resolution: 16 instead of 36
    multiplications per input pixel and channel pair.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1)

    def weights(self) -> Weights:
        """Kernel (4·O, I, 2, 2) and bias (4·O,): a pixel's O channels of one phase lie next to each other."""
        quarters = [quarter for half in _odd_and_even(self.weight, 2) for quarter in _odd_and_even(half, 3)]
        kernel = torch.cat(quarters).contiguous(memory_format=memory_format(self.weight))
        return kernel, self.bias.repeat(4)

    def forward(self, input: Tensor, weights: Weights | None = None) -> Tensor:
        phases = super().forward(input, weights)
        # Row 2i of the result is the even phase's row i, row 2i+1 the odd phase's row i+1. With the odd phase
        # first, interleaving puts them at 2i+1 and 2i+2: the result is all but the border. Channels stay last
        # until all is in place, so that the copy moves whole pixels, and the next layer finds its memory
        # format.
        interleaved = rearrange(phases, "n (p q o) h w -> n (h p) (w q) o", p=2, q=2)
        return rearrange(interleaved, "n h w o -> n o h w")[:, :, 1:-1, 1:-1]


def _odd_and_even(kernel: Tensor, dimension: int) -> tuple[Tensor, Tensor]:
    """The 2-tap kernels of odd and of even output pixels along a dimension of 3 taps.

    An odd pixel reads inputs (i, i+1) with weights (w₀+w₁, w₂), an even one (i−1, i) with (w₀, w₁+w₂).
    """
    first, middle, last = kernel.unbind(dimension)
    return torch.stack([first + middle, last], dimension), torch.stack([first, middle + last], dimension)


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
        kinds = [PixelConvolution] + [Convolution] * (len(strides) - 1)
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
        convolutions = cast(list[Convolution], list(self.convolutions))
        weight = convolutions[0].weight
        # Whole pixel values are exact in bfloat16. In the weights' memory format already, because the first
        # convolution would convert them itself, and in its backward pass again. Rounded before that: on a CPU
        # both in one copy take twice as long.
        dtype, layout = torch.bfloat16 if self.bf16 else weight.dtype, memory_format(weight)
        pixels = [view.to(dtype).contiguous(memory_format=layout) for view in views]
        layers = list(zip(convolutions, rounded_weights(convolutions, self.bf16), strict=True))
        features = self.convolve(layers, pixels[0] if len(pixels) == 1 else torch.cat(pixels), relu)
        return features.flatten(1).to(weight.dtype)

    def convolve(self, layers: Layers, pixels: Tensor, relu: Activation) -> Tensor:
        """Pixels (N, C, H, W) → the last convolution's output."""
        return convolved(layers, pixels, relu)


def convolved(layers: Layers, features: Tensor, relu: Activation) -> Tensor:
    """Convolutions one after the other, with ReLUs between them."""
    for index, (convolution, weights) in enumerate(layers):
        features = convolution(relu(features) if index > 0 else features, weights)
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
    (`UpsampledConvolution`), which is the same function for less than half the work.

    Args:
        latent: size of the input.
        filters: channels of the linear layer's image and of the two hidden convolutions.
        channels: output channels, returned without a non-linearity.
        image_size: output height and width, a multiple of 4.
    """

    def __init__(self, latent: int, filters: Sequence[int], channels: int, image_size: int) -> None:
        super().__init__()
        self.shape = (filters[0], image_size // 4, image_size // 4)
        self.linear = Linear(latent, filters[0] * (image_size // 4) ** 2)
        self.conv0 = Convolution(filters[0], filters[1], 3, padding=1)
        self.conv1 = UpsampledConvolution(filters[1], filters[2])
        self.conv2 = UpsampledConvolution(filters[2], channels)
        self.bf16 = False

    def forward(self, latent: Tensor) -> Tensor:
        """(N, latent) → (N, channels, H, W)."""
        layers = (self.linear, self.conv0, self.conv1, self.conv2)
        linear, *weights = rounded_weights(layers, self.bf16)
        dtype = torch.bfloat16 if self.bf16 else self.linear.weight.dtype
        image = F.relu(self.linear(latent.to(dtype), linear)).unflatten(1, self.shape)
        # So that a channels_last network also decodes in that format.
        image = image.contiguous(memory_format=memory_format(self.conv0.weight))
        image = F.relu(self.conv0(image, weights[0]))
        image = F.relu(self.conv1(image, weights[1]))
        image = self.conv2(image, weights[2])
        # Contiguous, because every loss goes through these pixels in this order.
        return image.to(self.linear.weight.dtype, memory_format=torch.contiguous_format)


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


def rounded_weights(layers: Sequence[Linear | Convolution], bf16: bool) -> Sequence[Weights | None]:
    """The layers' weights in bfloat16, None each where a network keeps their own precision.

    They are rounded anew in every pass, so that none is ever stale, but all together: by one kernel on a GPU
    instead of one for each. Autocast would round them one by one; its cache would hand weights rounded under
    no_grad to a later pass that needs their gradient, and cannot be captured in a CUDA graph.
    """
    if not bf16:
        return [None] * len(layers)
    weights = [weight for layer in layers for weight in layer.weights()]
    if torch.compiler.is_compiling():  # the compiler chooses the kernels itself
        rounded = [weight.to(torch.bfloat16) for weight in weights]
    else:
        rounded = _Converted.apply(torch.bfloat16, *weights)
    return list(zip(rounded[::2], rounded[1::2], strict=True))


class _Converted(torch.autograd.Function):
    """Tensors of one precision in another; their gradients come back in their own."""

    @staticmethod
    def forward(ctx, dtype: torch.dtype, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.own = tensors[0].dtype
        return tuple(_converted(dtype, tensors))

    @staticmethod
    def backward(ctx, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        own = iter(_converted(ctx.own, [gradient for gradient in gradients if gradient is not None]))
        return None, *(None if gradient is None else next(own) for gradient in gradients)


def _converted(dtype: torch.dtype, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Copies in the tensors' memory layouts."""
    copies = [torch.empty_like(tensor, dtype=dtype) for tensor in tensors]
    torch._foreach_copy_(copies, list(tensors))  # pyright: ignore[reportPrivateImportUsage]
    return copies


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
