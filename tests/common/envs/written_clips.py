"""Video files of known content."""

from pathlib import Path

import cv2
import numpy as np


def write_clip(path: Path, frames: list[np.ndarray]) -> None:
    """Encode BGR frames as motion JPEG, which any OpenCV can write."""
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (width, height))
    for frame in frames:
        writer.write(frame)
    writer.release()


def flat(level: int, side: int = 96) -> np.ndarray:
    """A frame of one grey level."""
    return np.full((side, side, 3), level, np.uint8)
