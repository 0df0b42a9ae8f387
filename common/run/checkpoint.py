"""Checkpoints that are whole or absent: written aside, synced, renamed, checksummed, read back.

A run's `checkpoint/` folder holds

    latest.json     what the newest checkpoint consists of: files with their SHA-256
    previous.json   the one before, kept for when the newest turns out to be unreadable
    state-N-X.pt    everything but the replay at agent step N, readable with weights_only=True
    replay/         the replay's chunks, written once each

A checkpoint exists from the moment `latest.json` is renamed into place, and is made only of files that
were synced before. Files that neither manifest names are removed afterwards.
"""

import hashlib
import io
import json
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.data.replay import Replay
from common.errors import CorruptFile

LATEST, PREVIOUS = "latest.json", "previous.json"
MAX_MANIFEST_BYTES = 16 * 2**20


def save(folder: Path, step: int, state: dict[str, Any], replay: Replay | None) -> None:
    """Write a checkpoint; the one before stays valid until this one has been read back.

    Args:
        folder: the run's `checkpoint/`, created if absent.
        step: agent steps done.
        state: tensors, arrays and plain values, nested in dicts and lists.
        replay: the replay whose new part is written too, or None for a checkpoint without one.

    Raises:
        OSError: the disk is full or fails; the checkpoints that were there are untouched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    chunks = None if replay is None else replay.save(folder / "replay")
    buffer = io.BytesIO()
    torch.save(_without_arrays(state), buffer)
    checksum = hashlib.sha256(buffer.getbuffer()).hexdigest()
    # Named by content too: a second save at one step must not replace a file that a manifest names.
    name = f"state-{step}-{checksum[:16]}.pt"
    write_atomically(folder / name, buffer.getbuffer())
    if sha256(folder / name) != checksum:
        raise OSError(f"{folder / name} does not read back as it was written")
    manifest = {"step": step, "state": name, "sha256": checksum, "replay": chunks}
    if (folder / LATEST).exists():
        write_atomically(folder / PREVIOUS, (folder / LATEST).read_bytes())
    write_atomically(folder / LATEST, json.dumps(manifest, indent=1).encode())
    _remove_unnamed(folder, replay)


def exists(folder: Path) -> bool:
    """Whether a checkpoint was ever completed here."""
    return (folder / LATEST).exists() or (folder / PREVIOUS).exists()


def load(folder: Path, replay: Replay | None) -> tuple[dict[str, Any], str | None]:
    """The newest readable checkpoint's state, filling `replay` from it.

    Returns:
        The state, and why the newest was passed over for the previous one, if it was.

    Raises:
        CorruptFile: neither checkpoint is readable.
        FileNotFoundError: there is none.
    """
    problems = []
    for name in (LATEST, PREVIOUS):
        if not (folder / name).exists():
            continue
        try:
            return _load(folder, folder / name, replay), problems[0] if problems else None
        except CorruptFile as error:
            problems.append(str(error))
    if not problems:
        raise FileNotFoundError(f"{folder}: no checkpoint")
    remedy = "" if replay is None else "; checkpoint.replay=none resumes without the saved replay"
    raise CorruptFile("no readable checkpoint: " + "; ".join(problems) + remedy)


def fall_back(folder: Path) -> None:
    """Make the previous checkpoint the newest, which `load` found unreadable.

    Otherwise the next save would put the unreadable one in the place of the good one.
    """
    write_atomically(folder / LATEST, (folder / PREVIOUS).read_bytes())


@contextmanager
def must_fit(folder: Path) -> Iterator[None]:
    """Context in which a checkpoint's state is taken up; what that may raise becomes a CorruptFile."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise CorruptFile(
            f"{folder}: the checkpoint is not one of this configuration and version "
            f"({type(error).__name__}: {reason})"
        ) from error


def _load(folder: Path, path: Path, replay: Replay | None) -> dict[str, Any]:
    manifest = read_manifest(path)
    state_path = folder / manifest["state"]
    if not state_path.is_file() or sha256(state_path) != manifest["sha256"]:
        raise CorruptFile(f"{state_path} is missing or does not match its checksum in {path.name}")
    state = load_tensors(state_path)
    if replay is not None and manifest["replay"] is not None:
        replay.load(folder / "replay", manifest["replay"])
    return state


def read_manifest(path: Path) -> dict[str, Any]:
    """A checkpoint's manifest.

    Raises:
        CorruptFile: it is not one, or names files outside its folder.
    """
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise ValueError(f"larger than {MAX_MANIFEST_BYTES} bytes")
        manifest = json.loads(path.read_bytes())
        name, checksum, replay = manifest["state"], manifest["sha256"], manifest["replay"]
        step = manifest["step"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptFile(f"{path} is not a checkpoint manifest ({error})") from error
    typed = isinstance(name, str) and isinstance(checksum, str) and isinstance(step, int)
    if (
        not typed
        or not isinstance(replay, dict | None)
        or not re.fullmatch(r"state-[0-9a-f-]{1,99}\.pt", name)
    ):
        raise CorruptFile(f"{path} is not a checkpoint manifest")
    return manifest


def load_tensors(path: Path) -> dict[str, Any]:
    """A file of tensors, arrays and plain values, without executing anything in it.

    Raises:
        CorruptFile: it holds anything else, or is damaged.
    """
    try:
        _check_archive(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about damage that is an error below
            content = torch.load(path, map_location="cpu", weights_only=True)
        state = _with_arrays(content)
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL (\S+)", str(error))
        what = f"asks for {asked[1]}" if asked else "is damaged or asks for more than tensors"
        raise CorruptFile(f"{path} is refused: its pickle {what}") from error
    except Exception as error:  # unpickling a damaged file can raise nearly anything
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CorruptFile(f"{path} is damaged or not a checkpoint of tensors ({first_line})") from error
    if not isinstance(state, dict):
        raise CorruptFile(f"{path} does not hold a checkpoint")
    return state


def _check_archive(path: Path) -> None:
    """Raise ValueError if the file would unpack to more than its own size: torch.save never compresses."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    compressed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
    if compressed or sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise ValueError("it is compressed, or its parts overlap")


# A file that is loaded without running code holds tensors but no NumPy arrays, which simulators keep.
ARRAY = "numpy array"


def _without_arrays(value: Any) -> Any:
    """The same with each array as {ARRAY: tensor}."""
    if isinstance(value, np.ndarray):
        return {ARRAY: torch.from_numpy(value.copy())}
    if isinstance(value, dict):
        return {key: _without_arrays(part) for key, part in value.items()}
    return [_without_arrays(part) for part in value] if isinstance(value, list | tuple) else value


def _with_arrays(value: Any) -> Any:
    """Undoes `_without_arrays`; tuples have become lists."""
    if isinstance(value, dict):
        if value.keys() == {ARRAY} and isinstance(value[ARRAY], torch.Tensor):
            return value[ARRAY].numpy()
        return {key: _with_arrays(part) for key, part in value.items()}
    return [_with_arrays(part) for part in value] if isinstance(value, list) else value


def sha256(path: Path) -> str:
    """The file's SHA-256, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Replace a file's content so that a reader, or a crash, sees the old or the new, never a part."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # the rename itself
    finally:
        os.close(descriptor)


def _remove_unnamed(folder: Path, replay: Replay | None) -> None:
    manifests = [read_manifest(folder / name) for name in (LATEST, PREVIOUS) if (folder / name).exists()]
    kept = {manifest["state"] for manifest in manifests}
    for path in folder.glob("state-*"):
        if path.name not in kept:
            path.unlink()
    if replay is not None:
        replay.prune(folder / "replay", *(m["replay"] for m in manifests if m["replay"]))
