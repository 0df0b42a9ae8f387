"""What a run records: JSON lines on disk, mirrored to Weights & Biases.

The files are the record; everything downstream reads them. A mirror that raises or hangs costs a
warning, never the training.
"""

import contextlib
import json
import logging
import os
import queue
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType, UnionType
from typing import Any, Self

from common.errors import CorruptFile, UserError

logger = logging.getLogger(__name__)

Record = dict[str, Any]


class JsonLines:
    """A file of one JSON object per line that survives being cut anywhere.

    Opening creates the file if it is absent, and repairs a half-written last line by removing it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # Unbuffered: what a full disk refuses must not come up again when the file is closed.
        self._file = path.open("ab", buffering=0)
        self.offset = 0
        self.cut(_complete_length(path.read_bytes()))

    def cut(self, offset: int) -> None:
        """Forget what was written after the first `offset` bytes."""
        self._file.truncate(offset)
        self.offset = offset

    def write(self, record: Record) -> None:
        """Append one record and hand it to the operating system, so that a kill cannot lose it.

        Raises:
            UserError: the disk is full or fails.
        """
        line = json.dumps(record).encode() + b"\n"
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be written ({error.strerror}): make room, then continue with "
                f"--resume {self.path.parent}"
            ) from error
        self.offset += len(line)

    def sync(self) -> None:
        """Return once everything written is on the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file; nothing is buffered."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_json_lines(path: Path, fields: Mapping[str, type | UnionType] = {}) -> list[Record]:
    """Every complete record of a JSON-lines file; an absent file has none.

    Args:
        path: the file.
        fields: names that each record must have, with the types of their values.

    Raises:
        CorruptFile: a complete line is not a JSON object with these fields.
    """
    if not path.exists():
        return []
    content = path.read_bytes()
    records = []
    for number, line in enumerate(content[: _complete_length(content)].split(b"\n")[:-1], 1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise CorruptFile(f"{path}: line {number} is not JSON ({error})") from error
        if not isinstance(record, dict):
            raise CorruptFile(f"{path}: line {number} is not a JSON object")
        for name, kind in fields.items():
            if not isinstance(record.get(name), kind):
                raise CorruptFile(f"{path}: line {number} has no proper '{name}'")
        records.append(record)
    return records


def _complete_length(content: bytes) -> int:
    """Bytes up to and including the last newline."""
    return content.rfind(b"\n") + 1


class Mirror:
    """Sends records to a W&B run from a thread of its own.

    Args:
        settings: the `wandb:` section (mode, project, entity, group, name).
        folder: the run folder, under which W&B keeps its files.
        run_id: W&B's id of the run; resuming with the same id continues it.
        config: the resolved configuration as plain values, shown by W&B.
        patience: seconds that starting and finishing may each take.
    """

    def __init__(
        self, settings: Any, folder: Path, run_id: str, config: Record, patience: float = 60
    ) -> None:
        self._patience = patience
        self._queue: queue.Queue[Record | None] = queue.Queue(maxsize=10_000)
        self._failed = settings.mode == "disabled"
        if self._failed:
            return
        self._thread = threading.Thread(
            target=self._work, args=(settings, folder, run_id, config), name="wandb-mirror", daemon=True
        )
        self._thread.start()

    def log(self, record: Record) -> None:
        """Queue a record, whose `step` becomes W&B's; never waits."""
        if self._failed:
            return
        try:
            self._queue.put_nowait(record)
        except queue.Full:
            self._fail("it stopped taking records")

    def finish(self) -> None:
        """Send what is queued and end the W&B run, within `patience`."""
        if self._failed:
            return
        # A full queue means a hung mirror: the join below times out and says so.
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait(None)
        self._thread.join(self._patience)
        if self._thread.is_alive():
            self._fail(f"it did not finish within {self._patience:g} s")

    def _work(self, settings: Any, folder: Path, run_id: str, config: Record) -> None:
        try:
            import wandb

            run = wandb.init(
                mode=settings.mode,
                project=settings.project,
                entity=settings.entity,
                group=settings.group,
                name=settings.name or folder.name,
                id=run_id,
                resume="allow",
                dir=folder,
                config=config,
                # Signals and exit codes are the trainer's business.
                settings=wandb.Settings(console="off", silent=True, x_disable_stats=True),
            )
            run.define_metric("step")
            run.define_metric("*", step_metric="step")
            while (record := self._queue.get()) is not None:
                run.log(record)
            run.finish()
        except Exception as error:  # whatever W&B raises, training goes on
            self._fail(f"{type(error).__name__}: {error}")

    def _fail(self, reason: str) -> None:
        if not self._failed:
            self._failed = True
            logger.warning("W&B mirroring stopped (%s); the run's own files are complete", reason)
