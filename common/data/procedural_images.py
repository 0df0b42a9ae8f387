"""Images made of nothing but random numbers that share the statistics of photographs."""

import numpy as np


def procedural_images(count: int, size: int, seed: int) -> np.ndarray:
    """Dead leaves and 1/f images in turn, uint8 RGB (count, 3, size, size), fixed by the seed.

    Both have a natural image's power spectrum; dead leaves have its edges and occlusions as well.
    """
    images = np.empty((count, 3, size, size), dtype=np.uint8)
    for index in range(count):
        rng = np.random.default_rng([seed, index])
        image = dead_leaves(size, rng) if index % 2 == 0 else coloured_noise(size, rng)
        images[index] = image.transpose(2, 0, 1)
    return images


def coloured_noise(size: int, rng: np.random.Generator) -> np.ndarray:
    """An image whose amplitude falls as 1/frequency, uint8 (size, size, 3)."""
    brightness = _noise(size, rng)
    # Colour varies less than brightness in photographs.
    colours = np.stack([_noise(size, rng) for _ in range(3)], axis=-1)
    pixels = brightness[..., None] + rng.uniform(0.1, 0.6) * colours
    return _to_bytes(rng.uniform(60, 190) + rng.uniform(-40, 40, 3) + rng.uniform(25, 60) * pixels)


def dead_leaves(size: int, rng: np.random.Generator) -> np.ndarray:
    """Textured discs or boxes that hide one another, uint8 (size, size, 3).

    Their numbers fall off with the third power of their size, which makes the image look alike at every
    scale.
    """
    smallest, largest, count = size / 40, size / 2, 500
    # Inverse of the distribution function of a density proportional to radius ** -3.
    radii = (smallest**-2 - rng.uniform(size=count) * (smallest**-2 - largest**-2)) ** -0.5
    # The largest leaves fall first, so that nothing of the ground is left.
    radii[:20] = rng.uniform(largest / 2, largest, 20)
    centres = rng.uniform(-0.2 * size, 1.2 * size, (count, 2))
    angles = np.radians(rng.uniform(0, 180, count))
    axes = np.stack([radii, radii * rng.uniform(0.4, 1.0, count)], axis=1)
    brightness = rng.normal(rng.uniform(60, 190), rng.uniform(25, 60), (count, 1))
    colours = brightness + rng.normal(0, rng.uniform(5, 40), (count, 3))
    discs = rng.uniform(size=count) < rng.uniform()
    pixels = np.zeros((size, size, 3), dtype=np.float32)
    for leaf in zip(centres, axes, angles, colours, discs, strict=True):
        paint_leaf(pixels, *leaf)
    return _to_bytes(pixels + rng.uniform(3, 20) * _noise(size, rng)[..., None])


def paint_leaf(
    pixels: np.ndarray, centre: np.ndarray, axes: np.ndarray, angle: float, colour: np.ndarray, disc: bool
) -> None:
    """Cover an ellipse, else a box, of an image (size, size, 3); pixel (x, y) is its centre.

    Args:
        pixels: changed in place.
        centre: x and y [pixels]; it may lie outside.
        axes: half the length and half the breadth [pixels].
        angle: from the x axis to the length, clockwise as seen [rad].
        colour: (3,).
        disc: whether it is an ellipse.
    """
    reach = np.hypot(*axes)
    box = np.clip([np.floor(centre - reach), np.ceil(centre + reach) + 1], 0, len(pixels)).astype(int)
    (left, top), (right, bottom) = box
    x, y = np.arange(left, right) - centre[0], np.arange(top, bottom)[:, None] - centre[1]
    along = np.abs(x * np.cos(angle) + y * np.sin(angle)) / axes[0]
    across = np.abs(y * np.cos(angle) - x * np.sin(angle)) / axes[1]
    covered = along**2 + across**2 <= 1 if disc else np.maximum(along, across) <= 1
    pixels[top:bottom, left:right][covered] = colour


def _noise(size: int, rng: np.random.Generator) -> np.ndarray:
    """A random field (size, size) with amplitude 1/frequency, mean 0 and variance 1."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    frequency[0, 0] = np.inf  # no constant part
    field = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(size, size))) / frequency, s=(size, size))
    return field / field.std()


def _to_bytes(pixels: np.ndarray) -> np.ndarray:
    return np.clip(pixels, 0, 255).astype(np.uint8)
