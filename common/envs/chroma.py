"""The benchmark's chroma key: green pixels give way to a backdrop."""

from functools import lru_cache

import numpy as np

HUE = (100.0, 185.0)  # degrees
SATURATION = (80.0, 255.0)  # of 255
VALUE = (70.0, 255.0)  # of 255


def is_green(red: np.ndarray, green: np.ndarray, blue: np.ndarray) -> np.ndarray:
    """Whether colours (0-255, any shapes that broadcast) lie in the key's range of hue, saturation and value.

    The arithmetic is that of Python's `colorsys.rgb_to_hsv` on channels divided by 255, operation by
    operation in float64: colours on the range's borders are decided by its rounding.
    """
    red, green, blue = (np.asarray(channel, np.float64) / 255.0 for channel in (red, green, blue))
    value = np.maximum(np.maximum(red, green), blue)
    span = value - np.minimum(np.minimum(red, green), blue)
    grey = span == 0
    with np.errstate(divide="ignore", invalid="ignore"):
        saturation = span / value
        from_red, from_green, from_blue = ((value - channel) / span for channel in (red, green, blue))
    sixths = np.where(
        red == value,
        from_blue - from_green,
        np.where(green == value, 2.0 + from_red - from_blue, 4.0 + from_green - from_red),
    )
    hue = np.where(grey, 0.0, (sixths / 6.0) % 1.0) * 360
    saturation = np.where(grey, 0.0, saturation) * 255
    value = value * 255
    return (
        (HUE[0] <= hue)
        & (hue <= HUE[1])
        & (SATURATION[0] <= saturation)
        & (saturation <= SATURATION[1])
        & (VALUE[0] <= value)
        & (value <= VALUE[1])
    )


@lru_cache(maxsize=1)
def table() -> np.ndarray:
    """`is_green` of all 2**24 colours: bool (16777216,), indexed by red << 16 | green << 8 | blue."""
    green_colours = np.zeros((256, 256, 256), bool)
    levels = np.arange(256)
    # A hue of 100 to 185 degrees has more green than red. One red level at a time keeps the temporaries
    # in the processor's cache.
    for red in range(255):
        greens = levels[red + 1 :, None]
        green_colours[red, red + 1 :] = is_green(np.array(red), greens, levels[None, :])
    return green_colours.ravel()


def key(frame: np.ndarray, backdrop: np.ndarray) -> None:
    """Replace `frame`'s green pixels by `backdrop`'s, in place. Both are RGB, uint8 (3, H, W)."""
    packed = frame[0].astype(np.uint32)
    packed <<= 8
    packed |= frame[1]
    packed <<= 8
    packed |= frame[2]
    np.copyto(frame, backdrop, where=table().take(packed))
