"""Numbered rows that are only ever appended, kept on disk as checksummed files of fixed size."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt

from common.errors import CorruptFile


class Chunk(BaseModel):
    """One file: the number of its first row, how many rows it holds, and its checksum."""

    # Lists of files come back from disks, and file names are made from them.
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
    first: NonNegativeInt
    count: PositiveInt
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]

    @property
    def end(self) -> int:
        """The number after the last row's."""
        return self.first + self.count


def save_rows(
    folder: Path,
    kind: str,
    span: tuple[int, int],
    rows_per_chunk: int,
    read: Callable[[int, int], np.ndarray],
    known: list[Chunk],
) -> list[Chunk]:
    """Write the rows numbered span[0] to span[1], the latter excluded, and list the files that hold them.

    Files begin at multiples of `rows_per_chunk`, so one that is full never changes: those that `known`
    lists are kept, and only what is new is written, with the last unfinished file.

    Args:
        read: gives the rows between two numbers as uint8 (rows, bytes per row).
        known: the list that the previous call for this folder returned, else an empty one.

    Raises:
        OSError: the disk is full or cannot be written. No file that `known` lists has been touched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    by_end = {chunk.end: chunk for chunk in known}
    chunks = []
    first, last = span
    while first < last:
        end = min((first // rows_per_chunk + 1) * rows_per_chunk, last)
        chunk = by_end.get(end)
        # A file that is there may begin with rows that are no longer wanted.
        if chunk is None:
            content = np.ascontiguousarray(read(first, end))
            chunk = Chunk(first=first, count=end - first, sha256=hashlib.sha256(content.data).hexdigest())
            _write_file(folder / _file_name(kind, chunk), content)
        chunks.append(chunk)
        first = end
    _sync_folder(folder)
    return chunks


def load_rows(
    folder: Path, kind: str, chunks: list[Chunk], span: tuple[int, int], row_bytes: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (number of the first row, uint8 rows) file by file, checked, from span[0] to span[1].

    Raises:
        CorruptFile: a file is missing, truncated, altered or another one, or they do not fill the span.
    """
    expected = span[0]
    for chunk in chunks:
        path = folder / _file_name(kind, chunk)
        if not chunk.first <= expected < chunk.end <= span[1]:
            raise CorruptFile(
                f"the list of saved {kind} in {folder} is damaged: number {expected} is missing"
            )
        try:
            whole = path.stat().st_size == chunk.count * row_bytes
            content = path.read_bytes() if whole else b""
        except OSError as error:
            raise CorruptFile(f"saved {kind} {path} cannot be read ({error.strerror})") from error
        if not whole or hashlib.sha256(content).hexdigest() != chunk.sha256:
            raise CorruptFile(f"saved {kind} {path} is damaged: it is not what was saved")
        rows = np.frombuffer(content, dtype=np.uint8).reshape(chunk.count, row_bytes)
        yield expected, rows[expected - chunk.first :].copy()
        expected = chunk.end
    if expected != span[1]:
        raise CorruptFile(f"the list of saved {kind} in {folder} is damaged: number {expected} is missing")


def prune(folder: Path, kind: str, keep: Iterable[Chunk]) -> None:
    """Delete the files of `kind` in `folder` that `keep` does not list, and leftovers of broken saves."""
    names = {_file_name(kind, chunk) for chunk in keep}
    for path in folder.glob(f"{kind}-*"):
        if path.suffix in (".chunk", ".partial") and path.name not in names:
            path.unlink()


def _file_name(kind: str, chunk: Chunk) -> str:
    # Named by content, so that a file an older list relies on is never overwritten with other rows.
    return f"{kind}-{chunk.first:010d}-{chunk.sha256[:16]}.chunk"


def _write_file(path: Path, content: np.ndarray) -> None:
    """Write so that `path` is either absent or whole, whatever happens meanwhile."""
    partial = path.with_suffix(".partial")
    try:
        with partial.open("wb") as file:
            file.write(content.data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
