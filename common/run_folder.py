"""A run's folder: what is where, who may write to it, and where its numbers come from.

config.yaml       the resolved configuration
provenance.json   versions, git commit, renderer, device, data sources
metrics.jsonl     training, one JSON object per line
eval.jsonl        every evaluation episode
checkpoint/       see common.checkpoint
"""

import fcntl
import json
import os
import platform
import re
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from common.checkpoint import write_atomically
from common.config import RESOLVED_NAME, Config, to_yaml
from common.errors import UserError
from common.metrics import Mirror, Record, read_json_lines

PACKAGES = (
    "torch",
    "kornia",
    "dm_control",
    "mujoco",
    "gymnasium",
    "numpy",
    "einops",
    "opencv-python-headless",
)


EPISODE = {"step": int, "shift": str, "return": int | float}
"""What every line of eval.jsonl holds, among other things."""


class RunFolder:
    """An open, locked run folder. The lock goes with the process, however it ends.

    Raises:
        UserError: another process is training in the folder, or it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics = path / "metrics.jsonl"
        self.evaluations = path / "eval.jsonl"
        self.checkpoint = path / "checkpoint"
        self._mirrored = path / "mirrored.json"
        try:
            self._lock = (path / ".lock").open("w")
        except OSError as error:
            raise UserError(f"run folder {path} cannot be written ({error.strerror})") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise UserError(f"{path}: another process is training in this run folder") from error

    @classmethod
    def create(cls, config: Config, provenance: dict[str, Any], checkpoint_bytes: int) -> Self:
        """Make the folder of a new run, with its configuration and provenance.

        Args:
            config: resolved, without any `auto` left.
            provenance: see `provenance`.
            checkpoint_bytes: size that the checkpoints may reach.

        Raises:
            UserError: the folder holds a run already, cannot be made, or the disk is too small.
        """
        path = config.run_folder()
        check_disk(path, checkpoint_bytes)
        made = not path.exists()
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"run folder {path} cannot be made ({error.strerror}); set run.dir") from error
        folder = cls(path)
        try:
            # Once the folder is locked, so that of two runs that start at once the second sees the first.
            if (path / RESOLVED_NAME).exists():
                raise UserError(
                    f"{path} already holds a run: continue it with --resume {path}, or give another run.dir "
                    "or run.name"
                )
            write_atomically(path / "provenance.json", json.dumps(provenance, indent=1, default=str).encode())
            # Last, because this file is what makes the folder a run.
            write_atomically(path / RESOLVED_NAME, to_yaml(config).encode())
        except BaseException as error:
            folder.close()
            if made:
                shutil.rmtree(path)
            if isinstance(error, OSError):
                raise UserError(
                    f"run folder {path} cannot be written ({error.strerror}); set run.dir"
                ) from error
            raise
        return folder

    @classmethod
    def reopen(cls, path: Path) -> Self:
        """The folder of a run that goes on.

        Raises:
            UserError: see the class; or something in it leads out of it.
        """
        refuse_links(path)
        return cls(path)

    def close(self) -> None:
        """Let go of the lock."""
        self._lock.close()

    def mirror(self, config: Config) -> Mirror:
        """The W&B mirror of this run, under the id it had before if it is resumed."""
        state = self._mirror_state()
        if state is None:
            state = {"id": secrets.token_hex(4), "metrics": 0, "evaluations": 0}
            write_atomically(self._mirrored, json.dumps(state).encode())
        return Mirror(config.wandb, self.path, state["id"], config.model_dump(mode="json"))

    def take_unmirrored(self) -> Iterator[Record]:
        """The records that were not yet handed out, each once over all resumes.

        Raises:
            CorruptFile: metrics.jsonl or eval.jsonl is damaged.
        """
        state = self._mirror_state() or {"id": "", "metrics": 0, "evaluations": 0}
        metrics = read_json_lines(self.metrics, {"step": int})
        evaluations = read_json_lines(self.evaluations, EPISODE)
        fresh = metrics[state["metrics"] :] + mean_returns(evaluations[state["evaluations"] :])
        counts = {
            "metrics": max(state["metrics"], len(metrics)),
            "evaluations": max(state["evaluations"], len(evaluations)),
        }
        # Noted before they are sent: a kill in between loses a line of the mirror, never doubles one.
        write_atomically(self._mirrored, json.dumps(state | counts).encode())
        yield from sorted(fresh, key=lambda record: record["step"])

    def _mirror_state(self) -> dict[str, Any] | None:
        """W&B's run id and the counts of lines it was given; None before it began, or if that is damaged."""
        if not self._mirrored.is_file():
            return None
        try:
            state = json.loads(self._mirrored.read_bytes())
            known = re.fullmatch("[0-9a-f]{8}", state["id"])
            counted = all(
                type(state[name]) is int and state[name] >= 0 for name in ("metrics", "evaluations")
            )
        except (KeyError, RecursionError, TypeError, ValueError):
            return None
        return state if known and counted else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def refuse_links(folder: Path) -> None:
    """Raise UserError if anything in a run folder leads out of it: the folder may come from a stranger,
    and what is written to a link is written to where it leads."""
    root = folder.resolve()
    for path in folder.rglob("*"):
        # Inside the folders of earlier W&B runs nothing is written again, and W&B links its logs there.
        if path.relative_to(folder).parts[0] == "wandb" and len(path.relative_to(folder).parts) > 2:
            continue
        if not path.resolve().is_relative_to(root):
            raise UserError(
                f"{path} leads out of the run folder, to {path.resolve()}: put a copy in its place"
            )
        if not (path.is_file() or path.is_dir() or path.is_symlink()):
            raise UserError(f"{path} is neither a file nor a folder: remove it")


def mean_returns(episodes: list[Record]) -> list[Record]:
    """One record per evaluation with `eval/<shift>`, the mean return of its episodes."""
    returns: dict[int, dict[str, list[float]]] = {}
    for episode in episodes:
        returns.setdefault(episode["step"], {}).setdefault(episode["shift"], []).append(episode["return"])
    return [
        {"step": step} | {f"eval/{shift}": sum(values) / len(values) for shift, values in shifts.items()}
        for step, shifts in returns.items()
    ]


def check_disk(path: Path, needed: int) -> None:
    """Raise UserError, with the numbers, if fewer than `needed` bytes are free on the disk for `path`."""
    existing = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise UserError(
            f"checkpoints of this run take up to {needed / 1e9:.1f} GB but the disk of {existing} has "
            f"{free / 1e9:.1f} GB free: set checkpoint.replay=none, or run.dir to a larger disk"
        )


def provenance(**found: Any) -> dict[str, Any]:
    """Where a run's numbers come from: code and versions, and what the caller found out."""
    return {
        "git_commit": git_commit(),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "packages": {name: version(name) for name in PACKAGES},
        **found,
    }


def git_commit() -> str | None:
    """The checkout's commit, with `-dirty` if files differ from it; None outside a checkout."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    described = subprocess.run(
        ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
        capture_output=True,
        text=True,
        check=False,
    )
    return described.stdout.strip() or None
