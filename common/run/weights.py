"""What a run has learnt, apart from all that only training needs: small enough to keep and to pass on."""

import io
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.config.loading import RESOLVED_NAME, yaml_files
from common.errors import UserError
from common.rl.sac import SAC
from common.run import checkpoint
from common.run.records import METRICS, progress, read_json_lines
from common.run.run_folder import EPISODE, EVALUATIONS, refuse_links, sheet_of

FILE = "weights.pt"
SCORES = ("provenance*.json", EVALUATIONS, "config-until-*.yaml", RESOLVED_NAME)
"""What tables are made of, but for the time; last the file that makes the folder a run."""
TIMES = ("step", "seconds")
"""All that an export of scores keeps of the metrics: the newest of both."""
RECORDS = (METRICS, *SCORES)
"""What `export` copies beside the weights and the newest sheet."""
FOLDERS = (("run", "dir"), ("data", "root"), ("data", "overlay"))
"""What names a folder in a configuration or in provenance.json. It means nothing on another machine."""


@dataclass(frozen=True)
class Weights:
    """The weights that a run has learnt."""

    tensors: dict[str, Tensor]
    """By the agent's name for them, with its buffers. Of an export SAC's `target` is not among them."""
    step: int
    """Agent steps by which they were learnt."""
    source: Path

    def give_to(self, agent: SAC) -> None:
        """Let an agent act, value and explain with them; what they lack of frozen networks stays as it is.

        Raises:
            CorruptFile: they are not those of such an agent.
        """
        with checkpoint.must_fit(self.source):
            loaded = agent.load_state_dict(self.tensors, strict=False)
            # What earlier versions exported lacks the temperature, which only training needs.
            lacking = learnt_names(agent).intersection(loaded.missing_keys) - {"log_alpha"}
            if lacking or loaded.unexpected_keys:
                raise KeyError(f"{', '.join([*lacking, *loaded.unexpected_keys][:3])} in one of the two only")


def read(folder: Path, purpose: str) -> Weights:
    """The newest weights in a run folder: of its checkpoint, or else those that `export` left.

    Args:
        folder: only read.
        purpose: what they are wanted for, for the message.

    Raises:
        UserError: the folder holds no weights, or leads out of itself.
        CorruptFile: they cannot be read.
    """
    refuse_links(folder)
    source = folder / "checkpoint"
    if checkpoint.exists(source):
        state, _ = checkpoint.load(source, None)
    elif (folder / FILE).exists():
        source = folder / FILE
        state = checkpoint.load_tensors(source)
    else:
        raise UserError(
            f"{folder} has neither a checkpoint nor weights to {purpose}. Training that broke off goes on "
            f"with smg train --resume {folder}; of an export with --scores, take the run itself"
        )
    with checkpoint.must_fit(source):
        return Weights(tensors_of(state["agent"]), int(state["step"]), source)


def tensors_of(state: dict[str, Any]) -> dict[str, Tensor]:
    """The weights and buffers in an agent's state, without what its optimisers remember.

    Runs recorded by earlier versions hold a mapping per network, under `networks`.
    """
    if "networks" in state:
        state = {
            f"{name}.{key}": value for name, part in state["networks"].items() for key, value in part.items()
        }
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def learnt_names(agent: SAC) -> set[str]:
    """The names of an agent's weights that are not frozen."""
    return {name for name, weight in agent.named_parameters() if weight.requires_grad}


def export(run: Path, folder: Path, scores_only: bool = False) -> None:
    """Copy a run without its checkpoint: records, the newest sheet and, in half precision, the weights.

    The copy names no folder of this machine: where the run lay and where its data were becomes null.

    Args:
        run: the run's folder, only read.
        folder: is made, and must not hold a run.
        scores_only: copy no more than tables are made of, some 20 kB; needs no weights.

    Raises:
        UserError: there is no run to copy, or `folder` holds one already or cannot be written.
    """
    if not (run / RESOLVED_NAME).is_file():
        raise UserError(f"{run} is no run folder: it has no {RESOLVED_NAME}")
    if (folder / RESOLVED_NAME).exists():
        raise UserError(f"{folder} already holds a run; choose another folder")
    if scores_only and not read_json_lines(run / EVALUATIONS, EPISODE):
        raise UserError(f"{run} has no scores yet: {EVALUATIONS} has no episode")
    weights = None if scores_only else read(run, "export")
    try:
        if weights is not None:
            _write_learnt(weights, sheet_of(run, weights.step), folder)
        folder.mkdir(parents=True, exist_ok=True)
        step, seconds = progress(run)
        if scores_only and seconds is not None:  # of the metrics, what the run took
            line = json.dumps(dict(zip(TIMES, (step, seconds), strict=True))) + "\n"
            checkpoint.write_atomically(folder / METRICS, line.encode())
        for pattern in SCORES if scores_only else RECORDS:
            for path in run.glob(pattern):
                checkpoint.write_atomically(folder / path.name, _portable(path))
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror})") from error


def _write_learnt(weights: Weights, sheet: Path, folder: Path) -> None:
    """Write the weights in half precision, and copy the sheet if there is one."""
    with checkpoint.must_fit(weights.source):
        # SAC's target critic is as large as the critic, and only training needs it.
        kept = {name: value for name, value in weights.tensors.items() if not name.startswith("target.")}
        halves = {name: halved(value) for name, value in kept.items()}
    buffer = io.BytesIO()
    torch.save({"step": weights.step, "agent": halves}, buffer)
    folder.mkdir(parents=True, exist_ok=True)
    if sheet.exists():
        (folder / "sheets").mkdir(exist_ok=True)
        shutil.copyfile(sheet, folder / "sheets" / sheet.name)
    checkpoint.write_atomically(folder / FILE, buffer.getbuffer())


def halved(value: Tensor) -> Tensor:
    """A tensor in half precision, or itself if that cannot hold it: a counter, or numbers above 65,504."""
    half = value.half() if value.is_floating_point() else value
    return half if torch.equal(half.isfinite(), value.isfinite()) else value


def scores_of(folder: Path) -> int | None:
    """The step of the last evaluation in a folder of exported scores; None if it is no such folder.

    Raises:
        CorruptFile: a record in it is damaged.
    """
    trained = any(line.keys() - TIMES for line in read_json_lines(folder / METRICS))
    episodes = read_json_lines(folder / EVALUATIONS, EPISODE)
    return episodes[-1]["step"] if episodes and not trained else None


def _portable(record: Path) -> bytes:
    """A record's content, its FOLDERS null.

    Raises:
        UserError: it cannot be read.
    """
    content = record.read_bytes()
    if record.suffix == ".jsonl":
        return content
    if record.suffix == ".yaml":
        return yaml_files.dump(_without_folders(yaml_files.read_mapping(record))).encode()
    try:
        return json.dumps(_without_folders(json.loads(content)), indent=1).encode()
    except (ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"{record} cannot be read ({error}): put a copy in its place") from error


def _without_folders(values: dict[str, Any]) -> dict[str, Any]:
    for section, name in FOLDERS:
        found = values.get(section)
        if isinstance(found, dict) and name in found:
            found[name] = None
    return values
