"""What the run folder of a planned run says: whether it is done, what it returned, and why not."""

import fcntl
import itertools
import json
import math
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from common.config.loading import RESOLVED_NAME, load_run_config
from common.config.schema import COMPUTING, Config
from common.config.yaml_files import flattened
from common.errors import CorruptFile, UserError
from common.run.checkpoint import LATEST, read_manifest
from common.run.records import Record, progress, read_json_lines
from common.run.run_folder import EPISODE, PROVENANCE, earlier_settings, kept_before
from common.run.shares import set_by_hand, shares
from common.run.signals import STATUS
from common.study.definition import PlannedRun

CLAIM, TRAINING = ".claim", ".lock"
"""Locked by a study's attempt, and by `smg train` itself."""
ATTEMPTS, LOG = "attempts.jsonl", "train.log"
LARGEST = 1e12
"""No return is as large; sums of such values stay finite."""
STOPPED = {*STATUS.values(), *(-number for number in STATUS)}
"""Statuses of `smg train` after it was asked to stop: saved, or with nothing to save as it had just begun."""


class State(StrEnum):
    """The state of a planned run."""

    DONE = "done"
    RUNNING = "running"
    UNFINISHED = "unfinished"
    FAILED = "failed"
    CORRUPT = "corrupt"
    MISSING = "missing"


@dataclass(frozen=True)
class FoundRun:
    """A planned run and what its folder holds.

    `episodes` are the records of eval.jsonl; those of the last evaluation are complete if the run is done.
    `earlier` are the provenances of sessions before the last, in order, empty where one cannot be read;
    `earlier_settings` the configurations before the last, or why they cannot be read, by when they were.
    """

    run: PlannedRun
    state: State
    detail: str = ""
    step: int = 0
    seconds: float | None = None
    config: Config | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    earlier: tuple[dict[str, Any], ...] = ()
    earlier_settings: Mapping[str, Config | str] = field(default_factory=dict)
    episodes: tuple[Record, ...] = ()

    @property
    def sessions(self) -> list[dict[str, Any]]:
        """The provenance of each session in order, once for those in a row that had the same."""
        return [*self.earlier, self.provenance]

    @property
    def final_episodes(self) -> list[Record]:
        """The records of the last evaluation."""
        return [record for record in self.episodes if record["step"] == self.episodes[-1]["step"]]

    def final_returns(self, shift: str) -> tuple[float, ...]:
        """Returns of the last evaluation under a shift, by episode."""
        last = self.final_episodes
        chosen = sorted((r for r in last if r["shift"] == shift), key=lambda record: record["episode"])
        return tuple(float(record["return"]) for record in chosen)

    def evaluations(self, shift: str) -> list[tuple[int, float]]:
        """(agent step, mean return) of every complete evaluation under a shift."""
        returns: dict[int, list[float]] = {}
        for record in self.episodes:
            if record["shift"] == shift:
                returns.setdefault(record["step"], []).append(record["return"])
        # Only the last can have been cut short.
        if self.state is not State.DONE and self.config is not None and returns:
            last = max(returns)
            if len(returns[last]) < self.config.eval.episodes:
                del returns[last]
        return [(step, math.fsum(values) / len(values)) for step, values in sorted(returns.items())]


class _Corrupt(Exception):
    pass


def read(run: PlannedRun, claimed: bool = False) -> FoundRun:
    """Read a run's folder; damage is part of the answer, never an exception.

    `claimed`: this process holds the run's claim, so nobody else is at work on it.
    """
    held = not claimed and is_held(run.folder)
    failure = _last_failure(run.folder)
    if not (run.folder / RESOLVED_NAME).exists():
        if held:
            return FoundRun(run, State.RUNNING, "starting")
        return FoundRun(run, State.FAILED if failure else State.MISSING, failure)
    try:
        config = load_run_config(run.folder, allow_code=run.foreign_code)
        _check_identity(run, config)
        provenance = _provenance(run.folder / PROVENANCE)
        episodes = tuple(_episodes(run.folder, config.seed + config.eval.seed_offset))
        missing = _lacking(config, episodes)
        saved = _saved_step(run.folder)
    except (UserError, _Corrupt) as error:
        return FoundRun(run, State.RUNNING if held else State.CORRUPT, str(error))
    step, seconds = progress(run.folder)
    evaluated = episodes[-1]["step"] if episodes else 0  # archived results may come without metrics
    facts: dict[str, Any] = {
        "step": max(step, saved or 0, evaluated), "seconds": seconds, "config": config,
        "provenance": provenance, "earlier": tuple(_earlier(run.folder)),
        "earlier_settings": earlier_settings(run.folder, config), "episodes": episodes,
    }  # fmt: skip
    reached = f"step {facts['step']} of {config.train.steps}"
    if held:
        return FoundRun(run, State.RUNNING, reached, **facts)
    # Archived results come without checkpoints; otherwise the last one holds the trained weights.
    if not missing and saved in (None, config.train.steps):
        return FoundRun(run, State.DONE, **facts)
    if failure:
        return FoundRun(run, State.FAILED, f"{failure} ({reached})", **facts)
    return FoundRun(run, State.UNFINISHED, missing or reached, **facts)


def is_held(folder: Path) -> bool:
    """Whether a study or `smg train` is at work on the run, wherever the file system's locks reach."""
    return locked(folder / CLAIM) or locked(folder / TRAINING)


def locked(path: Path) -> bool:
    """Whether a process holds an exclusive lock on a file."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return False


def differences(one: Config, other: Config) -> Iterator[tuple[str, Any, Any]]:
    """Keys, other than the seed, whose values change what is learnt or measured; `auto` equals anything."""
    left, right = _learning(one), _learning(other)
    for key in dict.fromkeys((*left, *right)):
        a, b = left.get(key), right.get(key)
        if a != b and "auto" not in (a, b):
            yield key, a, b


def from_plan(found: FoundRun) -> Iterator[tuple[str, Any, Any]]:
    """Keys in which a run differs from the planned one, with the planned value and its own."""
    assert found.config is not None
    yield from differences(found.run.config, found.config)
    planned = shares(found.run.config)
    for name, value in set_by_hand(found.config, found.provenance).items():
        if planned.get(name) == "auto":
            yield f"settings.{name}", "auto", value


# Where and how fast a run computes, not what. Images and clips are compared by the hashes in the provenance.
_INDIFFERENT = (*COMPUTING, "seed", "checkpoint.every")
_COMPARED_BY_CONTENT = ("data.root", "data.overlay")


def _learning(config: Config) -> dict[str, Any]:
    values = config.model_dump(mode="json")
    return {
        key: value
        for key, value in flattened(values)
        if not key.startswith(_INDIFFERENT) and key not in _COMPARED_BY_CONTENT
    }


def _check_identity(run: PlannedRun, config: Config) -> None:
    """Raise _Corrupt if the folder holds the run of another cell or seed, copied or moved here."""
    for key in ("task", "agent", "seed"):
        planned, found = getattr(run.config, key), getattr(config, key)
        if planned != found:
            raise _Corrupt(f"holds another run: its {key} is {found}, not {planned}")


def _provenance(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise _Corrupt(f"{path.name} cannot be read ({error})") from error
    if not isinstance(found, dict):
        raise _Corrupt(f"{path.name} is not a JSON object")
    try:
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise _Corrupt(f"{path.name} holds what is no text ({error.reason})") from error
    return found


def _earlier(folder: Path) -> Iterator[dict[str, Any]]:
    for path in kept_before(folder, PROVENANCE):
        try:
            yield _provenance(path)
        except _Corrupt:
            yield {}


def _episodes(folder: Path, seed: int) -> list[Record]:
    """The records of eval.jsonl, each checked; `seed` is that of the run's evaluations.

    Raises:
        _Corrupt: a line is no evaluation episode of this run, or an episode appears twice.
    """
    try:
        records = read_json_lines(folder / "eval.jsonl", EPISODE | {"episode": int})
    except (OSError, ValueError, RecursionError) as error:
        raise _Corrupt(f"eval.jsonl cannot be read ({error})") from error
    seen = set()
    for number, record in enumerate(records, 1):
        step, shift, episode = record["step"], record["shift"], record["episode"]
        # Compared, for an integer of JSON may be too large for a float.
        if not -LARGEST < record["return"] < LARGEST:
            raise _Corrupt(f"eval.jsonl, line {number}: its return is not finite")
        if record.get("seed", seed) != seed:
            raise _Corrupt(
                f"eval.jsonl, line {number}: an episode of evaluation seed {record['seed']}, not {seed}"
            )
        if (step, shift, episode) in seen:
            raise _Corrupt(
                f"eval.jsonl, line {number}: episode {episode} under {shift} at step {step} appears twice"
            )
        seen.add((step, shift, episode))
    if any(one["step"] > other["step"] for one, other in itertools.pairwise(records)):
        raise _Corrupt("eval.jsonl: steps go backwards")
    return records


def _lacking(config: Config, episodes: tuple[Record, ...]) -> str:
    """What the final evaluation still lacks, in words; empty if nothing."""
    if not episodes:
        return "no evaluation yet"
    step = episodes[-1]["step"]
    if step != config.train.steps:
        return f"last evaluated at step {step} of {config.train.steps}"
    for shift in config.eval.shifts:
        found = {
            record["episode"] for record in episodes if record["step"] == step and record["shift"] == shift
        }
        if found != set(range(config.eval.episodes)):
            return f"final evaluation has {len(found)} of {config.eval.episodes} episodes under {shift}"
    return ""


def _saved_step(folder: Path) -> int | None:
    """The newest checkpoint's step; None for an archived run, which has no checkpoint folder."""
    checkpoint = folder / "checkpoint"
    if not checkpoint.is_dir():
        return None
    if not (checkpoint / LATEST).exists():
        return 0
    try:
        return read_manifest(checkpoint / LATEST)["step"]
    except CorruptFile:
        return 0  # resuming takes up the checkpoint before


def _last_failure(folder: Path) -> str:
    """Why the last attempt ended, if it failed, as `common.study.attempt` recorded it."""
    try:
        attempts = read_json_lines(folder / ATTEMPTS)
        status = attempts[-1]["status"] if attempts else 0
    except (OSError, UserError, ValueError, RecursionError, KeyError, TypeError):
        return ""  # a damaged record of attempts says nothing about the run
    if status in (0, *STOPPED) or not isinstance(status, int):
        return ""
    return f"{status_text(status)}: {_last_words(folder)}"


def status_text(status: int) -> str:
    """A process's end in words."""
    if status >= 0:
        return f"exit status {status}"
    known = {member.value for member in signal.Signals}
    return f"killed by {signal.Signals(-status).name if -status in known else f'signal {-status}'}"


def _last_words(folder: Path) -> str:
    """The log's last line, where an error message stands."""
    try:
        text = (folder / LOG).read_bytes()[-4000:].decode("utf-8", "replace")
    except OSError:
        return "no log"
    lines = [line.strip() for line in text.replace("\r", "\n").split("\n") if line.strip()]
    return lines[-1][:300] if lines else "its log is empty"
