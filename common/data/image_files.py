"""Image files of any origin, read as squares of one size; what could do harm is refused unread."""

import os
import re
from collections.abc import Iterator
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
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
    """The middle square of an image file, uint8 RGB (3, side, side), upright, without its transparency.

    The long side is cut: a bank of images needs one shape, and squares keep proportions as they are.
    (Places365, which the papers overlay, comes as squares.) Every value is the mean of the area that its
    pixel covers; images smaller than the square are enlarged bilinearly.

    Raises:
        OSError, ValueError: the file cannot be read, is no image, or is larger than MAX_BYTES or MAX_PIXELS.
    """
    if not path.is_file():
        raise ValueError("it is not a regular file")
    if not 0 < path.stat().st_size <= MAX_BYTES:
        raise ValueError(f"it has {path.stat().st_size} bytes")
    content = path.read_bytes()
    try:
        image = Image.open(BytesIO(content), formats=FORMATS)  # reads no more than the header
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise ValueError(f"it has {width}x{height} pixels")
        return _middle_square(ImageOps.exif_transpose(image), side)
    # A hostile file can raise anything, SyntaxError and MemoryError included.
    except Exception as error:
        raise ValueError(f"it cannot be decoded ({error})") from error


def _middle_square(image: Image.Image, side: int) -> np.ndarray:
    short = min(image.size)
    left, top = (image.width - short) // 2, (image.height - short) // 2
    image = image.crop((left, top, left + short, top + short))
    if image.mode == "I;16":  # grey in 16 bits, of which Pillow would only keep what is below 256
        image = image.point(lambda level: level * (1 / 257) + 0.5).convert("L")
    image.info.pop("transparency", None)
    image = image.convert("RGB")
    if short <= side:
        square = np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))
    elif short % side == 0:
        square = np.asarray(image.reduce(short // side))
    else:
        square = (area_means(np.asarray(image), side) + 0.5).astype(np.uint8)
    return np.ascontiguousarray(square.transpose(2, 0, 1))


def area_means(square: np.ndarray, side: int) -> np.ndarray:
    """Means over side x side equal areas of a square, fractions of pixels included: (S, S, C) to float64.

    Pillow's own box filter gives each pixel to one area, whole.
    """
    rows = _stretch_means(square, side).swapaxes(0, 1)
    return _stretch_means(rows, side).swapaxes(0, 1)


def _stretch_means(values: np.ndarray, count: int) -> np.ndarray:
    """Means over `count` equal stretches of the first axis, which is at least as long."""
    length = len(values)
    # Stretch k begins within entry `entry[k]`, of which it leaves the share `before[k]` to the one before.
    entry, before = np.divmod(np.arange(count + 1) * length, count)
    share = (before / count).reshape(-1, *[1] * (values.ndim - 1))
    partial = share * values.take(entry, axis=0, mode="clip")  # past the end the share is 0
    whole = np.stack([values[first:end].sum(0, dtype=np.float64) for first, end in pairwise(entry)])
    return (whole - partial[:-1] + partial[1:]) * (count / length)
