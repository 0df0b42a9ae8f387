"""Decoding, resizing and caching of clips."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from common.envs import clips
from common.envs.clips import ClipCache
from common.errors import UserError
from tests.common.envs.written_clips import flat, write_clip


@pytest.fixture
def two_threads() -> Iterator[None]:
    """PyTorch with one thread takes another kernel, which rounds a few pixels otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("shape", [(352, 352), (240, 320), (97, 43), (84, 84), (50, 60)])
def test_resize_equals_torch_to_the_bit(shape: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    smooth = np.add.outer(np.arange(shape[0]), np.arange(shape[1]))[..., None] % np.array([200, 256, 31])
    for image in (random.integers(0, 256, (*shape, 3)), smooth, np.full((*shape, 3), 77)):
        image = image.astype(np.uint8)
        tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
        expected = interpolate(tensor, size=(84, 84), mode="bilinear", align_corners=False)[0].mul(255).byte()
        np.testing.assert_array_equal(clips.resize(image, 84), expected.permute(1, 2, 0).numpy())


def test_decodes_frames_in_order(tmp_path: Path) -> None:
    path = tmp_path / "a clip with spaces é.avi"
    write_clip(path, [flat(40 * time) for time in range(5)])
    frames = clips.decode(path, 84)
    assert frames.shape == (5, 3, 84, 84)
    assert frames.dtype == np.uint8
    # JPEG and the trip through YUV move a grey level by a little.
    np.testing.assert_allclose(frames.mean(axis=(1, 2, 3)), [0, 40, 80, 120, 160], atol=2.5)


def test_real_clip_equals_the_benchmarks_frames(
    real_data: Path, keyed_fixture: dict[str, np.ndarray]
) -> None:
    frames = clips.decode(real_data / "video_hard" / "video1.mp4", 84)
    expected = keyed_fixture["clip/video_hard_1_first_frames_84"]
    assert len(frames) == 500
    np.testing.assert_array_equal(frames[:6].transpose(0, 2, 3, 1), expected)


def test_channels_are_red_green_blue(tmp_path: Path) -> None:
    blue_green_red = np.zeros((96, 96, 3), np.uint8)
    blue_green_red[...] = 20, 60, 220
    write_clip(tmp_path / "red.avi", [blue_green_red] * 2)
    mean = clips.decode(tmp_path / "red.avi", 84).mean(axis=(0, 2, 3))
    assert mean[0] > 200 and mean[2] < 40


def test_missing_empty_and_corrupt_clips(tmp_path: Path) -> None:
    path = tmp_path / "video3.mp4"
    with pytest.raises(UserError, match=r"video3\.mp4 does not exist"):
        clips.decode(path, 84)
    path.touch()
    with pytest.raises(UserError, match=r"video3\.mp4 is empty"):
        clips.decode(path, 84)
    path.write_bytes(np.random.default_rng(0).bytes(5000))
    with pytest.raises(UserError, match=r"video3\.mp4 is corrupt or not a video"):
        clips.decode(path, 84)


def test_cut_off_clips(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    write_clip(tmp_path / "whole.avi", [random.integers(0, 256, (96, 96, 3), np.uint8) for _ in range(20)])
    content = (tmp_path / "whole.avi").read_bytes()
    (tmp_path / "half.mp4").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"half\.mp4 is (cut off: \d+ of 20 frames|corrupt)"):
        clips.decode(tmp_path / "half.mp4", 84)


def test_a_real_clip_cut_off(real_data: Path, tmp_path: Path) -> None:
    content = (real_data / "video_hard" / "video9.mp4").read_bytes()
    for share in (0.5, 0.9):
        (tmp_path / "video9.mp4").write_bytes(content[: int(len(content) * share)])
        with pytest.raises(UserError, match=r"cut off|corrupt"):
            clips.decode(tmp_path / "video9.mp4", 84)


def test_a_video_without_frames(tmp_path: Path) -> None:
    path = tmp_path / "none.avi"
    write_clip(path, [flat(0)])
    content = bytearray(path.read_bytes())
    start = content.index(b"00dc")
    del content[start : content.index(b"idx1")]
    path.write_bytes(content)
    with pytest.raises(UserError, match="no frame decodes"):
        clips.decode(path, 84)


def test_endless_and_huge_clips_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_clip(tmp_path / "long.avi", [flat(0)] * 5)
    monkeypatch.setattr(clips, "MAX_FRAMES", 4)
    with pytest.raises(UserError, match="more than 4 frames"):
        clips.decode(tmp_path / "long.avi", 84)
    monkeypatch.setattr(clips, "MAX_SIDE", 64)
    with pytest.raises(UserError, match="larger than 64 pixels"):
        clips.decode(tmp_path / "long.avi", 84)


def numbered(value: int) -> np.ndarray:
    return np.full((10, 3, 8, 8), value, np.uint8)


def test_cache_makes_each_key_once(tmp_path: Path) -> None:
    made = []

    def make(value: int) -> np.ndarray:
        made.append(value)
        return numbered(value)

    for _ in range(2):
        for value in (1, 2):
            # A new object each time: what another process would see.
            frames = ClipCache(tmp_path).frames(f"clip {value}", lambda value=value: make(value))
            np.testing.assert_array_equal(frames, numbered(value))
            assert isinstance(frames, np.memmap) and not frames.flags.writeable
    assert made == [1, 2]


def test_cache_stays_within_its_bound_and_drops_the_least_recently_used(tmp_path: Path) -> None:
    size = numbered(0).nbytes + 128  # a .npy header
    cache = ClipCache(tmp_path, limit=3 * size)
    for value in range(3):
        cache.frames(str(value), lambda value=value: numbered(value))
    for age, file in enumerate(sorted(tmp_path.iterdir(), key=lambda file: np.load(file).max())):
        os.utime(file, (1000 + age, 1000 + age))
    held = cache.frames("0", lambda: pytest.fail("made again"))  # now the most recently used
    cache.frames("3", lambda: numbered(3))
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 3 * size
    assert sorted(int(np.load(file).max()) for file in tmp_path.iterdir()) == [0, 2, 3]
    for value in range(4, 8):
        cache.frames(str(value), lambda value=value: numbered(value))
    np.testing.assert_array_equal(held, numbered(0))  # deleted, but still mapped


def test_cache_remakes_a_damaged_file(tmp_path: Path) -> None:
    cache = ClipCache(tmp_path)
    cache.frames("a", lambda: numbered(1))
    [file] = tmp_path.iterdir()
    for damaged in (b"", file.read_bytes()[:300], b"not an array"):
        file.write_bytes(damaged)
        np.testing.assert_array_equal(cache.frames("a", lambda: numbered(2)), numbered(2))
    assert len(list(tmp_path.iterdir())) == 1


def test_without_a_writable_folder_frames_come_from_memory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache = ClipCache(tmp_path / "file" / "folder")
    np.testing.assert_array_equal(cache.frames("a", lambda: numbered(5)), numbered(5))


def test_a_clip_that_cannot_be_made_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail() -> np.ndarray:
        raise UserError("damaged")

    with pytest.raises(UserError, match="damaged"):
        ClipCache(tmp_path).frames("a", fail)
    assert list(tmp_path.iterdir()) == []
