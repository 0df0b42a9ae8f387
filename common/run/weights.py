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
from common.rl.sac import learns
from common.run import checkpoint
from common.run.run_folder import refuse_links, sheet_of

FILE = "weights.pt"
RECORDS = ("provenance*.json", "metrics.jsonl", "eval.jsonl", "config-until-*.yaml", RESOLVED_NAME)
"""What `export` copies; last the file that makes the folder a run."""
FOLDERS = (("run", "dir"), ("data", "root"), ("data", "overlay"))
"""What names a folder in a configuration or in provenance.json. It means nothing on another machine."""


@dataclass(frozen=True)
class Weights:
    """The weights of a run's networks."""

    networks: dict[str, dict[str, Tensor]]
    step: int
    """Agent steps by which they were learnt."""
    source: Path

    def give_to(self, agent: Any) -> None:
        """Let an agent act, value and explain with them; its target networks stay as they are.

        Raises:
            CorruptFile: they are not those of such an agent.
        """
        with checkpoint.must_fit(self.source):
            for name, network in agent.networks.items():
                if learns(name):
                    network.load_state_dict(self.networks[name])


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
            f"{folder} has no checkpoint to {purpose} yet; smg train --resume {folder} goes on with training"
        )
    with checkpoint.must_fit(source):
        return Weights(state["agent"]["networks"], int(state["step"]), source)


def export(run: Path, folder: Path) -> None:
    """Copy a run without its checkpoint: records, the newest sheet and, in half precision, the weights.

    The copy names no folder of this machine: where the run lay and where its data were becomes null.

    Args:
        run: the run's folder, only read.
        folder: is made, and must not hold a run.

    Raises:
        UserError: there is no run to copy, or `folder` holds one already or cannot be written.
    """
    if not (run / RESOLVED_NAME).is_file():
        raise UserError(f"{run} is no run folder: it has no {RESOLVED_NAME}")
    if (folder / RESOLVED_NAME).exists():
        raise UserError(f"{folder} already holds a run; choose another folder")
    weights = read(run, "export")
    with checkpoint.must_fit(weights.source):
        networks = {
            name: {key: value.half() for key, value in state.items()}
            for name, state in weights.networks.items()
            if learns(name)
        }
    buffer = io.BytesIO()
    torch.save({"step": weights.step, "agent": {"networks": networks}}, buffer)
    sheet = sheet_of(run, weights.step)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if sheet.exists():
            (folder / "sheets").mkdir(exist_ok=True)
            shutil.copyfile(sheet, folder / "sheets" / sheet.name)
        checkpoint.write_atomically(folder / FILE, buffer.getbuffer())
        for pattern in RECORDS:
            for path in run.glob(pattern):
                checkpoint.write_atomically(folder / path.name, _portable(path))
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror})") from error


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
