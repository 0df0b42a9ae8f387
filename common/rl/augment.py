"""Augmentations: the arithmetic as batched tensor functions, and Kornia classes that draw and call it.

The functions take stacks of RGB frames with pixels in 0..255, (B, 3 * frames, H, W), draw nothing and wait
for no device. The classes stand on Kornia's bases, see images in [0, 1] as all of Kornia does, and so
compose with Kornia's own. `build_augmentation` turns the `augmentation` of a YAML file into an
`Augmentation`.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import kornia.augmentation
import torch
import torch.nn.functional as F
from einops import rearrange
from kornia.augmentation import (
    AugmentationBase2D,
    GeometricAugmentationBase2D,
    IntensityAugmentationBase2D,
    RigidAffineAugmentationBase2D,
)
from torch import Tensor

from common.errors import UserError, did_you_mean
from common.rl.frames import apart, stacked
from common.rl.upload import upload

ImageSource = Callable[[int], Tensor]
"""n -> (n, 3, H, W), or (n, 3 * frames, H, W) for images of their own behind each frame; pixels in 0..255."""


def random_offsets(batch: int, pad: int, device: torch.device) -> Tensor:
    """Integer shifts (B, 2), vertical and horizontal, uniform in -pad..pad."""
    return torch.randint(-pad, pad + 1, (batch, 2), device=device)


def translate(images: Tensor, offsets: Tensor) -> Tensor:
    """Each image moved by its own whole number of pixels, edge pixels repeated.

    Output pixel (y, x) is input pixel (y + offsets[b, 0], x + offsets[b, 1]), which is DrQ's random
    shift: pad by replication, crop at a random place.

    Args:
        images: (B, C, H, W), any type.
        offsets: int64 (B, 2).
    """
    height, width = images.shape[-2:]
    rows = (torch.arange(height, device=images.device) + offsets[:, :1]).clamp(0, height - 1)
    columns = (torch.arange(width, device=images.device) + offsets[:, 1:]).clamp(0, width - 1)
    return _pick(images, rows, columns)


def crop(images: Tensor, top: Tensor, left: Tensor, size: int) -> Tensor:
    """A size x size window of each image, at its own place (RAD's random crop).

    Args:
        images: (B, C, H, W), any type.
        top, left: int64 (B,), the window's first row and column, in 0..H-size and 0..W-size.
    """
    within = torch.arange(size, device=images.device)
    return _pick(images, top[:, None] + within, left[:, None] + within)


def _pick(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The given rows (B, h) and columns (B, w) of each image (B, C, H, W): (B, C, h, w)."""
    batch, channels, _, width = images.shape
    places = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)
    picked = images.flatten(2).gather(2, places[:, None].expand(-1, channels, -1))
    return picked.view(batch, channels, rows.shape[1], columns.shape[1])


def rotate(images: Tensor, angles: Tensor) -> Tensor:
    """Each image turned about its centre, interpolated bilinearly, edge pixels repeated.

    The output at (x, y), from the centre to the right and down, is the input at
    (x cos a - y sin a, x sin a + y cos a): a positive angle turns what is seen counter-clockwise.

    Args:
        images: (B, C, H, H), floating.
        angles: (B,), radians.
    """
    cos, sin, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    rows = torch.stack([cos, -sin, zero]), torch.stack([sin, cos, zero])
    grid = F.affine_grid(torch.stack(rows).permute(2, 0, 1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid.to(images), padding_mode="border", align_corners=False)


def overlay(obs: Tensor, backdrops: Tensor, alpha: float = 0.5) -> Tensor:
    """Random overlay: (1 - alpha) * obs + alpha * backdrop.

    Args:
        obs: (B, 3 * frames, H, W).
        backdrops: (B, 3, H, W), one for all frames of a sample, or (B, 3 * frames, H, W), one for each.
    """
    frames = apart(_floating(obs))
    return stacked(torch.lerp(frames, apart(backdrops.to(frames.dtype)), alpha))


def compose(obs: Tensor, mask: Tensor, backdrops: Tensor) -> Tensor:
    """Attribution augmentation: obs * mask + backdrop * (1 - mask) (SMG, tau_attrib).

    Args:
        obs: (B, 3 * frames, H, W).
        mask: (B, frames, H, W) in [0, 1], one per frame.
        backdrops: (B, 3, H, W), one for all frames of a sample, or (B, 3 * frames, H, W), one for each.
    """
    dtype = obs.dtype if obs.is_floating_point() else mask.dtype
    frames, behind = apart(obs.to(dtype)), apart(backdrops.to(dtype))
    return stacked(torch.lerp(behind, frames, mask.to(dtype)[:, :, None]))


def random_convolution(obs: Tensor, weights: Tensor) -> Tensor:
    """Random convolution: 255 * sigmoid(weights * obs / 255), edge pixels repeated.

    Args:
        obs: (B, 3 * frames, H, W).
        weights: (B, 3, 3, 3, 3): one convolution 3 -> 3 channels with a 3x3 kernel per sample.
    """
    batch = len(obs)
    # Samples become groups of one convolution, frames its batch.
    frames = rearrange(_floating(obs) / 255, "b (f c) h w -> f (b c) h w", c=3)
    padded = F.pad(frames, (1, 1, 1, 1), mode="replicate")
    filtered = F.conv2d(padded, weights.to(frames.dtype).flatten(0, 1), groups=batch)
    return rearrange(255 * torch.sigmoid(filtered), "f (b c) h w -> b (f c) h w", b=batch)


def spectrum_mask(obs: Tensor, low: float | Tensor, high: float | Tensor) -> Tensor:
    """Obs without the spatial frequencies in a square ring (spectrum random masking, SRM).

    A frequency is erased where low <= max(|vertical|, |horizontal|) < high, in cycles per pixel. Erasing the
    ring at all three colour frequencies, as the method says, is erasing it in each channel. Values may leave
    0..255.

    Args:
        obs: (B, C, H, W).
        low, high: numbers or 0-d tensors in [0, 0.5].
    """
    pixels = _floating(obs)
    height, width = obs.shape[-2:]
    vertical = torch.fft.fftfreq(height, device=obs.device).abs()[:, None]
    horizontal = torch.fft.rfftfreq(width, device=obs.device).abs()[None, :]
    radius = torch.maximum(vertical, horizontal)
    kept = ((radius < low) | (radius >= high)).to(pixels.dtype)
    return torch.fft.irfft2(torch.fft.rfft2(pixels) * kept, s=(height, width))


def _floating(images: Tensor) -> Tensor:
    return images if images.is_floating_point() else images.float()


class RandomShift(GeometricAugmentationBase2D):
    """`translate` by up to `pad` pixels in each direction."""

    def __init__(self, pad: int, p: float = 1.0) -> None:
        super().__init__(p=p)
        self.pad = pad

    def generate_parameters(self, batch_shape: tuple[int, ...]) -> dict[str, Tensor]:
        return {"offsets": random_offsets(batch_shape[0], self.pad, self.device)}

    def compute_transformation(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any]
    ) -> Tensor:
        """The (B, 3, 3) matrices that move a point as its pixel moves."""
        matrix = self.identity_matrix(input).clone()
        matrix[:, :2, 2] = -params["offsets"].to(matrix).flip(1)
        return matrix

    def apply_transform(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        return translate(input, params["offsets"].to(input.device))


class RandomOverlay(IntensityAugmentationBase2D):
    """`overlay` with images from a source."""

    def __init__(self, images: ImageSource, alpha: float = 0.5, p: float = 1.0) -> None:
        super().__init__(p=p)
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha is {alpha} but must lie in [0, 1]")
        self.images = images
        self.alpha = alpha

    def generate_parameters(self, batch_shape: tuple[int, ...]) -> dict[str, Tensor]:
        return {"backdrops": self.images(batch_shape[0])}

    def apply_transform(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        return overlay(input, params["backdrops"].to(input) / 255, self.alpha)


class RandomConvolution(IntensityAugmentationBase2D):
    """`random_convolution` with weights from the standard normal distribution."""

    def __init__(self, p: float = 1.0) -> None:
        super().__init__(p=p)

    def generate_parameters(self, batch_shape: tuple[int, ...]) -> dict[str, Tensor]:
        return {"weights": torch.randn(batch_shape[0], 3, 3, 3, 3, device=self.device)}

    def apply_transform(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        return random_convolution(input * 255, params["weights"].to(input)) / 255


PHOTOMETRIC = {
    "convolution": ("convolution",),
    "overlay": ("overlay",),
    "convolution_overlay": ("convolution", "overlay"),
}
GEOMETRIC = {
    "rotation": ("rotation",),
    "shift": ("shift",),
    "rotation_shift": ("rotation", "shift"),
}
KINDS = {"photometric": PHOTOMETRIC, "geometric": GEOMETRIC, "all": PHOTOMETRIC | GEOMETRIC}
"""SADA's strong augmentations: the operations that each applies, in order, by the choices of `kinds`."""


class StrongAugmentation(GeometricAugmentationBase2D):
    """One of SADA's strong augmentations for each sample, drawn uniformly.

    Args:
        images: the source of backdrops.
        kinds: what to draw from: "photometric", "geometric" or "all" of `KINDS`.
        alpha: the backdrop's share in an overlay.
        degrees: largest angle of a rotation to either side.
        pad: largest shift [pixels]; by default the share of the width that SADA's 16 are of 84.
        one_angle: turn all samples of a batch that are turned by one angle.
    """

    def __init__(
        self,
        images: ImageSource,
        kinds: str = "all",
        alpha: float = 0.5,
        degrees: float = 180.0,
        pad: int | None = None,
        one_angle: bool = False,
        p: float = 1.0,
    ) -> None:
        super().__init__(p=p)
        if kinds not in KINDS:
            raise ValueError(f"kinds is {kinds!r}; choose among {', '.join(KINDS)}")
        self.images = images
        self.kinds = KINDS[kinds]
        self.alpha = alpha
        self.degrees = degrees
        self.pad = pad
        self.one_angle = one_angle

    def generate_parameters(self, batch_shape: tuple[int, ...]) -> dict[str, Tensor]:
        count, device = batch_shape[0], self.device
        pad = round(batch_shape[-1] * 16 / 84) if self.pad is None else self.pad
        angles = torch.rand(1 if self.one_angle else count, device=device).expand(count)
        return {
            "kind": torch.randint(len(self.kinds), (count,), device=device),
            "weights": torch.randn(count, 3, 3, 3, 3, device=device),
            "backdrops": self.images(count),
            "angles": torch.deg2rad(self.degrees * (2 * angles - 1)),
            "offsets": random_offsets(count, pad, device),
        }

    def compute_transformation(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any]
    ) -> Tensor:
        """The (B, 3, 3) matrices that move a point as its pixel moves."""
        turned, moved = (self._applied(params["kind"], name).to(input) for name in ("rotation", "shift"))
        angles = params["angles"].to(input) * turned
        centre = torch.tensor([(length - 1) / 2 for length in (input.shape[-1], input.shape[-2])]).to(input)
        matrix = self.identity_matrix(input).clone()
        matrix[:, 0, 0] = matrix[:, 1, 1] = angles.cos()
        matrix[:, 0, 1], matrix[:, 1, 0] = angles.sin(), -angles.sin()
        matrix[:, :2, 2] = centre - matrix[:, :2, :2] @ centre
        matrix[:, :2, 2] -= moved[:, None] * params["offsets"].to(input).flip(1)
        return matrix

    def apply_transform(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        values = {name: params[name].to(input) for name in ("weights", "backdrops", "angles")}
        offsets = params["offsets"].to(input.device)
        operations: dict[str, Callable[[Tensor], Tensor]] = {
            "convolution": lambda images: random_convolution(images * 255, values["weights"]) / 255,
            "overlay": lambda images: overlay(images, values["backdrops"] / 255, self.alpha),
            "rotation": lambda images: rotate(images, values["angles"]),
            "shift": lambda images: translate(images, offsets),
        }
        # Every sample goes through every operation and keeps what its kind asks for: nothing waits for the
        # device. No kind has two of these in another order.
        for name, operation in operations.items():
            if any(name in kind for kind in self.kinds.values()):
                applied = self._applied(params["kind"], name).to(input.device)[:, None, None, None]
                input = torch.where(applied, operation(input), input)
        return input

    def _applied(self, kind: Tensor, operation: str) -> Tensor:
        """Whether the operation is part of each sample's kind (B,), by its number: bool (B,)."""
        return torch.stack(
            [kind == number for number, parts in enumerate(self.kinds.values()) if operation in parts]
            or [torch.zeros_like(kind, dtype=torch.bool)]
        ).any(0)


class AttributionOverlay(IntensityAugmentationBase2D):
    """`compose`: what the mask attends to stays, images from a source replace the rest.

    Args:
        images: the source of backdrops.
        mask: gives the masks (B, frames, H, W) of images (B, 3 * frames, H, W) in [0, 1].
    """

    def __init__(self, images: ImageSource, mask: Callable[[Tensor], Tensor], p: float = 1.0) -> None:
        super().__init__(p=p)
        self.images = images
        self.mask = mask

    def generate_parameters(self, batch_shape: tuple[int, ...]) -> dict[str, Tensor]:
        return {"backdrops": self.images(batch_shape[0])}

    def apply_transform(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        return compose(input, self.mask(input), params["backdrops"].to(input) / 255)


class Augmentation:
    """Kornia augmentations applied in turn to observations; one draw serves all frames of a sample.

    Randomness comes from torch's global generators (Kornia has no others) and from the image source.
    """

    def __init__(self, transforms: Sequence[AugmentationBase2D]) -> None:
        self.transforms = list(transforms)

    def draw(self, batch_size: int, height: int, width: int, device: torch.device) -> dict[str, Tensor]:
        """All that is random in augmenting `batch_size` observations of height x width pixels.

        Kornia samples on the CPU, so a seed means the same on every device; what belongs to samples is sent
        to `device`.
        """
        draws = {}
        for index, transform in enumerate(self.transforms):
            for name, value in transform.forward_parameters((batch_size, 3, height, width)).items():
                # Kornia reads the others (a shape, the order of four operations) on the host.
                per_sample = name not in ("forward_input_shape", "order", "idx")
                on_host = value.device.type == "cpu"
                draws[f"{index}.{name}"] = upload(value, device) if per_sample and on_host else value
        return draws

    def __call__(self, obs: Tensor, draws: dict[str, Tensor]) -> Tensor:
        """Observations (B, 3 * frames, H, W), uint8 or floating 0..255, augmented: float32 in the same range.

        Transforms that add without clamping, such as Kornia's RandomGaussianNoise, may leave the range.
        """
        if not self.transforms:
            return obs.float()
        # Coordinates and pixels need more than the 8 bits of a bfloat16.
        with torch.autocast(obs.device.type, enabled=False):
            stack = obs.float() / 255
            for index, transform in enumerate(self.transforms):
                prefix = f"{index}."
                params = {
                    name.removeprefix(prefix): value
                    for name, value in draws.items()
                    if name.startswith(prefix)
                }
                stack = _transform(transform, stack, params)
            return stack * 255


def _transform(transform: AugmentationBase2D, stack: Tensor, params: dict[str, Tensor]) -> Tensor:
    """One transform of every frame, (B, 3 * frames, H, W) in [0, 1], with the same parameters."""
    if isinstance(transform, tuple(OWN.values())) and transform.p == transform.p_batch == 1:
        # These take whole stacks. Kornia's wrapper costs more than their arithmetic, three times over.
        return transform.apply_transform(stack, params, transform.flags)
    # Frame by frame: parameters are drawn for a batch of samples, and some are indices into it.
    frames = rearrange(stack, "b (f c) h w -> f b c h w", c=3)
    transformed = [transform(frame, params=_of_frame(params, index)) for index, frame in enumerate(frames)]
    return rearrange(transformed, "f b c h w -> b (f c) h w")


def _of_frame(params: dict[str, Tensor], index: int) -> dict[str, Tensor]:
    """A frame's own backdrops, where each has its own, and what it shares with the others."""
    if "backdrops" not in params or params["backdrops"].shape[1] == 3:
        return params
    return params | {"backdrops": apart(params["backdrops"])[:, index]}


OWN: dict[str, type[AugmentationBase2D]] = {
    "overlay": RandomOverlay,
    "random_convolution": RandomConvolution,
    "random_shift": RandomShift,
    "strong": StrongAugmentation,
}
_BASES = (
    AugmentationBase2D,
    RigidAffineAugmentationBase2D,
    IntensityAugmentationBase2D,
    GeometricAugmentationBase2D,
)


def build_augmentation(
    spec: str | Mapping[str, Any] | Sequence[Any] | None, images: ImageSource | None, size: int
) -> Augmentation:
    """The augmentation that a YAML file names.

    Args:
        spec: a name, a mapping of `name` and the class's arguments, a list of these, applied in turn, or
            nothing. A name is one of `OWN` or of Kornia's two-dimensional classes.
        images: source of backdrops of size x size pixels; only overlay and strong need it.
        size: side of the observations in pixels.

    Raises:
        UserError: no such name or argument, a value the class refuses, or a class that changes the size.
    """
    if spec is None:
        return Augmentation([])
    entries = [spec] if isinstance(spec, str | Mapping) else spec
    return Augmentation([_build_transform(entry, images, size) for entry in entries])


def draws_images(spec: str | Mapping[str, Any] | Sequence[Any] | None) -> bool:
    """Whether an augmentation draws overlay images: one of `build_augmentation`, or SMG's mixture."""
    entries = [spec] if isinstance(spec, str | Mapping) else spec or []
    names = [entry.get("name") if isinstance(entry, Mapping) else entry for entry in entries]
    drawing = {name for name, each in OWN.items() if "images" in inspect.signature(each.__init__).parameters}
    return not drawing.isdisjoint(names) or "mixture" in names


def _build_transform(entry: Any, images: ImageSource | None, size: int) -> AugmentationBase2D:
    settings = dict(entry) if isinstance(entry, Mapping) else {"name": entry}
    name = settings.pop("name", None)
    if not isinstance(name, str):
        raise UserError(f"augmentation {entry!r} is neither a name nor a mapping with a 'name'")
    transform_class = _transform_class(name)

    parameters = inspect.signature(transform_class.__init__).parameters
    valid = [parameter for parameter in parameters if parameter not in ("self", "images")]
    for key in settings:
        if key not in valid:
            raise UserError(f"augmentation {name} has no argument '{key}'; it takes {', '.join(valid)}")
    probability = settings.get("p", 1)
    if not isinstance(probability, int | float) or not 0 <= probability <= 1:
        raise UserError(f"augmentation {name} has p={probability!r}; a probability lies in [0, 1]")
    if "images" in parameters and images is None:
        raise ValueError(f"augmentation {name} needs a source of images")
    try:
        arguments = {key: _argument(value, parameters[key].annotation) for key, value in settings.items()}
        if "images" in parameters:
            arguments["images"] = images
        transform = transform_class(**arguments)
        if name not in OWN:
            _check_size(transform, size)
    except UserError:
        raise
    except Exception as error:  # Kornia's classes raise whatever their checks happen to
        reason = " ".join(str(error).split())
        raise UserError(
            f"augmentation {name} refuses its arguments ({reason}); it takes {', '.join(valid)}"
        ) from error
    return transform


def _transform_class(name: str) -> type[AugmentationBase2D]:
    """The class that a name in a YAML file means."""
    if name == "mixture":
        raise UserError("augmentation 'mixture' is SMG's own and stands alone; name it only for agent smg")
    # Kornia's two-dimensional augmentations; those that mix samples or take volumes have other bases.
    classes = OWN | {
        key: value
        for key, value in vars(kornia.augmentation).items()
        if inspect.isclass(value) and issubclass(value, AugmentationBase2D) and value not in _BASES
    }
    if name not in classes:
        raise UserError(f"unknown augmentation '{name}': {did_you_mean(name, classes)}")
    return classes[name]


def _check_size(transform: AugmentationBase2D, size: int) -> None:
    """Try a transform once, on the CPU and without touching the global generator's state."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        augmented = transform(torch.rand(2, 3, size, size))
    if tuple(augmented.shape) != (2, 3, size, size):
        raise UserError(
            f"augmentation {type(transform).__name__} turns {size}x{size} pixels into "
            f"{'x'.join(str(length) for length in augmented.shape[-2:])}; it must keep the size"
        )


def _argument(value: Any, annotation: Any) -> Any:
    """A YAML value as Kornia wants it: YAML has lists for its ranges, which are tuples or tensors."""
    if annotation is Tensor:
        return torch.tensor(value)
    return _tuple(value) if isinstance(value, list | tuple) else value


def _tuple(values: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(_tuple(value) if isinstance(value, list | tuple) else value for value in values)
