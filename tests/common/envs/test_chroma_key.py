"""The chroma key against Python's own HSV conversion and the benchmark's output."""

import colorsys

import numpy as np

from common.envs import chroma


def green_by_hand(red: int, green: int, blue: int) -> bool:
    hue, saturation, value = colorsys.rgb_to_hsv(red / 255.0, green / 255.0, blue / 255.0)
    degrees, saturation, value = hue * 360, saturation * 255, value * 255
    return 100 <= degrees <= 185 and 80 <= saturation <= 255 and 70 <= value <= 255


def test_equals_a_pixel_loop_on_a_million_random_colours() -> None:
    colours = np.random.default_rng(0).integers(0, 256, (1_000_000, 3))
    expected = np.fromiter((green_by_hand(*colour) for colour in colours.tolist()), bool, len(colours))
    packed = colours @ np.array([65536, 256, 1])
    np.testing.assert_array_equal(chroma.table()[packed], expected)
    assert 0.1 < expected.mean() < 0.4


def test_equals_a_pixel_loop_on_every_border_colour() -> None:
    # Colours where saturation, value or hue meets its bound exactly, before any rounding.
    colours = []
    green, blue = np.meshgrid(np.arange(256), np.arange(256), indexing="ij")
    for red in range(256):
        largest, smallest = np.maximum(np.maximum(green, blue), red), np.minimum(np.minimum(green, blue), red)
        span = largest - smallest
        border = (largest >= 70) & (255 * span == 80 * largest)
        border |= (largest == 70) & (span > 0)
        border |= (green == largest) & (span > 0) & (3 * (blue - red) == -span)  # 100 degrees
        border |= (blue == largest) & (span > 0) & (12 * (red - green) == -11 * span)  # 185 degrees
        colours += [(red, *pair) for pair in np.argwhere(border).tolist()]
    assert len(colours) > 20_000
    expected = [green_by_hand(*colour) for colour in colours]
    np.testing.assert_array_equal(chroma.is_green(*np.array(colours).T), expected)
    packed = np.array(colours) @ np.array([65536, 256, 1])
    np.testing.assert_array_equal(chroma.table()[packed], expected)


def test_replaces_green_pixels_and_no_others() -> None:
    frame = np.zeros((3, 2, 2), np.uint8)
    frame[:, 0, 0] = 51, 204, 51  # the green screen
    frame[:, 0, 1] = 178, 127, 76  # the body's colour
    frame[:, 1, 0] = 0, 69, 0  # too dark
    frame[:, 1, 1] = 0, 70, 0  # just bright enough
    backdrop = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    expected = frame.copy()
    expected[:, 0, 0], expected[:, 1, 1] = backdrop[:, 0, 0], backdrop[:, 1, 1]
    chroma.key(frame, backdrop)
    np.testing.assert_array_equal(frame, expected)


def test_keyed_frames_equal_the_benchmarks(keyed_fixture: dict[str, np.ndarray]) -> None:
    clip = keyed_fixture["clip/video_hard_1_first_frames_84"].transpose(0, 3, 1, 2)
    checked = 0
    for name, keyed in keyed_fixture.items():
        if not name.startswith("keyed/"):
            continue
        green = keyed_fixture[name.replace("keyed/", "green/") + "_green"]
        for state in range(2):
            frame = np.ascontiguousarray(green[state].transpose(2, 0, 1))
            chroma.key(frame, clip[state + 1])
            np.testing.assert_array_equal(frame.transpose(1, 2, 0), keyed[state])
            checked += 1
    assert checked == 20
