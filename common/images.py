"""Overlay images: a bank of photographs on the device, and random views of it.

The bank is filled from a folder and, when that holds more images than the bank, exchanged bit by bit by a
thread that reads ahead. Views are made a block at a time. What block k shows, and which images are in the
bank then, follows from the seed and k alone, so a run resumes from its position in the sequence and a slow
disk delays it but changes nothing.
"""

import hashlib
import logging
import os
import re
import struct
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from kornia.augmentation import RandomHorizontalFlip, RandomResizedCrop
from torch import Tensor

from common.errors import UserError
from common.procedural import procedural_images

logger = logging.getLogger(__name__)

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
# Side of the images in the bank. Cropping 8 to 100% of the area then means 36 to 128 pixels a side.
RESOLUTION = 128
# Larger files and images are refused before they are read or decoded: a few bytes can claim gigapixels.
MAX_BYTES = 256 * 2**20
MAX_PIXELS = 64 * 2**20
# Views made at once: enough to hide the cost of the many small steps in a crop, and few enough that memory
# for the pixels is reused; blocks twice as large take a CPU four times as long.
BLOCK = 256
# Images exchanged per block. An image stays for capacity / 8 blocks, so it is seen about 32 times.
EXCHANGED = 8
# Without a folder; more would only take longer to paint.
PROCEDURAL = 256


class OverlayBank:
    """Random views of a set of images: Kornia's RandomResizedCrop and RandomHorizontalFlip.

    Args:
        folder: any tree of image files; None for procedural images.
        size: side of a view in pixels.
        capacity: images held on the device at a time, 49 kB each.
        seed: of the order of images and of all views.
        device: where images and views lie.

    Raises:
        UserError: the folder is missing or holds no readable image.
    """

    def __init__(
        self, folder: Path | None, *, size: int, capacity: int, seed: int, device: torch.device
    ) -> None:
        self.size = size
        self.seed = seed
        self.device = device
        self._crop = RandomResizedCrop(
            (size, size), scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), p=1.0, cropping_mode="resample"
        )
        self._flip = RandomHorizontalFlip(p=0.5)
        self._block_number = 0
        self._offset = 0  # views of the current block already handed out
        self._block: Tensor | None = None
        if folder is None:
            logger.warning("no overlay folder is set (data.overlay): overlays show procedural images")
            painted = procedural_images(min(capacity, PROCEDURAL), RESOLUTION, seed)
            digest = hashlib.sha256(painted.data).hexdigest()
            self._description = {"source": "procedural", "images": len(painted), "sha256": digest}
            self._reader = None
            self._images = torch.from_numpy(painted).to(device)
        else:
            self._reader = FolderReader(folder, seed)
            names = "\n".join(self._reader.names).encode(errors="surrogateescape")
            self._description = {
                "source": folder.resolve().name,
                "images": len(self._reader.names),
                "sha256": hashlib.sha256(names).hexdigest(),
            }
            held = min(capacity, len(self._reader.names))
            self._images = torch.empty((held, 3, RESOLUTION, RESOLUTION), dtype=torch.uint8, device=device)
            self._exchanged = min(EXCHANGED, held) if held < len(self._reader.names) else 0
            self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="overlay-images")
            self._ahead: Future[np.ndarray] | None = None
        self._bank_block: int | None = None  # the block that the images in the bank belong to
        self._fill(0)

    @property
    def source(self) -> str:
        """The folder's name, or "procedural"."""
        return self._description["source"]

    def describe(self) -> dict[str, Any]:
        """Where images come from, how many there are, and a checksum of the file names (procedural: of the
        pixels), for a run's provenance."""
        return dict(self._description)

    def draw(self, count: int) -> Tensor:
        """The next `count` views, uint8 (count, 3, size, size); no view is handed out twice."""
        pieces = []
        while count:
            if self._block is None:
                self._block = self._make_block()
            piece = self._block[self._offset : self._offset + count]
            pieces.append(piece)
            count -= len(piece)
            self._offset += len(piece)
            if self._offset == BLOCK:
                self._block_number += 1
                self._offset = 0
                self._block = None
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def state_dict(self) -> dict[str, int]:
        """The position in the sequence of views."""
        return {"block": self._block_number, "offset": self._offset}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to a position in the sequence of views."""
        self._block_number, self._offset = state["block"], state["offset"]
        self._block = None

    def _make_block(self) -> Tensor:
        """The current block's views, uint8 (BLOCK, 3, size, size)."""
        self._fill(self._block_number)
        shape = (BLOCK, 3, RESOLUTION, RESOLUTION)
        # Kornia draws from the global generator, on the CPU: its state is put back.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(_seed(self.seed, "views", self._block_number))
            chosen = torch.randint(len(self._images), (BLOCK,))
            crop = self._crop.forward_parameters(shape)
            flip = self._flip.forward_parameters((BLOCK, 3, self.size, self.size))
        images = self._images.index_select(0, self._to_device(chosen)).float()
        views = self._crop(images, params={name: self._to_device(value) for name, value in crop.items()})
        views = self._flip(views, params={name: self._to_device(value) for name, value in flip.items()})
        return (views + 0.5).to(torch.uint8)

    def _to_device(self, values: Tensor) -> Tensor:
        if self.device.type == "cuda":
            return values.pin_memory().to(self.device, non_blocking=True)
        return values

    def _fill(self, block: int) -> None:
        """Bring the bank to its state at `block`: the sequence from position block * exchanged on."""
        if self._reader is None or block == self._bank_block:
            return
        held, step = len(self._images), self._exchanged
        if self._bank_block is not None and (block == self._bank_block + 1 or not step):
            first = self._bank_block * step + held
            images = self._ahead.result() if self._ahead is not None else None
        else:
            first = block * step
            images = self._reader.read(first, held)
        if images is not None:
            slots = torch.arange(first, first + len(images)) % held
            self._images[slots.to(self.device)] = torch.from_numpy(images).to(self.device)
        self._bank_block = block
        # Read on while the views of this block are used.
        self._ahead = self._thread.submit(self._reader.read, block * step + held, step) if step else None


class FolderReader:
    """An endless sequence of the images in a folder: one random order after another.

    A file that cannot be used is named once in a warning, and the next one in the sequence stands in for it.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        if not folder.is_dir():
            raise UserError(f"overlay folder {folder} does not exist; set data.overlay to a folder of images")
        self.folder = folder
        self.seed = seed
        self.names = sorted(_image_names(folder), key=_natural_order)
        if not self.names:
            kinds = ", ".join(SUFFIXES)
            raise UserError(
                f"overlay folder {folder} holds no images ({kinds}); set data.overlay to one that does"
            )
        self._unusable: set[str] = set()
        self._order = lru_cache(maxsize=2)(self._order_of_round)

    def read(self, first: int, count: int) -> np.ndarray:
        """Positions `first` to `first + count` of the sequence, uint8 (count, 3, RESOLUTION, RESOLUTION)."""
        return np.stack([self._read_one(position) for position in range(first, first + count)])

    def _read_one(self, position: int) -> np.ndarray:
        for candidate in range(position, position + len(self.names)):
            round_number, place = divmod(candidate, len(self.names))
            name = self.names[self._order(round_number)[place]]
            if name in self._unusable:
                continue
            try:
                return read_image(self.folder / name)
            except (OSError, ValueError) as error:
                logger.warning("overlay image %s is skipped: %s", self.folder / name, error)
                self._unusable.add(name)
        raise UserError(
            f"overlay folder {self.folder} holds no readable image; set data.overlay to one that does"
        )

    def _order_of_round(self, round_number: int) -> np.ndarray:
        return np.random.default_rng(_seed(self.seed, "order", round_number)).permutation(len(self.names))


def read_image(path: Path) -> np.ndarray:
    """The middle square of an image file, uint8 RGB (3, RESOLUTION, RESOLUTION).

    The short side is resized by area averaging and the long side cut: the bank needs one shape, and squares
    keep proportions as they are. Places365, which the papers overlay, comes as squares.

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
    flags = next(flag for factor, flag in _REDUCTIONS if short >= factor * RESOLUTION or factor == 1)
    try:
        image = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), flags)
    except cv2.error as error:
        raise ValueError(f"it cannot be decoded ({error.err})") from error
    if image is None:
        raise ValueError("it cannot be decoded")
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[top : top + side, left : left + side]
    shrinks = side > RESOLUTION
    square = cv2.resize(
        square, (RESOLUTION, RESOLUTION), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )
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


def _image_names(folder: Path) -> Iterator[str]:
    """Paths below `folder`, relative to it, that end like an image. Links to folders are followed once."""
    seen = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        for file in files:
            if file.lower().endswith(SUFFIXES):
                yield os.path.relpath(os.path.join(parent, file), folder)


def _natural_order(name: str) -> tuple[list[Any], str]:
    """Sorting key that puts 2.jpg before 10.jpg."""
    # The digits alternate with the text between them, so equal places hold equal types.
    parts = [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]
    return parts, name


def _seed(seed: int, purpose: str, number: int) -> int:
    """A 63-bit seed of its own for each purpose and number."""
    digest = hashlib.sha256(f"{seed} {purpose} {number}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
