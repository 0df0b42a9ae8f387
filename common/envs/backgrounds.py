"""What a visual shift shows in an episode: the benchmark's clips and colour presets, or procedural ones."""

import hashlib
import os
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from common.config.shifts import COLOR_SHIFTS, VIDEO_SHIFTS
from common.envs import clips, presets, procedural
from common.envs.clips import Frames
from common.envs.presets import Preset
from common.errors import UserError

_CLIP_NAME = re.compile(r"video(\d+)\.mp4")
_ENDS_HASHED = 65536
_COLOR_VIDEOS = 100


@dataclass(frozen=True)
class Clip:
    """A moving background: what results call it, its number, how to get its frames, and whence they come."""

    name: str
    number: int
    frames: Callable[[int], Frames]  # size in pixels -> uint8 (T, 3, size, size)
    path: Path | None = None  # None if it is made by formula


@dataclass(frozen=True)
class NamedPreset:
    """A colour preset and what results call it: its number in the benchmark's file, or "procedural/7"."""

    name: int | str
    colours: Preset


def data_root(configured: str | Path | None) -> Path | None:
    """The folder with the benchmark's data: as configured, else `$SMG_DATA`, else None (procedural).

    Raises:
        UserError: the folder does not exist.
    """
    source = "data.root" if configured is not None else "SMG_DATA"
    folder = configured if configured is not None else os.environ.get("SMG_DATA") or None
    if folder is None:
        return None
    if not Path(folder).is_dir():
        raise UserError(f"{source}: no folder {folder}; name the one that holds video_easy/ and the rest")
    return Path(folder)


def video_clips(root: Path | None, shift: str, numbers: tuple[int, int] | None = None) -> list[Clip]:
    """The clips of a video shift in numeric order.

    Of video_hard, `numbers` selects those numbered from `numbers[0]` to `numbers[1]`.

    Raises:
        UserError: the folder holds no clip, or none in the range.
    """
    if root is None:
        found = [_procedural_clip(shift, number) for number in range(procedural.CLIPS[shift])]
    else:
        found = [_clip(number, path) for number, path in clip_files(root, shift).items()]
        if not found:
            raise UserError(f"no clips in {root / shift}: put video0.mp4, video1.mp4, ... there")
    if numbers is None or shift != "video_hard":
        return found
    chosen = [clip for clip in found if numbers[0] <= clip.number <= numbers[1]]
    if not chosen:
        raise UserError(f"eval.clips: no clip of {shift} has a number from {numbers[0]} to {numbers[1]}")
    return chosen


def check_clips(
    root: Path | None, shift: str, numbers: tuple[int, int] | None, episodes: Iterable[int], size: int
) -> int:
    """Decode the clips of evaluation episodes, by number from 0, into the cache, several at a time.

    What cannot be shown is then known before anything is learnt. Decoding shows its progress from the first
    second on; what the cache holds takes no time. Returns how many clips the episodes show.

    Raises:
        UserError: the first clip that cannot be decoded, with its reason, and the names of others.
    """
    clips = video_clips(root, shift, numbers)
    shown = [clips[index] for index in {clip_of_episode(number, len(clips)): None for number in episodes}]
    files = [clip for clip in shown if clip.path is not None]

    def problem(clip: Clip) -> str | None:
        try:
            clip.frames(size)
        except UserError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        checked = tqdm(
            pool.map(problem, files),
            desc=f"decoding {shift}'s clips at {size}x{size}",
            total=len(files),
            unit="clip",
            delay=1,
        )
        problems = {clip.name: text for clip, text in zip(files, checked, strict=True) if text is not None}
    if problems:
        name, text = next(iter(problems.items()))
        others = ", ".join(other for other in problems if other != name)
        raise UserError(f"{text} (nor can these be shown: {others})" if others else text)
    return len(shown)


def clip_of_episode(number: int, clips: int) -> int:
    """Which of so many clips episode `number`, from 0, shows: the benchmark begins with the second."""
    return (number + 1) % clips


def first_number(seed: int) -> int:
    """The episode number with which DMC-GB2's color_video_* begins; clips and presets are functions of it."""
    return int(np.random.RandomState(seed).randint(_COLOR_VIDEOS))


def color_presets(root: Path | None, shift: str) -> list[NamedPreset]:
    """The presets of a colour shift.

    Raises:
        UserError: the preset file is missing or damaged.
    """
    if root is None:
        made = (procedural.preset(shift, number) for number in range(procedural.PRESETS))
        return [NamedPreset(f"procedural/{number}", colours) for number, colours in enumerate(made)]
    read = presets.read_presets(root / f"{shift}.pt")
    return [NamedPreset(number, colours) for number, colours in enumerate(read)]


def clip_files(root: Path, shift: str) -> dict[int, Path]:
    """The files video<number>.mp4 of a video shift, by number, in numeric order; gaps are fine."""
    folder = root / shift
    if not folder.is_dir():
        return {}
    named = ((_CLIP_NAME.fullmatch(path.name), path) for path in folder.iterdir())
    return dict(sorted((int(match[1]), path) for match, path in named if match))


def data_summary(configured: str | Path | None) -> dict[str, Any]:
    """What data there is, for a run's provenance.

    `root` is None and `source` "procedural" without data. Per video shift: the number of clips, the numbers
    found and a hash; per colour shift: the number of presets and a hash. Hashes cover names, sizes and both
    ends of each file, not every byte.
    """
    root = data_root(configured)
    summary: dict[str, Any] = {"root": None if root is None else str(root)}
    summary["source"] = "procedural" if root is None else "files"
    for shift in VIDEO_SHIFTS:
        files = {} if root is None else clip_files(root, shift)
        count = procedural.CLIPS[shift] if root is None else len(files)
        summary[shift] = {"clips": count, "numbers": list(files), "hash": _fingerprint(list(files.values()))}
    for shift in COLOR_SHIFTS:
        file = None if root is None else root / f"{shift}.pt"
        if file is not None and not file.is_file():
            summary[shift] = {"presets": 0, "hash": None}
        else:
            count = len(color_presets(root, shift))
            summary[shift] = {"presets": count, "hash": _fingerprint([] if file is None else [file])}
    return summary


def _clip(number: int, path: Path) -> Clip:
    def frames(size: int) -> Frames:
        key = f"{clips.DECODER} {path.resolve()} {_fingerprint([path]) if path.is_file() else ''} {size}"
        return clips.default_cache().frames(key, lambda: clips.decode(path, size))

    return Clip(path.name, number, frames, path)


def _procedural_clip(shift: str, number: int) -> Clip:
    return Clip(f"procedural/{number}", number, partial(procedural.clip, shift, number))


def _fingerprint(files: list[Path]) -> str | None:
    """A hash of the files' names, sizes, and first and last 64 KiB."""
    if not files:
        return None
    digest = hashlib.sha256()
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(_ENDS_HASHED))
            file.seek(max(0, size - _ENDS_HASHED))
            digest.update(file.read(_ENDS_HASHED))
    return digest.hexdigest()[:16]
