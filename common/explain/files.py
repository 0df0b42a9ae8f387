"""Pictures and videos on disk."""

import io
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np
from av.container import OutputContainer
from av.error import FFmpegError
from av.video.stream import VideoStream
from PIL import Image

from common.errors import UserError
from common.run.checkpoint import write_atomically

FRAMES_PER_SECOND = 10
CODEC = "libx264"
"""H.264, which every browser and every slide can play."""
QUALITY = {"crf": "18"}
"""Constant rate factor: 0 is lossless, 51 the worst; 18 looks like the original."""


def save_picture(path: Path, picture: np.ndarray, **options: int) -> Path:
    """Write uint8 (H, W, 3) RGB, whole or not at all; its folder is made if absent.

    The path's suffix says as what: .png, .webp or another of Pillow's, whose `options` are.

    Raises:
        UserError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, encoded(picture, path.suffix[1:].upper(), **options))
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror})") from error
    return path


def encoded(picture: np.ndarray, kind: str, **options: int) -> bytes:
    """The content of an image file of uint8 (H, W, 3) RGB; `kind` and `options` are Pillow's."""
    content = io.BytesIO()
    Image.fromarray(picture).save(content, kind, **options)
    return content.getvalue()


class Video:
    """An MP4 that grows frame by frame, all frames of the first one's size.

    Raises:
        UserError: it cannot be written, on the first frame.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._output: tuple[OutputContainer, VideoStream] | None = None

    def add(self, picture: np.ndarray) -> None:
        """Append uint8 (H, W, 3) RGB."""
        # Chroma is stored for pairs of pixels, so both sides must be even.
        height, width = (size + size % 2 for size in picture.shape[:2])
        container, stream = self._output = self._output or self._open(height, width)
        missing = ((0, height - picture.shape[0]), (0, width - picture.shape[1]), (0, 0))
        padded = np.pad(picture, missing, constant_values=255)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(padded, format="rgb24")))

    def _open(self, height: int, width: int) -> tuple[OutputContainer, VideoStream]:
        try:
            container = av.open(str(self.path), "w", options={"movflags": "faststart"})
            stream = container.add_stream(CODEC, FRAMES_PER_SECOND, options=QUALITY)
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            stream.codec_context.thread_count = 1  # as in decoding: more may wait for each other for ever
            container.start_encoding()
        except (FFmpegError, ValueError) as error:  # ValueError: this FFmpeg lacks the codec
            raise UserError(f"{self.path} cannot be written ({error})") from error
        return container, stream

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._output is not None:
            container, stream = self._output
            container.mux(stream.encode())
            container.close()
