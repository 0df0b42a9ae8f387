"""Overlay images: a bank of photographs on the device, and random views of it.

The bank is filled from a folder and, when that holds more images than the bank, exchanged bit by bit by a
thread that reads ahead. Views are made a block at a time. What block k shows, and which images are in the
bank then, follows from the seed and k alone, so a run resumes from its position in the sequence and a slow
disk delays it but changes nothing.
"""

import hashlib
import logging
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kornia.augmentation import RandomHorizontalFlip, RandomResizedCrop
from torch import Tensor

from common.data.image_files import SUFFIXES, image_names, natural_order, read_image
from common.data.procedural_images import procedural_images
from common.errors import UserError
from common.rl.upload import upload

logger = logging.getLogger(__name__)

# Side of the images in the bank. Cropping 8 to 100% of the area then means 36 to 128 pixels a side.
RESOLUTION = 128
# Views made at once: enough to hide the cost of the many small steps in a crop, and few enough that memory
# for the pixels is reused; blocks twice as large take a CPU four times as long.
BLOCK = 256
# Images exchanged per block. An image stays for capacity / 8 blocks, so it is seen about 32 times.
EXCHANGED = 8
# Images painted where there is no folder; more would only take longer.
PAINTED = 256
# Files that may fail in a row before the folder counts as unreadable.
PATIENCE = 200


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
            images = procedural_images(min(capacity, PAINTED), RESOLUTION, seed)
            self._images = torch.from_numpy(images).to(device)
            self._exchange = None
            self._description = _description("procedural", len(images), images.tobytes())
        else:
            sequence = ImageSequence(folder, seed)
            held = min(capacity, len(sequence.names))
            self._images = torch.empty((held, 3, RESOLUTION, RESOLUTION), dtype=torch.uint8, device=device)
            self._exchange = Exchange(sequence, self._images)
            self._exchange.advance(0)
            names = "\n".join(sequence.names).encode(errors="surrogateescape")
            self._description = _description(folder.resolve().name, len(sequence.names), names)

    @property
    def source(self) -> str:
        """The folder's name, or "procedural"."""
        return self._description["source"]

    def describe(self) -> dict[str, Any]:
        """For a run's provenance: `source`, the number of `images`, and a `sha256` of the file names, of
        procedural images that of the pixels."""
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
        if self._exchange is not None:
            self._exchange.advance(self._block_number)
        # Kornia draws from the global generator, on the CPU: its state is put back.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(_seed(self.seed, "views", self._block_number))
            chosen = torch.randint(len(self._images), (BLOCK,))
            crop = self._crop.forward_parameters((BLOCK, 3, RESOLUTION, RESOLUTION))
            flip = self._flip.forward_parameters((BLOCK, 3, self.size, self.size))
        images = self._images.index_select(0, upload(chosen, self.device)).float()
        views = self._crop(images, params={name: upload(value, self.device) for name, value in crop.items()})
        views = self._flip(views, params={name: upload(value, self.device) for name, value in flip.items()})
        return (views + 0.5).to(torch.uint8)


class ImageSequence:
    """The images in a folder as an endless sequence: one random order of all of them after another.

    A file that cannot be used is named once in a warning, and the next in the sequence stands in for it.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        if not folder.is_dir():
            raise UserError(f"overlay folder {folder} does not exist; set data.overlay to a folder of images")
        self.folder = folder
        self.seed = seed
        self.names = sorted(image_names(folder), key=natural_order)
        if not self.names:
            kinds = ", ".join(SUFFIXES)
            raise UserError(f"overlay folder {folder} holds no images ({kinds}); set data.overlay to another")
        self._unusable: set[str] = set()
        self._order = lru_cache(maxsize=2)(self._order_of_round)

    def read(self, first: int, count: int) -> np.ndarray:
        """Places `first` to `first + count` of the sequence, uint8 (count, 3, RESOLUTION, RESOLUTION)."""
        return np.stack([self._read_one(place) for place in range(first, first + count)])

    def _read_one(self, place: int) -> np.ndarray:
        # Any 2 n places in a row hold one whole order of n images.
        for candidate in range(place, place + min(2 * len(self.names), PATIENCE)):
            round_number, position = divmod(candidate, len(self.names))
            name = self.names[self._order(round_number)[position]]
            if name in self._unusable:
                continue
            try:
                return read_image(self.folder / name, RESOLUTION)
            except (OSError, ValueError) as error:
                logger.warning("overlay image %s is skipped: %s", self.folder / name, error)
                self._unusable.add(name)
        raise UserError(
            f"overlay folder {self.folder}: its images cannot be read; set data.overlay to another"
        )

    def _order_of_round(self, round_number: int) -> np.ndarray:
        return np.random.default_rng(_seed(self.seed, "order", round_number)).permutation(len(self.names))


class Exchange:
    """Keeps the bank's images those that belong to a block: a window that slides along the sequence.

    At block k the window begins at place `step * k`; place p lies in slot p modulo the number of slots.
    """

    def __init__(self, sequence: ImageSequence, images: Tensor) -> None:
        self._sequence = sequence
        self._images = images
        everything = len(images) == len(sequence.names)
        self._step = 0 if everything else min(EXCHANGED, len(images))
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="overlay-images")
        self._block: int | None = None  # whose images the bank holds
        self._next: Future[np.ndarray] | None = None  # what the next block needs, being read

    def advance(self, block: int) -> None:
        """Bring the bank to its state at `block`, waiting for the disk if need be."""
        if block == self._block or (self._block is not None and not self._step):
            return
        held = len(self._images)
        first, end = block * self._step, block * self._step + held
        if self._next is not None and self._block == block - 1:
            first, images = end - self._step, self._next.result()
        else:
            images = self._thread.submit(self._sequence.read, first, held).result()
        device = self._images.device
        slots = torch.arange(first, end) % held
        self._images[upload(slots, device)] = upload(torch.from_numpy(images), device)
        self._block = block
        if self._step:
            self._next = self._thread.submit(self._sequence.read, end, self._step)


def _description(source: str, count: int, content: bytes) -> dict[str, Any]:
    return {"source": source, "images": count, "sha256": hashlib.sha256(content).hexdigest()}


def _seed(seed: int, purpose: str, number: int) -> int:
    """A 63-bit seed of its own for each purpose and number."""
    digest = hashlib.sha256(f"{seed} {purpose} {number}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
