"""Video files of known content."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

RATE = 25


@contextmanager
def precedence_kept() -> Iterator[None]:
    """Leave this thread's scheduling as it is found.

    SVT-AV1's encoder, run by root, gives the thread that begins it the highest real-time priority. It would
    stay so, and with it all that tests start from there: two processes that spin would keep both cores.
    """
    if not hasattr(os, "sched_getscheduler"):  # not on Linux
        yield
        return
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, *before)


def write_clip(
    path: Path,
    frames: list[np.ndarray],
    container: str = "avi",
    codec: str = "ffv1",
    pixels: str = "bgr0",
    rotation: int = 0,
    faststart: bool = False,
) -> None:
    """Encode RGB frames, uint8 (H, W, 3); without other wishes the codec loses nothing."""
    options = {"movflags": "faststart"} if faststart else {}
    with precedence_kept(), av.open(str(path), "w", format=container, container_options=options) as video:
        stream = video.add_stream(codec, rate=RATE)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        stream.codec_context.thread_count = 1
        stream.gop_size = 12
        stream.max_b_frames = 0
        if rotation:
            stream.set_display_rotation(rotation)
        for frame in frames:
            video.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        video.mux(stream.encode(None))


def read_clip(path: Path) -> list[np.ndarray]:
    """All frames, uint8 RGB (H, W, 3), as PyAV decodes them without a codec's own threads."""
    with av.open(str(path)) as video:
        stream = video.streams.video[0]
        stream.codec_context.thread_count = 1
        return [frame.to_ndarray(format="rgb24") for frame in video.decode(stream)]


def trim(path: Path, trimmed: Path, frames: int) -> None:
    """Copy an mp4 file's packets so that an edit list hides its first frames, as lossless cutting does."""
    with av.open(str(path)) as source, av.open(str(trimmed), "w", format="mp4") as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.pts is None or packet.dts is None or packet.time_base is None:  # the empty last one
                continue
            begin = int(Fraction(frames, RATE) / packet.time_base)
            packet.pts, packet.dts = packet.pts - begin, packet.dts - begin
            packet.stream = copy
            target.mux(packet)


def moving(count: int, side: int = 96) -> list[np.ndarray]:
    """Frames of a smooth picture that moves to the right."""
    wave = np.linspace(0, 2 * np.pi, side, endpoint=False)
    levels = [128 + 100 * np.add.outer(np.sin(wave), np.cos(wave + shift)) / 2 for shift in (0, 2, 4)]
    picture = np.stack(levels, axis=-1).astype(np.uint8)
    return [np.roll(picture, 3 * time, axis=1) for time in range(count)]


def flat(level: int, side: int = 96) -> np.ndarray:
    """A frame of one grey level."""
    return np.full((side, side, 3), level, np.uint8)
