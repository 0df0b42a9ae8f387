"""Backgrounds and colours made by formula, for machines without the benchmark's data.

A clip is two layers of 1/f noise that drift in different directions. Contrast, spectral slope and
frame-to-frame difference are drawn from within the ranges that `statistics` measures on the benchmark's
own clips at 84x84: easy clips are dark and slow, hard ones bright and lively. Every clip and preset is a
function of its shift and number.
"""

import zlib
from typing import NamedTuple

import numpy as np

from common.envs.clips import Frames
from common.envs.presets import Preset
from common.envs.random_states import derived

CLIPS = {"video_easy": 10, "video_hard": 100}
PRESETS = 100
CLIP_FRAMES = 500

_LUMINANCE = np.array([0.299, 0.587, 0.114])


class _Ranges(NamedTuple):
    """What a clip's looks are drawn from, uniformly; all but the slope in grey levels of 255."""

    mean: tuple[float, float]
    contrast: tuple[float, float]
    slope: tuple[float, float]
    difference: tuple[float, float]


_RANGES = {
    "video_easy": _Ranges((50, 90), (16, 26), (-2.2, -1.4), (1.0, 2.6)),
    "video_hard": _Ranges((110, 150), (44, 60), (-2.62, -2.42), (3.3, 7.5)),
}

# The benchmark's presets are the suite's colours plus a normal draw; the checker keeps its step of 0.1.
_CHECKER = np.array([0.1, 0.2, 0.3])
_CHECKER_STEP = 0.1
_BODY = np.array([0.7, 0.5, 0.3])
_SKY = np.array([0.4, 0.6, 0.8])
_COLOUR_NOISE = {"color_easy": 0.1, "color_hard": 0.2}


class Statistics(NamedTuple):
    """What makes a clip a hard background, for comparing procedural clips with filmed ones."""

    contrast: float  # standard deviation of a frame's luminance, grey levels
    slope: float  # of log power against log spatial frequency
    difference: float  # mean absolute change of a value from one frame to the next, grey levels


def clip(shift: str, number: int, size: int) -> Frames:
    """Clip `number` of a video shift: uint8 (500, 3, size, size), RGB."""
    random = _random(shift, number)
    mean, contrast, slope, difference = (random.uniform(*bounds) for bounds in _RANGES[shift])
    tint = random.normal(0, 0.1 * mean, (3, 1, 1))
    spectra = [_noise_spectrum(random, size, slope) for _ in range(2)]
    headings = random.uniform(0, 2 * np.pi, 2)

    def frame(distance: float) -> np.ndarray:
        pattern = _drift(spectra, headings, distance, size)
        pattern *= contrast / _luminance(pattern).std()
        return np.clip(mean + tint + pattern, 0, 255).astype(np.uint8)

    first = frame(0.0).astype(np.int16)
    speeds = np.geomspace(0.01, 4, 40)  # pixels per frame
    changes = [np.abs(frame(speed) - first).mean() for speed in speeds]
    speed = float(np.interp(difference, changes, speeds))
    return np.stack([frame(speed * index) for index in range(CLIP_FRAMES)])


def preset(shift: str, number: int) -> Preset:
    """Colour preset `number` of a colour shift, drawn as the benchmark's own are distributed."""
    random = _random(shift, number)
    floor, body, sky = random.normal(0, _COLOUR_NOISE[shift], (3, 3))
    checker = np.clip(_CHECKER + floor, 0, 1 - _CHECKER_STEP)
    return {
        "grid_rgb1": checker,
        "grid_rgb2": checker + _CHECKER_STEP,
        "self_rgb": np.clip(_BODY + body, 0, 1),
        "skybox_rgb": np.clip(_SKY + sky, 0, 1),
    }


def statistics(frames: Frames) -> Statistics:
    """Measure a clip (T, 3, size, size); contrast and slope on every 25th frame."""
    sample = _luminance(frames[::25].astype(np.float64))
    changes = [np.abs(frames[i + 1].astype(np.int16) - frames[i]).mean() for i in range(len(frames) - 1)]
    slopes = [_spectral_slope(image) for image in sample]
    return Statistics(float(sample.std(axis=(1, 2)).mean()), float(np.mean(slopes)), float(np.mean(changes)))


def _random(shift: str, number: int) -> np.random.RandomState:
    return derived(zlib.crc32(shift.encode()), number)


def _luminance(image: np.ndarray) -> np.ndarray:
    """(..., 3, H, W) -> (..., H, W)."""
    return np.tensordot(image, _LUMINANCE, axes=([-3], [0]))


def _noise_spectrum(random: np.random.RandomState, size: int, slope: float) -> np.ndarray:
    """Fourier transform (3, side, side // 2 + 1) of periodic noise whose power falls as frequency**slope.

    The three channels share most of their pattern: natural images vary in brightness more than in hue.
    """
    side = _side(size)
    down, across = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :]
    frequency = np.hypot(down, across)
    frequency[0, 0] = np.inf  # the mean is set elsewhere
    shared, own = random.normal(size=(1, side, side)), random.normal(size=(3, side, side))
    return np.fft.rfft2(shared + 0.4 * own) * frequency ** (slope / 2)


def _drift(spectra: list[np.ndarray], headings: np.ndarray, distance: float, size: int) -> np.ndarray:
    """The layers' sum (3, size, size) after each has moved `distance` pixels along its heading."""
    side = _side(size)
    down, across = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :]
    moved = [
        spectrum * np.exp(-2j * np.pi * distance * (down * np.sin(heading) + across * np.cos(heading)))
        for spectrum, heading in zip(spectra, headings, strict=True)
    ]
    return np.fft.irfft2(sum(moved), s=(side, side))[:, :size, :size]


def _side(size: int) -> int:
    """Side of the periodic noise; larger than the frame so that its two ends do not meet in view."""
    return size * 3 // 2


def _spectral_slope(image: np.ndarray) -> float:
    """Slope of log power against log frequency, power averaged over rings one frequency step wide."""
    side = len(image)
    window = np.hanning(side)
    power = np.abs(np.fft.fft2((image - image.mean()) * np.outer(window, window))) ** 2
    steps = np.fft.fftfreq(side) * side
    radius = np.hypot(steps[:, None], steps[None, :])
    rings = np.arange(2, side // 2)
    levels = [power[np.abs(radius - ring) < 0.5].mean() for ring in rings]
    return float(np.polyfit(np.log(rings), np.log(np.asarray(levels) + 1e-9), 1)[0])
