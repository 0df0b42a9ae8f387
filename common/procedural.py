"""Images made of nothing but random numbers that share the statistics of photographs."""

import cv2
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
    pixels = brightness[..., None] + rng.uniform(0.2, 0.8) * colours
    return _to_bytes(rng.uniform(70, 180) + rng.uniform(-30, 30, 3) + rng.uniform(30, 60) * pixels)


def dead_leaves(size: int, rng: np.random.Generator) -> np.ndarray:
    """Textured discs and boxes that hide one another, uint8 (size, size, 3).

    Their sizes fall off with the third power, which makes the image look alike at every scale.
    """
    pixels = np.empty((size, size, 3), dtype=np.float32)
    pixels[:] = rng.uniform(0, 255, 3)
    smallest, largest = size / 50, size / 3
    count = 800
    # Inverse of the distribution function of a density proportional to radius ** -3.
    uniform = rng.uniform(size=count)
    radii = (smallest**-2 - uniform * (smallest**-2 - largest**-2)) ** -0.5
    places = rng.uniform(-0.1 * size, 1.1 * size, (count, 2))
    # Leaves resemble one another: colours scatter around a few.
    palette = rng.uniform(0, 255, (rng.integers(2, 7), 3))
    colours = palette[rng.integers(len(palette), size=count)] + rng.normal(0, 25, (count, 3))
    shapes = rng.uniform(size=count) < rng.uniform()
    angles = rng.uniform(0, 180, count)
    stretch = rng.uniform(0.4, 1.0, count)
    # The largest lie at the bottom, or the first few hundred leaves would all be hidden.
    for index in np.argsort(-radii * rng.uniform(0.5, 1.0, count)):
        centre = (float(places[index, 0]), float(places[index, 1]))
        axes = (float(2 * radii[index]), float(2 * radii[index] * stretch[index]))
        box = (centre, axes, float(angles[index]))
        colour = colours[index].tolist()
        if shapes[index]:
            cv2.ellipse(pixels, box, colour, -1)
        else:
            cv2.fillPoly(pixels, [cv2.boxPoints(box).astype(np.int32)], colour)
    return _to_bytes(pixels + rng.uniform(5, 25) * _noise(size, rng)[..., None])


def _noise(size: int, rng: np.random.Generator) -> np.ndarray:
    """A random field (size, size) with amplitude 1/frequency, mean 0 and variance 1."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    frequency[0, 0] = np.inf  # no constant part
    field = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(size, size))) / frequency, s=(size, size))
    return field / field.std()


def _to_bytes(pixels: np.ndarray) -> np.ndarray:
    return np.clip(pixels, 0, 255).astype(np.uint8)
