"""Pictures and videos on disk."""

from pathlib import Path
from types import TracebackType
from typing import Self

import cv2
import numpy as np

from common.errors import UserError
from common.run.checkpoint import write_atomically

FRAMES_PER_SECOND = 10
CODEC = "vp09"
"""VP9: OpenCV's wheels encode it, and browsers play it inside MP4, which they do not with MPEG-4 part 2."""


def save_picture(path: Path, picture: np.ndarray) -> Path:
    """Write uint8 (H, W, 3) RGB as PNG, whole or not at all; its folder is made if absent.

    Raises:
        UserError: it cannot be written.
    """
    # The best compression, 9, takes eight times as long for one per cent.
    _, content = cv2.imencode(
        ".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 6]
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content.tobytes())
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror})") from error
    return path


class Video:
    """An MP4 that grows frame by frame, all frames of the first one's size.

    Raises:
        UserError: it cannot be written, on the first frame.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer: cv2.VideoWriter | None = None

    def add(self, picture: np.ndarray) -> None:
        """Append uint8 (H, W, 3) RGB."""
        # Chroma is stored for pairs of pixels, so both sides must be even.
        height, width = (size + size % 2 for size in picture.shape[:2])
        if self._writer is None:
            code = cv2.VideoWriter.fourcc(*CODEC)
            self._writer = cv2.VideoWriter(str(self.path), code, FRAMES_PER_SECOND, (width, height))
            if not self._writer.isOpened():
                raise UserError(f"{self.path} cannot be written by this OpenCV with codec {CODEC}")
        missing = ((0, height - picture.shape[0]), (0, width - picture.shape[1]), (0, 0))
        padded = np.pad(picture, missing, constant_values=255)
        self._writer.write(cv2.cvtColor(padded, cv2.COLOR_RGB2BGR))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.release()
