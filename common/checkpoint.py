"""Checkpoints that are whole or absent: written aside, synced, renamed, checksummed, read back.

A run's `checkpoint/` folder holds

    latest.json     what the newest checkpoint consists of: files with their SHA-256
    previous.json   the one before, kept for when the newest turns out to be unreadable
    state-N.pt      everything but the replay at agent step N, readable with weights_only=True
    replay/         the replay's chunks, written once each

A checkpoint exists from the moment `latest.json` is renamed into place, and is made only of files that
were synced before. Files that neither manifest names are removed afterwards.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch

from common.errors import CorruptFile
from common.replay import Replay

LATEST, PREVIOUS = "latest.json", "previous.json"


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
    name = f"state-{step}.pt"
    temporary = folder / (name + ".tmp")
    try:
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        checksum = sha256(temporary)
        chunks = None if replay is None else replay.save(folder / "replay")
        temporary.replace(folder / name)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    manifest = {"step": step, "state": name, "sha256": checksum, "replay": chunks}
    if sha256(folder / name) != checksum:
        raise OSError(f"{folder / name} does not read back as it was written")
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
    raise CorruptFile("no readable checkpoint: " + "; ".join(problems))


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
        manifest = json.loads(path.read_bytes())
        name, checksum, replay = manifest["state"], manifest["sha256"], manifest["replay"]
        step = manifest["step"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptFile(f"{path} is not a checkpoint manifest ({error})") from error
    typed = isinstance(name, str) and isinstance(checksum, str) and isinstance(step, int)
    if not typed or not isinstance(replay, dict | None) or name != Path(name).name:
        raise CorruptFile(f"{path} is not a checkpoint manifest")
    return manifest


def load_tensors(path: Path) -> dict[str, Any]:
    """A file of tensors and plain values, without executing anything in it.

    Raises:
        CorruptFile: it holds anything else, or is damaged.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling a damaged file can raise nearly anything
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CorruptFile(f"{path} is damaged or not a checkpoint of tensors ({first_line})") from error
    if not isinstance(state, dict):
        raise CorruptFile(f"{path} does not hold a checkpoint")
    return state


def sha256(path: Path) -> str:
    """The file's SHA-256, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
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
