"""Video clips as frames of the observation's size, decoded once and shared by all processes."""

import contextlib
import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.errors import UserError

if TYPE_CHECKING:
    from av.container import InputContainer

# Decoded clips kept on disk and mapped into memory: all 110 clips of the benchmark take 1.2 GB at 84x84 and
# 1.65 GB at 100x100. The pages are the system's file cache, held once for all processes and given up when
# memory is short.
CACHE_BYTES = 2_000_000_000

DECODER = f"PyAV {version('av')}"
"""What decodes: part of a cached clip's key, so that another decoder's frames are never shown."""

# A file with more frames than a benchmark clip (750 at most) by far is not a background clip.
MAX_FRAMES = 10_000
MAX_SIDE = 4096

# The file itself is handed over open. A playlist that calls itself a clip can open nothing else.
_NOTHING_ELSE = {"protocol_whitelist": ""}
_TOLERATED = 0.5  # seconds that a Matroska file's last frame may end before the file is said to
_REENCODE = "ffmpeg -i OLD.mp4 -c:v libx264 -crf 10 -pix_fmt yuv420p -an NEW.mp4"

_LEVELS = np.arange(256, dtype=np.float32) / np.float32(255)

Frames = np.ndarray  # uint8 (T, 3, size, size), RGB


def decode(path: Path, size: int) -> Frames:
    """Decode a clip with FFmpeg and resize each frame. Edit lists and rotation are followed.

    Raises:
        UserError: the file is missing, empty, cut off, damaged, not a video, in a codec that has no decoder
            here, longer than MAX_FRAMES or larger than MAX_SIDE.
    """
    # Imported here, because environment processes that find their clips in the cache do without it.
    from av.error import FFmpegError

    if not path.is_file():
        raise UserError(f"clip {path} does not exist; copy it there or name another folder with data.root")
    if path.stat().st_size == 0:
        raise UserError(f"clip {path} is empty (zero bytes); copy it again")
    frames: list[np.ndarray] = []
    problem = "it has none"
    try:
        for image in _images(path):
            if len(frames) == MAX_FRAMES:
                raise UserError(f"clip {path} has more than {MAX_FRAMES} frames; use a shorter one")
            frames.append(resize(image, size))
    except (FFmpegError, OSError, _Incomplete) as error:
        problem = getattr(error, "strerror", None) or str(error)
        if frames:
            raise UserError(
                f"clip {path} is cut off or damaged after {len(frames)} frames ({problem}); copy it again, "
                f"or re-encode what there is: {_REENCODE}"
            ) from error
    if not frames:
        raise UserError(
            f"clip {path} is corrupt or not a video: no frame decodes ({problem}); copy it again, or "
            f"re-encode it: {_REENCODE}"
        )
    return np.stack(frames)[..., ::-1].transpose(0, 3, 1, 2).copy()


class _Incomplete(Exception):
    pass


def _images(path: Path) -> Iterator[np.ndarray]:
    """The images that a player shows, upright: uint8 BGR (H, W, 3).

    How many they are, decoding alone tells: what a container declares counts what an edit list hides. What it
    declares only tells whether the file still has all packets.

    Raises:
        UserError: the codec has no decoder here, or the images are larger than MAX_SIDE.
        FFmpegError, OSError, _Incomplete: something is missing or damaged.
    """
    import av
    from av.video.reformatter import VideoReformatter

    with (
        path.open("rb") as file,
        av.open(file, "r", metadata_errors="replace", container_options=_NOTHING_ELSE) as container,
    ):
        stream = container.streams.best("video")
        if not isinstance(stream, av.VideoStream):
            return
        context = stream.codec_context
        if context is None:
            raise UserError(
                f"clip {path} is encoded as {_codec_name(container)}, which cannot be decoded here; "
                f"re-encode it: {_REENCODE}"
            )
        if max(context.width, context.height) > MAX_SIDE:
            raise UserError(f"clip {path} is larger than {MAX_SIDE} pixels a side; use a smaller one")
        # FFmpeg's threads can wait for each other for ever where others want the cores, as they do here;
        # those of PyTorch make it likelier (PyAV's issues 1861 and 1962).
        context.thread_count = 1
        context.options = {"max_pixels": str(MAX_SIDE**2)}  # later images may be larger than the first
        # The benchmark reads its clips with OpenCV, which converts to BGR with this filter.
        convert = VideoReformatter().reformat
        indexed, packets, end = len(stream.index_entries), 0, 0.0
        for packet in container.demux(stream):
            packets += packet.size > 0  # the last one is empty: it fetches what the decoder still holds
            for frame in packet.decode():
                if packet.is_corrupt or frame.is_corrupt:
                    raise _Incomplete("the next one is damaged")
                end = frame.time or end
                image = convert(frame, format="bgr24", interpolation="BICUBIC", threads=1).to_ndarray()
                yield np.rot90(image, frame.rotation // 90)
        # An index that was cut off, or comes with each packet, is shorter than the packets are many.
        missing = indexed - packets if packets <= indexed else stream.frames - packets
        if missing > 0:
            raise _Incomplete(f"{missing} more are missing")
        # Matroska counts no frames; a duration that stands for this stream alone says when the last one ends.
        if "matroska" in container.format.name and len(container.streams) == 1:
            missing_time = (container.duration or 0) / 1e6 - end
            if missing_time > _TOLERATED:
                raise _Incomplete(f"{missing_time:.1f} s are missing")


def _codec_name(container: "InputContainer") -> str:
    """What FFmpeg calls the codec of the first video, be there a decoder or not."""
    import av.logging

    # PyAV tells it through the log alone.
    av.logging.set_level(av.logging.INFO)
    try:
        text = container.dumps_format()  # pyright: ignore[reportAttributeAccessIssue] - not in its stubs
        found = re.search(r"Video: (\w+)(?: \((\w+))?", text)
    finally:
        av.logging.set_level(None)
    names = [] if found is None else [name for name in found.groups() if name not in (None, "none")]
    return names[0] if names else "something unknown"


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Bilinear resize of an image to size x size as the benchmark does it: uint8 (H, W, C) in and out.

    Equals `torch.nn.functional.interpolate(mode="bilinear", align_corners=False)` on float32 images in
    [0, 1], multiplied by 255 and truncated, to the bit: truncation turns the last bit of a float into a
    grey level, so torch's fused multiply-adds are imitated. (Importing torch would cost every environment
    process seconds and hundreds of megabytes.)
    """
    height, width, channels = image.shape
    top, bottom, *vertical = _taps(height, size)
    left, right, *horizontal = _taps(width, size, channels)
    above, below = (
        _blend(horizontal, _LEVELS.take(rows.take(left, 1)), _LEVELS.take(rows.take(right, 1)))
        for rows in (image.take(lines, 0).reshape(size, -1) for lines in (top, bottom))
    )
    blended = _blend([weights[:, None] for weights in vertical], above, below)
    return (blended * np.float32(255)).astype(np.uint8).reshape(size, size, channels)


@lru_cache
def _taps(length: int, size: int, channels: int = 1) -> tuple[np.ndarray, ...]:
    """The two source indices of each output value along an axis and their float32 weights.

    With channels, the axis runs over pixels and their channels: inner loops over three values are slow.
    """
    scale = np.float64(np.float32(length) / np.float32(size))
    position = np.maximum((scale * (np.arange(size) + 0.5) - 0.5).astype(np.float32), 0)
    first = position.astype(np.int64)
    second = np.minimum(first + 1, length - 1)
    second_weight = np.repeat(position - first.astype(np.float32), channels)
    first, second = (
        (channels * pixels[:, None] + np.arange(channels)).reshape(-1) for pixels in (first, second)
    )
    return first, second, np.float32(1) - second_weight, second_weight


def _blend(weights: Sequence[np.ndarray], first: np.ndarray, second: np.ndarray) -> np.ndarray:
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
