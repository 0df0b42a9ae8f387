"""Backgrounds and colours made by formula, compared with the benchmark's own."""

from pathlib import Path

import numpy as np
import pytest

from common.envs import clips, procedural
from common.envs.backgrounds import clip_files
from common.envs.presets import KEYS, read_presets

SHIFTS = ("video_easy", "video_hard")


@pytest.mark.parametrize("shift", SHIFTS)
def test_clips_are_a_function_of_shift_and_number(shift: str) -> None:
    clip = procedural.clip(shift, 3, 24)
    assert clip.shape == (procedural.CLIP_FRAMES, 3, 24, 24)
    assert clip.dtype == np.uint8
    np.testing.assert_array_equal(clip, procedural.clip(shift, 3, 24))
    assert (clip[0] != procedural.clip(shift, 4, 24)[0]).mean() > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("shift", SHIFTS)
def test_clips_look_and_move_like_real_ones(
    shift: str, real_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(procedural, "CLIP_FRAMES", 150)
    files = list(clip_files(real_data, shift).values())[:8]
    real = np.array([procedural.statistics(clips.decode(file, 84)) for file in files])
    made = np.array([procedural.statistics(procedural.clip(shift, number, 84)) for number in range(10)])
    lowest, highest = real.min(axis=0), real.max(axis=0)
    for name, values, low, high in zip(procedural.Statistics._fields, made.T, lowest, highest, strict=True):
        assert low <= values.min() and values.max() <= high, f"{name}: {values} not in [{low}, {high}]"


def test_statistics_of_clips_known_by_hand() -> None:
    steps = np.zeros((50, 3, 64, 64), np.uint8)
    steps[:, :, :, 32:] = 100  # half 0, half 100: standard deviation 50
    steps[1::2] += 4  # each frame differs from the last by 4 everywhere
    contrast, _, difference = procedural.statistics(steps)
    assert contrast == pytest.approx(50)
    assert difference == pytest.approx(4)


@pytest.mark.parametrize("slope", [-1.0, -2.0, -3.0])
def test_measured_slope_of_noise_with_a_known_spectrum(slope: float) -> None:
    random = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.fftfreq(64)[None])
    frequency[0, 0] = np.inf
    images = []
    for _ in range(20):
        noise = np.fft.ifft2(np.fft.fft2(random.normal(size=(64, 64))) * frequency ** (slope / 2)).real
        images.append(128 + 30 * noise / noise.std())
    frames = np.repeat(np.clip(images, 0, 255).astype(np.uint8)[:, None], 3, axis=1)
    measured = procedural.statistics(frames.repeat(25, axis=0)).slope
    assert measured == pytest.approx(slope, abs=0.25)


@pytest.mark.parametrize("shift", ["color_easy", "color_hard"])
def test_presets_are_distributed_like_the_benchmarks(shift: str, real_data: Path) -> None:
    made = [procedural.preset(shift, number) for number in range(procedural.PRESETS)]
    real = read_presets(real_data / f"{shift}.pt")
    for key in KEYS:
        ours, theirs = (np.array([preset[key] for preset in presets]) for presets in (made, real))
        assert ours.min() >= 0 and ours.max() <= 1
        # 100 draws each: the standard error of a mean is a tenth of the deviation.
        np.testing.assert_allclose(ours.mean(axis=0), theirs.mean(axis=0), atol=0.5 * theirs.std())
        np.testing.assert_allclose(ours.std(axis=0), theirs.std(axis=0), rtol=0.35)


def test_presets_are_a_function_of_shift_and_number() -> None:
    first, again = (procedural.preset("color_hard", 8) for _ in range(2))
    for key in KEYS:
        np.testing.assert_array_equal(first[key], again[key])
    assert not np.array_equal(first["self_rgb"], procedural.preset("color_hard", 9)["self_rgb"])
