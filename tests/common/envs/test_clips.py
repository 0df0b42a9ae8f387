"""Decoding, resizing and caching of clips."""

import os
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from common.envs import clips
from common.envs.clips import ClipCache
from common.errors import UserError
from tests.common.envs.written_clips import flat, moving, read_clip, trim, write_clip
from tests.threads import native_threads


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
    path = tmp_path / "a clip: with spaces é.avi"
    write_clip(path, [flat(40 * time) for time in range(5)])
    frames = clips.decode(path, 84)
    assert frames.shape == (5, 3, 84, 84)
    assert frames.dtype == np.uint8
    np.testing.assert_array_equal(
        frames, np.full_like(frames, 40) * np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1)
    )


@pytest.mark.parametrize(("codec", "pixels"), [("libx264", "yuv420p"), ("libsvtav1", "yuv420p")])
def test_no_codec_starts_threads(codec: str, pixels: str, tmp_path: Path) -> None:
    """Those of FFmpeg can wait for each other for ever, and several processes may decode at once."""
    write_clip(tmp_path / "a.mp4", moving(24), "mp4", codec, pixels)
    before = native_threads()
    images = clips._images(tmp_path / "a.mp4")
    during = [native_threads() for _ in images]
    assert during == [before] * 24


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="needs Linux")
def test_writing_a_clip_leaves_the_tests_their_place_in_the_queue(tmp_path: Path) -> None:
    before = os.sched_getscheduler(0), os.sched_getparam(0).sched_priority
    write_clip(tmp_path / "a.mp4", moving(2), "mp4", "libsvtav1", "yuv420p")
    assert (os.sched_getscheduler(0), os.sched_getparam(0).sched_priority) == before


def test_real_clip_equals_the_benchmarks_frames(
    real_data: Path, keyed_fixture: dict[str, np.ndarray]
) -> None:
    frames = clips.decode(real_data / "video_hard" / "video1.mp4", 84)
    expected = keyed_fixture["clip/video_hard_1_first_frames_84"]
    assert len(frames) == 500
    np.testing.assert_array_equal(frames[:6].transpose(0, 2, 3, 1), expected)


def test_channels_are_red_green_blue(tmp_path: Path) -> None:
    red = np.zeros((96, 96, 3), np.uint8)
    red[...] = 220, 60, 20
    write_clip(tmp_path / "red.avi", [red] * 2)
    assert clips.decode(tmp_path / "red.avi", 84)[1, :, 40, 40].tolist() == [220, 60, 20]


@pytest.mark.parametrize(("hidden", "kept"), [(6, 42), (17, 31)])
def test_a_trimmed_clip_shows_what_its_edit_list_shows(hidden: int, kept: int, tmp_path: Path) -> None:
    write_clip(tmp_path / "whole.mp4", moving(48), "mp4", "libx264", "yuv420p")
    trim(tmp_path / "whole.mp4", tmp_path / "trimmed.mp4", hidden)
    with av.open(str(tmp_path / "trimmed.mp4")) as container:
        assert container.streams.video[0].frames == 48  # so many are declared
    frames = clips.decode(tmp_path / "trimmed.mp4", 84)
    assert len(frames) == kept
    np.testing.assert_array_equal(frames, clips.decode(tmp_path / "whole.mp4", 84)[hidden:])


@pytest.mark.parametrize(
    ("container", "codec", "pixels"),
    [
        ("mp4", "libsvtav1", "yuv420p"),
        ("mp4", "libx265", "yuv420p10le"),
        ("webm", "libvpx-vp9", "yuv420p"),
        ("matroska", "libx264", "yuv444p"),
        ("mpeg", "mpeg2video", "yuv420p"),
        ("mp4", "mpeg4", "yuv420p"),
    ],
)
def test_codecs_in_use_decode(
    container: str, codec: str, pixels: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SVT_LOG", "0")
    written = moving(10)
    write_clip(tmp_path / "video0.mp4", written, container, codec, pixels)
    frames = clips.decode(tmp_path / "video0.mp4", 96)
    assert len(frames) == 10
    assert np.abs(frames - np.stack(written).transpose(0, 3, 1, 2).astype(float)).mean() < 4


def test_a_codec_without_a_decoder_is_named_with_the_remedy(tmp_path: Path) -> None:
    write_clip(tmp_path / "video0.mp4", moving(3), "mp4", "libx264", "yuv420p")
    content = bytearray((tmp_path / "video0.mp4").read_bytes())
    place = content.rindex(b"avc1")
    for tag, name in ((b"evc1", "evc"), (b"xyz1", "xyz1")):
        content[place : place + 4] = tag
        (tmp_path / "video0.mp4").write_bytes(content)
        with pytest.raises(UserError, match=rf"encoded as {name}, which cannot be decoded here; .*ffmpeg -i"):
            clips.decode(tmp_path / "video0.mp4", 84)


@pytest.mark.parametrize(("rotation", "turns"), [(90, 1), (180, 2), (-90, 3)])
def test_a_clip_filmed_upright_is_shown_upright(rotation: int, turns: int, tmp_path: Path) -> None:
    lying = [frame[:60] for frame in moving(2)]
    write_clip(tmp_path / "lying.mp4", lying, "mp4", "libx264", "yuv420p")
    write_clip(tmp_path / "upright.mp4", lying, "mp4", "libx264", "yuv420p", rotation)
    expected = [clips.resize(np.rot90(picture, turns), 84) for picture in read_clip(tmp_path / "lying.mp4")]
    np.testing.assert_array_equal(
        clips.decode(tmp_path / "upright.mp4", 84), np.stack(expected).transpose(0, 3, 1, 2)
    )


def test_a_playlist_opens_no_other_file(tmp_path: Path) -> None:
    write_clip(tmp_path / "secret.avi", moving(3))
    (tmp_path / "video0.mp4").write_text("ffconcat version 1.0\nfile secret.avi\n")
    with pytest.raises(UserError, match=r"video0\.mp4 is corrupt or not a video"):
        clips.decode(tmp_path / "video0.mp4", 84)


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


@pytest.mark.parametrize(
    ("container", "codec", "pixels"),
    [("avi", "ffv1", "bgr0"), ("mp4", "libx264", "yuv420p"), ("matroska", "libx264", "yuv420p")],
)
def test_cut_off_clips(container: str, codec: str, pixels: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    noise = [random.integers(0, 256, (96, 96, 3), np.uint8) for _ in range(40)]
    write_clip(tmp_path / "whole.mp4", noise, container, codec, pixels, faststart=container == "mp4")
    assert len(clips.decode(tmp_path / "whole.mp4", 84)) == 40
    content = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "half.mp4").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"half\.mp4 is cut off or damaged after (19|20) frames"):
        clips.decode(tmp_path / "half.mp4", 84)


def test_clips_cut_off_between_two_frames(tmp_path: Path) -> None:
    write_clip(tmp_path / "whole.mp4", moving(20), "mp4", "libx264", "yuv420p", faststart=True)
    with av.open(str(tmp_path / "whole.mp4")) as container:
        end = container.streams.video[0].index_entries[12].pos
    (tmp_path / "half.mp4").write_bytes((tmp_path / "whole.mp4").read_bytes()[:end])
    with pytest.raises(UserError, match=r"half\.mp4 is cut off or damaged after 12 frames \(8 more"):
        clips.decode(tmp_path / "half.mp4", 84)


def test_a_clip_damaged_in_the_middle(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    frames = [np.roll(noise, time, axis=0) for time in range(48)]
    write_clip(tmp_path / "video0.mp4", frames, "mp4", "libx264", "yuv420p")
    with av.open(str(tmp_path / "video0.mp4")) as container:
        entry = container.streams.video[0].index_entries[24]
    content = bytearray((tmp_path / "video0.mp4").read_bytes())
    content[entry.pos + 1000 : entry.pos + entry.size] = bytes(entry.size - 1000)
    (tmp_path / "video0.mp4").write_bytes(content)
    with pytest.raises(UserError, match=r"video0\.mp4 is cut off or damaged after 24 frames"):
        clips.decode(tmp_path / "video0.mp4", 84)


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
