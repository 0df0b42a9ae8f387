"""What a run records: JSON lines on disk, which everything downstream reads."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType, UnionType
from typing import Any, Self

from common.errors import CorruptFile, UserError

METRICS = "metrics.jsonl"

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
                f"{self.path} cannot be written ({error.strerror}): make room, then give the command again"
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


def diverged_among(episodes: Iterable[Record]) -> int:
    """How many evaluation episodes the simulation itself ended."""
    return sum(record.get("diverged") is True for record in episodes)


def _complete_length(content: bytes) -> int:
    """Bytes up to and including the last newline."""
    return content.rfind(b"\n") + 1


def progress(folder: Path) -> tuple[int, float | None]:
    """Agent step and seconds of the newest line of metrics.jsonl that has them; cheap, for polling."""
    try:
        with (folder / METRICS).open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 20_000))
            lines = file.read().split(b"\n")[:-1]
    except OSError:
        return 0, None
    for line in reversed(lines):
        try:
            record = json.loads(line)
            return int(record["step"]), float(record["seconds"])
        except (ValueError, RecursionError, LookupError, TypeError, OverflowError):
            continue  # an episode's line, or damage
    return 0, None
