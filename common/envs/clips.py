"""Video clips as frames of the observation's size, decoded once and shared by all processes."""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np

from common.errors import UserError

# Decoded clips kept on disk and mapped into memory: all 110 clips of the benchmark at 84x84 take 1.2 GB. The
# pages are the system's file cache, held once for all processes and given up when memory is short.
CACHE_BYTES = 1_500_000_000

# A file that declares more frames than a benchmark clip (750 at most) by far is not a background clip.
MAX_FRAMES = 10_000
MAX_SIDE = 4096

Frames = np.ndarray  # uint8 (T, 3, size, size), RGB


def decode(path: Path, size: int) -> Frames:
    """Decode a clip with OpenCV and resize each frame.

    Raises:
        UserError: the file is missing, empty, cut off, not a video, or longer than MAX_FRAMES.
    """
    # FFmpeg would print its own complaint about a damaged file besides the error raised here.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    import cv2

    if not path.is_file():
        raise UserError(f"clip {path} does not exist; copy it there or name another folder with data.root")
    if path.stat().st_size == 0:
        raise UserError(f"clip {path} is empty (zero bytes); copy it again")
    video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        declared = int(video.get(cv2.CAP_PROP_FRAME_COUNT)) if video.isOpened() else 0
        frames = []
        while video.isOpened():
            read, image = video.read()
            if not read:
                break
            if len(frames) == MAX_FRAMES:
                raise UserError(f"clip {path} has more than {MAX_FRAMES} frames; use a shorter one")
            if max(image.shape[:2]) > MAX_SIDE:
                raise UserError(f"clip {path} is larger than {MAX_SIDE} pixels a side; use a smaller one")
            frames.append(resize(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), size))
    finally:
        video.release()
    if not frames:
        raise UserError(f"clip {path} is corrupt or not a video: no frame decodes; copy it again")
    if len(frames) < declared:
        raise UserError(f"clip {path} is cut off: {len(frames)} of {declared} frames decode; copy it again")
    return np.stack(frames).transpose(0, 3, 1, 2).copy()


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Bilinear resize of an RGB image to size x size as the benchmark does it: uint8 (H, W, 3) in and out.

    Equals `torch.nn.functional.interpolate(mode="bilinear", align_corners=False)` on float32 images in
    [0, 1], multiplied by 255 and truncated, to the bit: truncation turns the last bit of a float into a
    grey level, so torch's fused multiply-adds are imitated. (Importing torch would cost every environment
    process seconds and hundreds of megabytes.)
    """
    top, bottom, top_weight, bottom_weight = _taps(image.shape[0], size)
    left, right, left_weight, right_weight = _taps(image.shape[1], size)
    vertical = top_weight[:, None, None], bottom_weight[:, None, None]
    horizontal = left_weight[:, None], right_weight[:, None]
    image = image.astype(np.float32) / np.float32(255)
    above, below = image[top], image[bottom]
    above = _blend(horizontal, above[:, left], above[:, right])
    below = _blend(horizontal, below[:, left], below[:, right])
    return (_blend(vertical, above, below) * np.float32(255)).astype(np.uint8)


@lru_cache
def _taps(length: int, size: int) -> tuple[np.ndarray, ...]:
    """The two source indices of each output pixel along an axis and their float32 weights."""
    scale = np.float64(np.float32(length) / np.float32(size))
    position = np.maximum((scale * (np.arange(size) + 0.5) - 0.5).astype(np.float32), 0)
    first = position.astype(np.int64)
    second_weight = position - first.astype(np.float32)
    return first, np.minimum(first + 1, length - 1), np.float32(1) - second_weight, second_weight


def _blend(weights: tuple[np.ndarray, np.ndarray], first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """fma(weights[0], first, weights[1] * second) in float32; float64 holds a float32 product exactly."""
    rounded = weights[1] * second
    return (weights[0].astype(np.float64) * first + rounded).astype(np.float32)


class ClipCache:
    """Frames by key, in memory-mapped files that processes share; the least recently used go first.

    `limit` bounds the bytes of all files together. Where the folder cannot be written, frames are made
    anew in the caller's own memory.
    """

    def __init__(self, folder: Path, limit: int = CACHE_BYTES) -> None:
        self.folder = folder
        self.limit = limit

    def frames(self, key: str, make: Callable[[], Frames]) -> Frames:
        """The frames stored under `key`, else those that `make` returns, stored. Read-only, uint8."""
        file = self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npy"
        with contextlib.suppress(OSError, ValueError, EOFError):
            stored = np.load(file, mmap_mode="r", allow_pickle=False)
            os.utime(file)
            return stored
        frames = make()
        try:
            self._store(file, frames)
            return np.load(file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError):
            return frames

    def _store(self, file: Path, frames: Frames) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._make_room(frames.nbytes)
        handle, name = tempfile.mkstemp(dir=self.folder, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as part:
                np.save(part, frames, allow_pickle=False)
            os.replace(name, file)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def _make_room(self, needed: int) -> None:
        """Delete the oldest files; processes that have one mapped keep their pages until they let go."""
        stored = []
        for file in self.folder.glob("*.npy"):
            with contextlib.suppress(FileNotFoundError):
                stored.append((file.stat().st_mtime, file.stat().st_size, file))
        used = sum(size for _, size, _ in stored)
        for _, size, file in sorted(stored):
            if used + needed <= self.limit:
                return
            file.unlink(missing_ok=True)
            used -= size


def default_cache() -> ClipCache:
    """The user's cache: `$SMG_CACHE`, else `smg` in `$XDG_CACHE_HOME` or `~/.cache`."""
    folder = os.environ.get("SMG_CACHE")
    if folder is None:
        # A container's user may have no home; what cannot be written there stays in memory.
        home = Path(os.environ.get("HOME") or "/")
        folder = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "smg"
    return ClipCache(Path(folder) / "clips")
