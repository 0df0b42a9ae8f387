"""Image files of any origin, read as squares of one size; what could do harm is refused unread."""

import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
# Larger files and images are refused before they are read or decoded: a few bytes can claim gigapixels.
MAX_BYTES = 256 * 2**20
MAX_PIXELS = 64 * 2**20


def image_names(folder: Path) -> Iterator[str]:
    """Paths below `folder`, relative to it, that end like an image. Links to folders are followed once."""
    seen = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders.sort()  # of two links to one folder the first in order counts, not the first on the disk
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        for file in files:
            if file.lower().endswith(SUFFIXES):
                yield os.path.relpath(os.path.join(parent, file), folder)


def natural_order(name: str) -> tuple[list[Any], str]:
    """Sorting key that puts 2.jpg before 10.jpg."""
    # The digits alternate with the text between them, so equal places hold equal types.
    parts = [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]
    return parts, name


def read_image(path: Path, side: int) -> np.ndarray:
    """The middle square of an image file, uint8 RGB (3, side, side).

    The long side is cut and the square resized by area averaging: a bank of images needs one shape, and
    squares keep proportions as they are. Places365, which the papers overlay, comes as squares.

    Raises:
        OSError, ValueError: the file cannot be read, is no image, or is larger than MAX_BYTES or MAX_PIXELS.
    """
    if not path.is_file():
        raise ValueError("it is not a regular file")
    if not 0 < path.stat().st_size <= MAX_BYTES:
        raise ValueError(f"it has {path.stat().st_size} bytes")
    content = path.read_bytes()
    width, height = image_size(content)
    short = min(width, height)
    if not 0 < width * height <= MAX_PIXELS:
        raise ValueError(f"it has {width}x{height} pixels")
    # A JPEG can be decoded at a fraction of its size for a fraction of the time.
    flags = next(flag for factor, flag in _REDUCTIONS if short >= factor * side or factor == 1)
    try:
        image = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), flags)
    except cv2.error as error:
        raise ValueError(f"it cannot be decoded ({error.err})") from error
    if image is None:
        raise ValueError("it cannot be decoded")
    height, width = image.shape[:2]
    short = min(height, width)
    top, left = (height - short) // 2, (width - short) // 2
    square = image[top : top + short, left : left + short]
    interpolation = cv2.INTER_AREA if short > side else cv2.INTER_LINEAR
    square = cv2.resize(square, (side, side), interpolation=interpolation)
    return np.ascontiguousarray(square[:, :, ::-1].transpose(2, 0, 1))


_REDUCTIONS = (
    (8, cv2.IMREAD_REDUCED_COLOR_8),
    (4, cv2.IMREAD_REDUCED_COLOR_4),
    (2, cv2.IMREAD_REDUCED_COLOR_2),
    (1, cv2.IMREAD_COLOR),
)


def image_size(content: bytes) -> tuple[int, int]:
    """(width, height) that the header of a JPEG, PNG, WebP or BMP file declares, without decoding it.

    Raises:
        ValueError: it is none of these, or ends before the size.
    """
    try:
        if content.startswith(b"\x89PNG\r\n\x1a\n"):
            return struct.unpack_from(">II", content, 16)
        if content.startswith(b"BM"):
            width, height = struct.unpack_from("<ii", content, 18)
            return abs(width), abs(height)  # a negative height means top row first
        if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
            return _webp_size(content)
        if content.startswith(b"\xff\xd8"):
            return _jpeg_size(content)
    except struct.error as error:
        raise ValueError("it ends within its header") from error
    raise ValueError("it is not a JPEG, PNG, WebP or BMP image")


def _webp_size(content: bytes) -> tuple[int, int]:
    kind = content[12:16]
    if kind == b"VP8 ":  # lossy: 14 bits each after the frame tag and start code
        width, height = struct.unpack_from("<HH", content, 26)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":  # lossless: 14 bits each, less one, after a signature byte
        (bits,) = struct.unpack_from("<I", content, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X":  # extended: 24 bits each, less one
        low_width, high_width, low_height, high_height = struct.unpack_from("<HBHB", content, 24)
        return (high_width << 16 | low_width) + 1, (high_height << 16 | low_height) + 1
    raise ValueError("it is a WebP file of an unknown kind")


def _jpeg_size(content: bytes) -> tuple[int, int]:
    place = 2
    while True:
        (marker,) = struct.unpack_from(">H", content, place)
        if marker == 0xFFFF:  # fill byte
            place += 1
        # Start of frame: C0 to CF except the tables C4, C8 and CC.
        elif 0xFFC0 <= marker <= 0xFFCF and marker not in (0xFFC4, 0xFFC8, 0xFFCC):
            height, width = struct.unpack_from(">HH", content, place + 5)
            return width, height
        elif marker < 0xFFC0:
            raise ValueError("its JPEG header is damaged")
        else:
            place += 2 + struct.unpack_from(">H", content, place + 2)[0]
