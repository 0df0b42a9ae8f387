"""Pictures and videos as other programs read them."""

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from common.errors import UserError
from common.explain.files import Video, save_picture
from tests.common.envs.written_clips import read_clip
from tests.threads import native_threads

COLOURS = [(200, 30, 40), (20, 180, 60), (40, 50, 220)]


@pytest.mark.parametrize(("name", "options"), [("a.png", {}), ("a.webp", {"lossless": True})])
def test_a_picture_keeps_every_pixel(name: str, options: dict[str, int], tmp_path: Path):
    picture = np.random.default_rng(0).integers(0, 256, (7, 11, 3), dtype=np.uint8)
    with Image.open(save_picture(tmp_path / "new" / name, picture, **options)) as image:
        assert image.format == name.partition(".")[2].upper()
        np.testing.assert_array_equal(np.asarray(image), picture)


def test_a_video_shows_its_frames_in_order_on_even_sides(tmp_path: Path):
    threads = {native_threads()}
    with Video(tmp_path / "a.mp4") as video:
        for colour in COLOURS:
            video.add(np.full((33, 41, 3), colour, np.uint8))
            threads.add(native_threads())
    assert len(threads) == 1  # a codec's own can wait for each other for ever
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == 10
    frames = [frame.astype(int) for frame in read_clip(tmp_path / "a.mp4")]
    assert [frame.shape for frame in frames] == [(34, 42, 3)] * 3
    for frame, colour in zip(frames, COLOURS, strict=True):
        assert np.abs(frame[5:28, 5:36] - colour).max() <= 8
        assert frame[33].min() > 180 and frame[:, 41].min() > 180  # white where the picture ends


def test_what_cannot_be_written_is_named(tmp_path: Path):
    blank = np.zeros((4, 4, 3), np.uint8)
    with (
        pytest.raises(UserError, match=r"a\.mp4 cannot be written"),
        Video(tmp_path / "no" / "a.mp4") as video,
    ):
        video.add(blank)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"a\.png cannot be written"):
        save_picture(tmp_path / "file" / "a.png", blank)
