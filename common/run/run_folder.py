"""A run's folder: what is where, who may write to it, and where its numbers come from.

config.yaml       the resolved configuration
provenance.json   versions, git commit, renderer, device, data sources
…-until-N…        either of these as it was until a resume at step N changed it
metrics.jsonl     training, one JSON object per line
eval.jsonl        every evaluation episode
sheets/STEP.png   what the agent saw in the evaluation at that step
checkpoint/       see common.run.checkpoint
"""

import contextlib
import fcntl
import json
import os
import platform
import shlex
import shutil
import subprocess
import time
from collections.abc import Mapping
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from common.config.loading import RESOLVED_NAME, load_run_config, to_yaml
from common.config.registry import agent_class, files_of, is_import_path
from common.config.schema import Config
from common.config.yaml_files import read_mapping
from common.errors import UserError
from common.run.checkpoint import write_atomically
from common.run.data_sources import folders, other_data
from common.run.records import Record, read_json_lines

PACKAGES = (
    "torch",
    "kornia",
    "dm_control",
    "mujoco",
    "gymnasium",
    "numpy",
    "einops",
    "av",
    "pillow",
)


PROVENANCE = "provenance.json"
REPLAY_EMPTIED = "replay_emptied"
"""In a provenance: at which steps the run went on without the replay that it had."""
AGENT_CODE = "agent_code"
"""In a provenance: hashes by file, of an agent that is not of this package."""
EVALUATIONS = "eval.jsonl"
EPISODE = {"step": int, "shift": str, "return": int | float}
"""What every line of eval.jsonl holds, among other things."""


class RunFolder:
    """An open, locked run folder. The lock goes with the process, however it ends.

    Args:
        path: the folder, which exists.
        provenance: see `provenance`; whoever will train in it may set it later.
        same_data: whether the run must go on with the images and clips that it had.

    Raises:
        UserError: another process is training in the folder, or it cannot be written.
    """

    def __init__(self, path: Path, provenance: dict[str, Any] | None = None, same_data: bool = False) -> None:
        self.path = path
        self.provenance = provenance
        self.same_data = same_data
        self.metrics = path / "metrics.jsonl"
        self.evaluations = path / EVALUATIONS
        self.checkpoint = path / "checkpoint"
        try:
            self._lock = (path / ".lock").open("w")
        except OSError as error:
            raise UserError(f"run folder {path} cannot be written ({error.strerror})") from error
        if not _acquired(self._lock):
            self._lock.close()
            raise UserError(f"{path}: another process is training in this run folder")

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
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"run folder {path} cannot be made ({error.strerror}); set run.dir") from error
        folder = cls(path, provenance)
        try:
            folder._begin(config)
        except BaseException:
            folder.close()
            raise
        return folder

    def _begin(self, config: Config) -> None:
        # Of two commands that start at once the second sees the first's run here.
        if (self.path / RESOLVED_NAME).exists():
            raise UserError(f"{self.path}: another process has just begun this run; give the command again")
        try:
            for name, content in self._records(config).items():
                write_atomically(self.path / name, content)
        except OSError as error:
            for name in (PROVENANCE, ".lock"):
                (self.path / name).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # it holds other things
                self.path.rmdir()
            raise UserError(
                f"run folder {self.path} cannot be written ({error.strerror}); set run.dir"
            ) from error

    @classmethod
    def reopen(cls, path: Path, same_data: bool) -> Self:
        """The folder of a run that goes on; see the class.

        Raises:
            UserError: see the class; or something in it leads out of it.
        """
        refuse_links(path)
        return cls(path, same_data=same_data)

    def other_data(self, config: Config) -> str:
        """Which images and clips are others now than those that the run used; empty if none.

        Raises:
            UserError: some are, and the run must go on with the same.
        """
        assert self.provenance is not None
        changed = "; ".join(other_data(config, recorded_provenance(self.path), self.provenance))
        if changed and self.same_data:
            raise UserError(
                f"{self.path} holds a run on other data ({changed}): set SMG_DATA and SMG_OVERLAY, or "
                "data.root and data.overlay, as they were, give another run.dir, or let that run go on with "
                f"these data: {self.resume_command(config)} {shlex.join(folders(config))}"
            )
        return changed

    def keep(self, config: Config, step: int, learnt: bool) -> None:
        """Store the configuration and provenance with which a run goes on, and those before if they differ.

        Args:
            config: the run's from here on.
            step: where it goes on; nothing before is left of it at step 0.
            learnt: whether it has learnt or been evaluated yet; else no number is of the earlier provenance.

        Raises:
            UserError: the folder cannot be written.
        """
        for name, content in self._records(config).items():
            path = self.path / name
            stored = path.read_bytes() if path.exists() else None
            if stored == content:
                continue
            before = path.with_stem(f"{path.stem}-until-{step}")
            matters = step > 0 and (learnt or name != PROVENANCE)
            try:
                # If it exists, a resume at this step got no further: nothing was learnt with `stored`.
                if stored is not None and matters and not before.exists():
                    write_atomically(before, stored)
                write_atomically(path, content)
            except OSError as error:
                raise UserError(f"run folder {self.path} cannot be written ({error.strerror})") from error

    def note(self, key: str, finding: str) -> None:
        """Add to a list in the provenance what was found while training; a full disk costs only the note."""
        if self.provenance is None:
            return
        self.provenance.setdefault(key, []).append(finding)
        with contextlib.suppress(OSError):
            write_atomically(self.path / PROVENANCE, self._provenance_file())

    def _provenance_file(self) -> bytes:
        return json.dumps(self.provenance, indent=1, default=str).encode()

    def _records(self, config: Config) -> dict[str, bytes]:
        """The files that say with what a run is made, last the one that makes the folder a run."""
        assert self.provenance is not None
        return {PROVENANCE: self._provenance_file(), RESOLVED_NAME: to_yaml(config).encode()}

    def resume_command(self, config: Config) -> str:
        """What to type for the run to go on."""
        code = " --allow-code" if is_import_path(config.agent) else ""
        return f"smg train --resume {shlex.quote(str(self.path))}{code}"

    def close(self) -> None:
        """Let go of the lock."""
        self._lock.close()

    def records(self) -> list[Record]:
        """Every line of metrics.jsonl, and each evaluation in short, in the order of steps.

        An evaluation's `sheet` is the path of its picture, where there is one.

        Raises:
            CorruptFile: one of the files is damaged.
        """
        metrics = read_json_lines(self.metrics, {"step": int})
        evaluations = summaries(read_json_lines(self.evaluations, EPISODE))
        for record in evaluations:
            if (sheet := sheet_of(self.path, record["step"])).is_file():
                record["sheet"] = sheet
        return sorted(metrics + evaluations, key=lambda record: record["step"])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def sheet_of(run: Path, step: int) -> Path:
    """The picture of the evaluation at a step."""
    return run / "sheets" / f"{step:08}.png"


def _acquired(file: IO[str]) -> bool:
    """Lock a file, unless another process keeps it locked for longer than it takes to look at a lock."""
    for _ in range(20):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            time.sleep(0.05)
        else:
            return True
    return False


def refuse_links(folder: Path) -> None:
    """Raise UserError if anything in a run folder leads out of it: the folder may come from a stranger,
    and what is written to a link is written to where it leads."""
    root = folder.resolve()
    for path in folder.rglob("*"):
        # Inside the folders of earlier W&B runs nothing is written again, and W&B links its logs there.
        # Training's lie in wandb/, an explanation's in explain/wandb/.
        parts = path.relative_to(folder).parts
        if (parts[0] == "wandb" and len(parts) > 2) or (parts[:2] == ("explain", "wandb") and len(parts) > 3):
            continue
        if not path.resolve().is_relative_to(root):
            raise UserError(
                f"{path} leads out of the run folder, to {path.resolve()}: put a copy in its place"
            )
        if not (path.is_file() or path.is_dir() or path.is_symlink()):
            raise UserError(f"{path} is neither a file nor a folder: remove it")


def summaries(episodes: list[Record]) -> list[Record]:
    """One record per evaluation: `eval/<shift>`, the mean return of its episodes, and `explain/<shift>/…`,
    what was measured of the first of them."""
    returns: dict[int, dict[str, list[float]]] = {}
    explained: dict[int, Record] = {}
    for episode in episodes:
        step, shift = episode["step"], episode["shift"]
        returns.setdefault(step, {}).setdefault(shift, []).append(episode["return"])
        found = episode.get("explained")
        for name, value in found.items() if isinstance(found, dict) else ():
            if isinstance(value, float):  # null where no frame defines it
                explained.setdefault(step, {})[f"explain/{shift}/{name}"] = value
    return [
        {"step": step}
        | {f"eval/{shift}": sum(values) / len(values) for shift, values in shifts.items()}
        | explained.get(step, {})
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


def kept_before(folder: Path, name: str) -> list[Path]:
    """What a run's resumes kept of a file of sessions before (see `RunFolder.keep`), in order."""
    stem, suffix = name.rsplit(".", 1)
    return sorted(folder.glob(f"{stem}-until-*.{suffix}"), key=lambda path: (len(path.name), path.name))


def earlier_settings(folder: Path, config: Config) -> dict[str, Config | str]:
    """What a run was configured with until resumes changed it, by when that was, in order.

    A run may be prolonged: each is as if it had been for as many steps as the run has now.

    Args:
        folder: the run's.
        config: what it is configured with now.

    Returns:
        For `until step N` the configuration, or why it cannot be read.
    """
    found: dict[str, Config | str] = {}
    for path in kept_before(folder, RESOLVED_NAME):
        when = f"until step {path.stem.rpartition('-')[2]}"
        try:
            # The folder may come from a stranger: no code is imported but the run's own agent's, which is.
            if (agent := read_mapping(path).get("agent")) != config.agent:
                raise UserError(f"{path.name} is of agent {agent!r}, not {config.agent!r}")
            # A replay that kept the whole run does so when that is prolonged.
            steps = f"train.steps={config.train.steps}"
            found[when] = load_run_config(folder, [steps], allow_code=True, name=path.name)
        except UserError as error:
            found[when] = str(error)
    return found


def recorded_sessions(folder: Path) -> list[dict[str, Any]]:
    """The provenance of each session of a run in order, once for those in a row that had the same.

    Empty where one cannot be read.
    """
    earlier = [_recorded(path) for path in kept_before(folder, PROVENANCE)]
    return [*earlier, recorded_provenance(folder)]


def replay_emptied(session: Mapping[str, Any]) -> list[str]:
    """When a session went on without the replay that the run had, by its provenance."""
    found = session.get(REPLAY_EMPTIED)
    return list(map(str, found)) if isinstance(found, list) else []


def recorded_provenance(folder: Path) -> dict[str, Any]:
    """What a run folder's provenance.json holds; nothing if it cannot be read."""
    return _recorded(folder / PROVENANCE)


def _recorded(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def provenance(**found: Any) -> dict[str, Any]:
    """Where a run's numbers come from: code and versions, and what the caller found out."""
    return {
        "git_commit": git_commit(),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "packages": {name: version(name) for name in PACKAGES},
        **found,
    }


def own_code(agent: str) -> dict[str, dict[str, str]]:
    """SHA-256 by file of the code of an agent that is named by import path, which no commit of ours tells."""
    files = files_of(agent_class(agent)) if is_import_path(agent) else []
    hashes = {path.name: sha256(path.read_bytes()).hexdigest() for path in files}
    return {AGENT_CODE: hashes} if hashes else {}


def git_commit() -> str | None:
    """The checkout's commit, with `-dirty` if files differ from it; None outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    described = subprocess.run(
        ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
        capture_output=True,
        text=True,
        check=False,
    )
    return described.stdout.strip() or None
