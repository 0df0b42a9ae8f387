import inspect
from pathlib import Path

import kornia.augmentation
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from kornia.augmentation import AugmentationBase2D, AugmentationSequential

from common.errors import UserError
from common.rl import augment
from common.rl.augment import (
    AttributionOverlay,
    RandomConvolution,
    RandomOverlay,
    RandomShift,
    StrongAugmentation,
    build_augmentation,
    compose,
    crop,
    overlay,
    random_convolution,
    random_offsets,
    rotate,
    spectrum_mask,
    translate,
)
from tests.synchronisation import ForbidSynchronisation

CPU = torch.device("cpu")
FIXTURE = Path(__file__).parents[2] / "fixtures" / "augment.npz"


def random_images(count: int, channels: int = 9, size: int = 12, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8, generator=generator)


class Source:
    """Overlay images by count, each batch another one."""

    def __init__(self, size: int = 12) -> None:
        self.size = size
        self.drawn: list[torch.Tensor] = []

    def __call__(self, count: int) -> torch.Tensor:
        self.drawn.append(random_images(count, 3, self.size, seed=100 + len(self.drawn)))
        return self.drawn[-1]


def test_shift_equals_a_double_loop_over_pixels():
    images = random_images(5, channels=2, size=6)
    offsets = torch.tensor([[0, 0], [2, -1], [-3, 3], [1, 2], [-2, -2]])
    expected = torch.empty_like(images)
    for sample, (down, right) in enumerate(offsets.tolist()):
        for row in range(6):
            for column in range(6):
                source = (min(max(row + down, 0), 5), min(max(column + right, 0), 5))
                expected[sample, :, row, column] = images[sample, :, source[0], source[1]]
    assert torch.equal(translate(images, offsets), expected)
    assert torch.equal(translate(images.float(), offsets), expected.float())


def test_shift_is_a_random_crop_after_padding_by_replication():
    images, pad = random_images(40).float(), 4
    torch.manual_seed(0)
    offsets = random_offsets(40, pad, CPU)
    padded = F.pad(images, (pad,) * 4, mode="replicate")
    for sample, (down, right) in enumerate((offsets + pad).tolist()):
        window = padded[sample, :, down : down + 12, right : right + 12]
        assert torch.equal(translate(images, offsets)[sample], window)


def test_offsets_are_uniform_and_reach_both_ends():
    torch.manual_seed(0)
    counts = torch.bincount((random_offsets(9000, 4, CPU) + 4).flatten(), minlength=9).double()
    assert len(counts) == 9
    assert ((counts - 2000) ** 2 / 2000).sum() < 26.1  # 99.9% quantile for 8 degrees of freedom


def test_crop_equals_slicing():
    images = random_images(3, size=10)
    top, left = torch.tensor([0, 4, 2]), torch.tensor([4, 0, 1])
    cropped = crop(images, top, left, 6)
    assert torch.equal(cropped[0], images[0, :, 0:6, 4:10])
    assert torch.equal(cropped[1], images[1, :, 4:10, 0:6])
    assert torch.equal(cropped[2], images[2, :, 2:8, 1:7])


def test_overlay_by_hand():
    obs = torch.tensor([10, 20, 30, 40, 50, 60], dtype=torch.uint8).view(1, 6, 1, 1)  # two frames
    backdrop = torch.tensor([0, 100, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    assert overlay(obs, backdrop).flatten().tolist() == [5.0, 60.0, 142.5, 20.0, 75.0, 157.5]
    assert overlay(obs, backdrop, alpha=0.1).flatten().tolist() == pytest.approx([9, 28, 52.5, 36, 55, 79.5])


def test_backdrops_may_differ_from_frame_to_frame():
    obs = torch.tensor([10.0, 20, 30, 40, 50, 60]).view(1, 6, 1, 1)
    backdrop = torch.tensor([0.0, 100, 200, 80, 60, 40]).view(1, 6, 1, 1)
    assert overlay(obs, backdrop).flatten().tolist() == [5, 60, 115, 60, 55, 50]
    mask = torch.tensor([0.0, 0.25]).view(1, 2, 1, 1)
    assert compose(obs, mask, backdrop).flatten().tolist() == [0, 100, 200, 70, 57.5, 45]


def rotated_by_loop(image: np.ndarray, angle: float) -> np.ndarray:
    """A channel (H, H) turned counter-clockwise about its middle, as a loop over pixels."""
    size = len(image)
    centre, turned = (size - 1) / 2, np.zeros((size, size))
    for row in range(size):
        for column in range(size):
            x, y = column - centre, row - centre
            x, y = x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)
            x, y = np.clip((x + centre, y + centre), 0, size - 1)
            left, top = min(int(x), size - 2), min(int(y), size - 2)
            right, down = x - left, y - top
            upper = image[top, left] * (1 - right) + image[top, left + 1] * right
            lower = image[top + 1, left] * (1 - right) + image[top + 1, left + 1] * right
            turned[row, column] = upper * (1 - down) + lower * down
    return turned


def test_rotate_equals_a_loop_over_pixels_and_kornias():
    images, angles = random_images(3, channels=2).float(), torch.tensor([0.3, -2.5, np.pi / 2])
    turned = rotate(images, angles)
    for sample, angle in enumerate(angles.tolist()):
        for channel in (0, 1):
            expected = rotated_by_loop(images[sample, channel].numpy(), angle)
            np.testing.assert_allclose(turned[sample, channel], expected, atol=0.02)
    torch.testing.assert_close(turned[2], images[2].rot90(1, (1, 2)), atol=0.01, rtol=0)
    degrees = torch.rad2deg(angles)
    theirs = kornia.geometry.transform.rotate(images, degrees, padding_mode="border")
    torch.testing.assert_close(turned, theirs, atol=0.02, rtol=0)


def test_compose_by_hand():
    obs = torch.tensor([10.0, 20, 30, 40, 50, 60]).view(1, 6, 1, 1)
    backdrop = torch.tensor([0.0, 100, 200]).view(1, 3, 1, 1)
    mask = torch.tensor([1.0, 0.25]).view(1, 2, 1, 1)  # all of frame 1, a quarter of frame 2
    # Frame 2: 40/4 + 0, 50/4 + 75, 60/4 + 150.
    assert compose(obs, mask, backdrop).flatten().tolist() == [10, 20, 30, 10, 87.5, 165]


def test_random_convolution_equals_the_released_numbers():
    with np.load(FIXTURE) as numbers:
        obs = torch.from_numpy(numbers["obs"])
        output = random_convolution(obs, torch.from_numpy(numbers["random_convolution/weights"]))
        assert np.array_equal(output.round().byte().numpy(), numbers["random_convolution/output"])
        np.testing.assert_allclose(output.mean((2, 3)), numbers["random_convolution/mean"], rtol=1e-5)


def test_spectrum_mask_equals_the_released_numbers():
    with np.load(FIXTURE) as numbers:
        low, high = numbers["spectrum/low_high"].tolist()
        obs = torch.from_numpy(numbers["obs"])
        for limits in ((low, high), torch.tensor([low, high])):
            output = spectrum_mask(obs, *limits)
            np.testing.assert_allclose(output, numbers["spectrum/output"], atol=1e-3)


def test_spectrum_mask_erases_a_wave_inside_the_ring_and_keeps_one_outside():
    place = torch.arange(20) / 20
    inside = torch.cos(2 * torch.pi * 5 * place).expand(1, 3, 20, 20)  # 0.25 cycles per pixel
    outside = torch.cos(2 * torch.pi * 2 * place).expand(1, 3, 20, 20).mT  # 0.1, along the other axis
    masked = spectrum_mask(inside + outside + 7, 0.2, 0.3)
    torch.testing.assert_close(masked, outside + 7, atol=1e-5, rtol=0)


def test_spectrum_mask_keeps_its_upper_limit():
    wave = torch.cos(2 * torch.pi * 5 * torch.arange(20) / 20).expand(1, 3, 20, 20)  # 0.25 cycles per pixel
    torch.testing.assert_close(spectrum_mask(wave + 7, 0.2, 0.25), wave + 7)
    torch.testing.assert_close(spectrum_mask(wave + 7, 0, 0), wave + 7)
    torch.testing.assert_close(spectrum_mask(wave + 7, 0.25, 0.26), torch.full_like(wave, 7))


@pytest.mark.slow
def test_functions_never_wait_for_the_device_and_compile_in_one_graph():
    obs, backdrops = random_images(4), random_images(4, 3)
    offsets, weights = torch.zeros(4, 2, dtype=torch.int64), torch.randn(4, 3, 3, 3, 3)

    def everything(obs: torch.Tensor) -> torch.Tensor:
        obs = crop(translate(obs, offsets), offsets[:, 0], offsets[:, 1], 12)
        obs = rotate(obs.float(), weights[:, 0, 0, 0, 0])
        mixed = compose(overlay(obs, backdrops), torch.ones(4, 3, 12, 12) / 3, backdrops)
        return spectrum_mask(random_convolution(mixed, weights), 0.1, torch.tensor(0.2))

    with ForbidSynchronisation():
        expected = everything(obs)
    compiled = torch.compile(everything, fullgraph=True, backend="eager")
    assert torch.equal(compiled(obs), expected)


def test_half_precision_images_stay_in_it():
    obs, backdrops = random_images(2).bfloat16(), random_images(2, 3)
    mask = torch.full((2, 3, 12, 12), 0.5)
    weights = torch.randn(2, 3, 3, 3, 3)
    for output in (overlay(obs, backdrops), compose(obs, mask, backdrops), random_convolution(obs, weights)):
        assert output.dtype == torch.bfloat16
        assert output.isfinite().all()
    exact = overlay(random_images(2), backdrops)
    torch.testing.assert_close(overlay(obs, backdrops).float(), exact, rtol=0.02, atol=0)


# Each class draws what its function takes and calls that function.


def frames_in_unit_range(count: int) -> torch.Tensor:
    return random_images(count, 3).float() / 255


def test_random_shift_class():
    images, transform = frames_in_unit_range(6), RandomShift(pad=4)
    torch.manual_seed(0)
    shifted = transform(images)
    torch.manual_seed(0)
    offsets = random_offsets(6, 4, CPU)
    assert torch.equal(shifted, translate(images, offsets))
    # The matrix sends the point (x, y) where its pixel goes: an interior one is found there.
    assert transform.transform_matrix is not None
    x, y = (transform.transform_matrix @ torch.tensor([6.0, 5.0, 1.0]))[:, :2].long().T
    assert torch.equal(shifted[torch.arange(6), :, y, x], images[:, :, 5, 6])


def test_random_overlay_class():
    images, source = frames_in_unit_range(4), Source()
    mixed = RandomOverlay(source, alpha=0.3)(images)
    torch.testing.assert_close(mixed * 255, overlay(images * 255, source.drawn[0], 0.3))


def test_random_convolution_class():
    images = frames_in_unit_range(4)
    torch.manual_seed(0)
    filtered = RandomConvolution()(images)
    torch.manual_seed(0)
    weights = torch.randn(4, 3, 3, 3, 3)
    torch.testing.assert_close(filtered * 255, random_convolution(images * 255, weights))


STRONG = {
    "convolution": "c",
    "overlay": "o",
    "convolution_overlay": "co",
    "rotation": "r",
    "shift": "s",
    "rotation_shift": "rs",
}
CHOICES = {"photometric": list(STRONG)[:3], "geometric": list(STRONG)[3:], "all": list(STRONG)}


@pytest.mark.parametrize("choice", CHOICES)
def test_strong_draws_every_kind_equally_often(choice):
    torch.manual_seed(0)
    transform = StrongAugmentation(Source(), kinds=choice)
    draws = transform.generate_parameters((6000, 3, 84, 84))
    expected = 6000 / len(CHOICES[choice])
    counts = torch.bincount(draws["kind"], minlength=len(CHOICES[choice])).double()
    assert len(counts) == len(CHOICES[choice])
    assert ((counts - expected) ** 2 / expected).sum() < 20.5  # 99.9% quantile for 5 degrees of freedom
    assert set(draws["offsets"].flatten().tolist()) == set(range(-16, 17))
    angles = torch.rad2deg(draws["angles"])
    assert -180 <= angles.min() < -179 and 179 < angles.max() <= 180 and abs(angles.mean()) < 6


@pytest.mark.parametrize(
    ("spec", "drawn"),
    [
        (None, False),
        ("random_shift", False),
        ({"name": "random_convolution", "p": 0.5}, False),
        (["random_shift", {"name": "RandomGrayscale"}], False),
        ("overlay", True),
        ("mixture", True),
        (["random_shift", {"name": "strong", "kinds": "geometric"}], True),
    ],
)
def test_which_augmentations_draw_images_is_known_without_building_them(spec, drawn):
    assert augment.draws_images(spec) is drawn


@pytest.mark.parametrize(("size", "farthest"), [(84, 16), (48, 9)])
@pytest.mark.parametrize("spec", ["strong", {"name": "strong", "kinds": "geometric", "one_angle": True}])
def test_strong_moves_a_picture_of_any_size_by_the_same_share(spec, size, farthest):
    torch.manual_seed(0)
    augmentation = build_augmentation(spec, Source(size), size)
    offsets = augmentation.draw(600, size, size, CPU)["0.offsets"]
    assert set(offsets.flatten().tolist()) == set(range(-farthest, farthest + 1))


def test_strong_turns_a_batch_by_one_angle_if_asked_to():
    torch.manual_seed(0)
    angles = StrongAugmentation(Source(), one_angle=True).generate_parameters((50, 3, 12, 12))["angles"]
    assert angles.shape == (50,) and len(set(angles.tolist())) == 1


def strongly(frame: torch.Tensor, steps: str, draws: dict[str, torch.Tensor], sample: int) -> np.ndarray:
    """A frame (3, H, H), 0-255, after a kind's steps, each by a formula of its own."""
    pixels = frame.double().numpy()
    for step in steps:
        if step == "c":
            kernel = draws["weights"][sample].double()
            padded = np.pad(pixels / 255, ((0, 0), (1, 1), (1, 1)), mode="edge")
            windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
            pixels = 255 / (1 + np.exp(-np.einsum("chwij,ocij->ohw", windows, kernel.numpy())))
        elif step == "o":
            pixels = 0.5 * pixels + 0.5 * draws["backdrops"][sample].double().numpy()
        elif step == "r":
            angle = float(draws["angles"][sample])
            pixels = np.stack([rotated_by_loop(channel, angle) for channel in pixels])
        else:
            down, right = draws["offsets"][sample].tolist()
            rows, columns = (np.clip(np.arange(12) + by, 0, 11) for by in (down, right))
            pixels = pixels[:, rows][:, :, columns]
    return pixels


@pytest.mark.parametrize("choice", CHOICES)
def test_a_samples_strong_augmentation_is_what_its_kind_says(choice):
    obs = random_images(12)
    augmentation = build_augmentation({"name": "strong", "kinds": choice, "pad": 3}, Source(), 12)
    torch.manual_seed(2)
    draws = augmentation.draw(12, 12, 12, CPU)
    augmented = augmentation(obs, draws)
    own = {name.removeprefix("0."): value for name, value in draws.items()}
    kinds = [CHOICES[choice][number] for number in own["kind"].tolist()]
    assert set(kinds) == set(CHOICES[choice])
    for sample, kind in enumerate(kinds):
        for frame in range(3):
            part = slice(3 * frame, 3 * frame + 3)
            expected = strongly(obs[sample, part], STRONG[kind], own, sample)
            np.testing.assert_allclose(augmented[sample, part], expected, atol=0.05, err_msg=kind)


def test_strong_may_leave_samples_as_they_are_and_treats_frames_alike():
    obs = random_images(40, 3).repeat(1, 3, 1, 1)
    output = run({"name": "strong", "p": 0.5}, obs).view(40, 3, 3, 12, 12)
    assert torch.equal(output[:, 0], output[:, 1]) and torch.equal(output[:, 0], output[:, 2])
    changed = ((output[:, 0] - obs[:, :3]).abs() > 0.01).flatten(1).any(1).sum()
    assert 8 <= changed <= 32  # 20 ± 4 standard deviations


def test_strongs_matrices_move_points_as_pixels_move():
    images, transform = torch.zeros(12, 1, 25, 25), StrongAugmentation(Source(25), "geometric", pad=3)
    images[:, :, 10:13, 14:17] = 1
    torch.manual_seed(0)
    moved = transform(images)
    assert transform.transform_matrix is not None
    x, y = (transform.transform_matrix @ torch.tensor([15.0, 11.0, 1.0]))[:, :2].T
    grid = torch.arange(25.0)
    total = moved.sum((1, 2, 3))
    torch.testing.assert_close((moved.sum((1, 2)) * grid).sum(1) / total, x, atol=0.15, rtol=0)
    torch.testing.assert_close((moved.sum((1, 3)) * grid).sum(1) / total, y, atol=0.15, rtol=0)


def test_attribution_overlay_class_takes_whole_stacks():
    stacks, source = random_images(4, channels=9).float() / 255, Source()
    masks = torch.rand(4, 3, 12, 12)
    seen = []

    def mask(images: torch.Tensor) -> torch.Tensor:
        seen.append(images)
        return masks

    composed = AttributionOverlay(source, mask)(stacks)
    torch.testing.assert_close(composed * 255, compose(stacks * 255, masks, source.drawn[0]))
    assert torch.equal(seen[0], stacks)


def test_classes_compose_with_kornias_own():
    images, shifting, filtering = frames_in_unit_range(3), RandomShift(2), RandomConvolution()
    flip = kornia.augmentation.RandomHorizontalFlip(p=1.0)
    torch.manual_seed(0)
    output = AugmentationSequential(shifting, filtering, flip, data_keys=["input"])(images)
    offsets, weights = shifting._params["offsets"], filtering._params["weights"]
    expected = random_convolution(translate(images, offsets) * 255, weights).flip(-1) / 255
    torch.testing.assert_close(output, expected)


def test_probability_is_per_sample():
    images, source = frames_in_unit_range(200), Source()
    torch.manual_seed(0)
    changed = (RandomOverlay(source, p=0.25)(images) != images).flatten(1).any(1).sum()
    assert 25 < changed < 75  # 50 +- 4 standard deviations


def run(spec, obs: torch.Tensor, source=None, seed: int = 0) -> torch.Tensor:
    size = obs.shape[-1]
    augmentation = build_augmentation(spec, source or Source(size), size)
    torch.manual_seed(seed)
    return augmentation(obs, augmentation.draw(len(obs), size, size, CPU))


def test_named_overlay_is_the_function():
    obs, source = random_images(4), Source()
    output = run("overlay", obs, source)
    assert output.dtype == torch.float32
    torch.testing.assert_close(output, overlay(obs, source.drawn[0]))
    torch.testing.assert_close(
        run({"name": "overlay", "alpha": 0.2}, obs), overlay(obs, source.drawn[0], 0.2)
    )


def test_named_random_convolution_is_the_function():
    obs = random_images(4)
    output = run("random_convolution", obs, seed=3)
    torch.manual_seed(3)
    torch.testing.assert_close(output, random_convolution(obs, torch.randn(4, 3, 3, 3, 3)))


def test_named_kornia_class_is_kornias():
    obs = random_images(4)
    arguments = {"kernel_size": [3, 5], "sigma": [0.5, 2.0], "p": 1.0}
    output = run({"name": "RandomGaussianBlur", **arguments}, obs, seed=5)
    torch.manual_seed(5)
    blur = kornia.augmentation.RandomGaussianBlur((3, 5), (0.5, 2.0), p=1.0)
    sigma = blur.forward_parameters((4, 3, 12, 12))["sigma"]
    for sample in range(4):
        frames = obs[sample].view(3, 3, 12, 12).float()
        deviation = sigma[sample].expand(1, 2)
        expected = kornia.filters.gaussian_blur2d(frames, (3, 5), deviation)
        torch.testing.assert_close(output[sample].view(3, 3, 12, 12), expected, atol=1e-3, rtol=0)


def test_list_applies_in_order():
    obs, source = random_images(4), Source()
    flip = {"name": "RandomHorizontalFlip", "p": 1.0}
    torch.testing.assert_close(run([flip, "overlay"], obs, source), overlay(obs.flip(-1), source.drawn[0]))
    torch.testing.assert_close(run(["overlay", flip], obs), overlay(obs, source.drawn[0]).flip(-1))


def test_nothing_named_changes_nothing():
    obs = random_images(4)
    assert torch.equal(run(None, obs), obs.float())


@pytest.mark.parametrize(
    ("name", "spec", "patched"),
    [
        ("overlay", "overlay", RandomOverlay),
        ("convolution", "random_convolution", RandomConvolution),
        ("kornia", {"name": "RandomInvert", "p": 1.0}, kornia.augmentation.RandomInvert),
    ],
)
def test_the_named_class_is_the_one_that_is_used(name, spec, patched, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        patched,
        "apply_transform",
        lambda self, input, params, flags, transform=None: torch.full_like(input, 0.2),
    )
    assert torch.equal(run(spec, random_images(2)), torch.full((2, 9, 12, 12), 51.0))


ARGUMENTS = {
    "CenterCrop": {"size": 16},
    "Denormalize": {"mean": 0.5, "std": 0.5},
    "LongestMaxSize": {"max_size": 16},
    "Normalize": {"mean": 0.5, "std": 0.5},
    "PadTo": {"size": [16, 16]},
    "RandomAffine": {"degrees": 30},
    "RandomClahe": {"grid_size": [2, 2]},
    "RandomCrop": {"size": [16, 16], "padding": 2},
    "RandomFisheye": {"center_x": [-0.3, 0.3], "center_y": [-0.3, 0.3], "gamma": [0.9, 1.1]},
    "RandomGaussianBlur": {"kernel_size": [3, 3], "sigma": [0.1, 2.0]},
    "RandomJigsaw": {"grid": [2, 2]},
    "RandomMotionBlur": {"kernel_size": 3, "angle": 35, "direction": 0.5},
    "RandomRain": {"drop_height": [2, 5], "drop_width": [-2, 2]},
    "RandomResizedCrop": {"size": [16, 16]},
    "RandomRotation": {"degrees": 30},
    "RandomRotation90": {"times": [0, 3]},
    "RandomShear": {"shear": 20},
    "RandomTranslate": {"translate_x": [-0.2, 0.2]},
    "Resize": {"size": [16, 16]},
    "SmallestMaxSize": {"max_size": 16},
}
KORNIA = sorted(
    name
    for name, value in vars(kornia.augmentation).items()
    if inspect.isclass(value) and issubclass(value, AugmentationBase2D) and not name.endswith("Base2D")
)


@pytest.mark.parametrize("name", KORNIA)
def test_kornia_class_treats_the_frames_of_a_sample_alike(name: str):
    if name == "RandomDissolving":  # needs a diffusion model from the network
        with pytest.raises(UserError, match="diffusers"):
            build_augmentation(name, None, 12)
        return
    arguments = ARGUMENTS.get(name, {})
    if "p" in inspect.signature(getattr(kornia.augmentation, name).__init__).parameters:
        arguments = arguments | {"p": 0.7}  # which samples are left out is part of the draw
    if name in (
        "RandomCrop",
        "RandomResizedCrop",
        "CenterCrop",
        "Resize",
        "LongestMaxSize",
        "SmallestMaxSize",
    ):
        arguments = arguments | {"p": 1.0}  # a batch has one size
    frame = random_images(4, 3, 16)
    obs = frame.repeat(1, 3, 1, 1)
    output = run({"name": name, **arguments}, obs, seed=7).view(4, 3, 3, 16, 16)
    assert torch.equal(output[:, 0], output[:, 1])
    assert torch.equal(output[:, 0], output[:, 2])
    again = run({"name": name, **arguments}, obs, seed=7)  # the seed fixes it
    assert torch.equal(output.flatten(1, 2), again)
    # And it is what Kornia makes of a single frame.
    wants = torch.tensor if name == "RandomFisheye" else tuple
    settings = {key: wants(value) if isinstance(value, list) else value for key, value in arguments.items()}
    transform = getattr(kornia.augmentation, name)(**settings)
    torch.manual_seed(7)
    params = transform.forward_parameters((4, 3, 16, 16))
    torch.testing.assert_close(output[:, 0], transform(frame.float() / 255, params=params) * 255)


def test_draws_hold_all_the_randomness_and_autocast_changes_nothing():
    obs, source = random_images(4), Source()
    spec = [{"name": "RandomAffine", "degrees": 40, "p": 0.5}, "random_convolution", "overlay"]
    augmentation = build_augmentation(spec, source, 12)
    draws = augmentation.draw(4, 12, 12, CPU)
    state = torch.get_rng_state()
    first = augmentation(obs, draws)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        second = augmentation(obs, draws)
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)
    assert len(source.drawn) == 1


def test_building_draws_nothing():
    state, source = torch.get_rng_state(), Source()
    build_augmentation(["overlay", {"name": "RandomAffine", "degrees": 40}], source, 12)
    assert torch.equal(torch.get_rng_state(), state)
    assert source.drawn == []


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("overlai", "unknown augmentation 'overlai': did you mean 'overlay'"),
        ("RandomGausianBlur", "did you mean 'RandomGaussianBlur'"),
        ("RandomAffine3D", "unknown augmentation 'RandomAffine3D'"),
        ("mixture", "only for agent smg"),
        (
            "RandomGaussianBlur",
            r"refuses its arguments \(.*'sigma'\); it takes kernel_size, sigma, border_type",
        ),
        (
            {"name": "RandomGaussianBlur", "kernel_size": 4, "sigma": [0.1, 1]},
            "RandomGaussianBlur refuses.*odd",
        ),
        (
            {"name": "RandomGaussianBlur", "kernal_size": 3},
            "no argument 'kernal_size'; it takes kernel_size, sigma",
        ),
        ({"name": "overlay", "images": 3}, "no argument 'images'; it takes alpha, p"),
        ({"name": "overlay", "alpha": 1.5}, r"alpha is 1\.5"),
        ({"name": "overlay", "p": 1.5}, r"p=1\.5"),
        ({"name": "RandomInvert", "p": "often"}, "p='often'"),
        ({"name": "CenterCrop", "size": 8}, "CenterCrop turns 12x12 pixels into 8x8"),
        ({"alpha": 0.5}, "'name'"),
        (["overlay", 3], "3 is neither"),
        ({"name": "RandomFisheye", "center_x": "left"}, "RandomFisheye refuses"),
    ],
)
def test_bad_settings_are_named(spec, message: str):
    with pytest.raises(UserError, match=message):
        build_augmentation(spec, Source(), 12)


def test_every_named_class_stands_on_kornias_bases():
    assert set(augment.OWN) == {"overlay", "random_convolution", "random_shift", "strong"}
    for transform_class in (*augment.OWN.values(), AttributionOverlay):
        assert issubclass(transform_class, AugmentationBase2D)
