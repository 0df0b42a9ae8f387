"""Mirrors a run's records to Weights & Biases, which may raise, hang or be killed at no cost to training.

A record's place in the run is its W&B step, so that each becomes one row however often the run is resumed:
online, W&B says which rows it has; offline, what a killed process left of its session is thrown away and
sent again, because W&B writes to disk in large blocks.
"""

import json
import logging
import os
import re
import secrets
import shutil
import threading
import time
from pathlib import Path
from typing import Any

from common.config.schema import Config
from common.run.checkpoint import write_atomically
from common.run.records import Record

logger = logging.getLogger(__name__)

DELETE_SECONDS = 5


class WandbMirror:
    """One session of a W&B run, kept up by a thread of its own.

    `<folder>/mirrored.json` holds the W&B run's id, its finished offline sessions, and how many rows they
    hold together.

    Args:
        config: of the run; `wandb:` says where to.
        folder: the run folder, under which W&B keeps its files.
        patience: seconds that `finish` may take, and W&B's server to answer.
    """

    def __init__(self, config: Config, folder: Path, patience: float = 60) -> None:
        self._config = config
        self._folder = folder
        self._patience = patience
        self._rows: list[Record] = []
        self._changed = threading.Event()
        self._ended = False
        self._failed = config.wandb.mode == "disabled"
        self._thread = threading.Thread(target=self._work, name="wandb-mirror", daemon=True)
        if not self._failed:
            self._thread.start()

    def update(self, rows: list[Record]) -> None:
        """Let W&B have all `rows` of the run so far, each with its agent `step`; never waits.

        A value that is a path becomes the picture in that file.
        """
        self._rows = rows
        self._changed.set()

    def finish(self) -> None:
        """Send what is left and end the session, within `patience`."""
        if self._failed:
            return
        self._ended = True
        self._changed.set()
        self._thread.join(self._patience)
        if self._thread.is_alive():
            self._fail(f"it did not finish within {self._patience:g} s")

    def _work(self) -> None:
        try:
            self._mirror()
        except Exception as error:  # whatever W&B raises, training goes on
            self._fail(f"{type(error).__name__}: {error}")

    def _mirror(self) -> None:
        import wandb

        # Whoever started this process may use W&B too, and by this offer to share its helper process, which
        # would outlive a kill of this process and still hold the session when the run is resumed.
        os.environ.pop("WANDB_SERVICE", None)
        settings, path = self._config.wandb, self._folder / "mirrored.json"
        state = _read_state(path)
        _throw_away_unfinished(self._folder / "wandb", state)
        _write_state(path, state)  # the id that any later session takes up
        run = wandb.init(
            mode=settings.mode,
            project=settings.project,
            entity=settings.entity,
            group=settings.group or f"{self._config.task}/{self._config.agent}",
            name=settings.name or self._folder.name,
            id=state["id"],
            resume="allow",
            dir=self._folder,
            config=self._config.model_dump(mode="json"),
            # Signals and exit codes are the trainer's business.
            settings=wandb.Settings(
                console="off",
                silent=True,
                x_disable_stats=True,
                init_timeout=self._patience,
                finish_timeout=self._patience,
            ),
        )
        run.define_metric("step")
        run.define_metric("*", step_metric="step")
        sent = state["rows"] if run.offline else run.step
        session = [Path(run.dir).parent.name] if run.offline else []
        ended = False
        while not ended:
            self._changed.wait()
            self._changed.clear()
            ended = self._ended
            rows = self._rows
            for number in range(sent, len(rows)):
                run.log({name: _shown(value) for name, value in rows[number].items()}, step=number)
            sent = max(sent, len(rows))
        run.finish()
        _write_state(path, state | {"rows": sent, "sessions": state["sessions"] + session})

    def _fail(self, reason: str) -> None:
        if not self._failed:
            self._failed = True
            logger.warning("W&B mirroring stopped (%s); the run's own files are complete", reason)


def _shown(value: Any) -> Any:
    """A value as W&B takes it."""
    import wandb

    return wandb.Image(str(value)) if isinstance(value, Path) else value


def _read_state(path: Path) -> dict[str, Any]:
    """The content of mirrored.json; that of a run that W&B knows nothing of if it is absent or damaged."""
    try:
        state = json.loads(path.read_bytes())
        name, rows, sessions = state["id"], state["rows"], state["sessions"]
        # The name becomes part of a pattern of paths.
        if re.fullmatch("[0-9a-f]{8}", name) and type(rows) is int and rows >= 0:
            return {"id": name, "rows": rows, "sessions": [str(session) for session in sessions]}
    except (OSError, KeyError, RecursionError, TypeError, ValueError):
        pass
    return {"id": secrets.token_hex(4), "rows": 0, "sessions": []}


def _throw_away_unfinished(folder: Path, state: dict[str, Any]) -> None:
    """Delete the offline sessions of this W&B run that a kill cut short.

    W&B's own process outlives the killed one for a moment and may still write, so a session is tried until it
    is gone. Its rows go first: a folder without them counts for nothing.

    Raises:
        OSError: one cannot be deleted.
    """
    for session in folder.glob(f"offline-run-*-{state['id']}"):
        deadline = time.monotonic() + DELETE_SECONDS
        while session.name not in state["sessions"] and session.exists():
            for rows in session.glob("*.wandb"):
                rows.unlink(missing_ok=True)
            shutil.rmtree(session, ignore_errors=time.monotonic() < deadline)


def _write_state(path: Path, state: dict[str, Any]) -> None:
    write_atomically(path, json.dumps(state).encode())
