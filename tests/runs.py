"""Small real runs for tests: real environments, real agents, a few seconds."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from common.config.loading import load
from common.config.schema import Config
from common.explain.sheet import Sheet
from common.run.records import read_json_lines
from common.run.train import train

WALL_CLOCK = ("seconds", "time/")
"""Metrics that differ from run to run."""


class Still:
    """A policy that does nothing, in all of its `action_size` values."""

    device = torch.device("cpu")

    def __init__(self, action_size: int) -> None:
        self.action_size = action_size

    def act(self, obs: torch.Tensor, sample: bool) -> torch.Tensor:
        """Zeros for every observation."""
        return torch.zeros(len(obs), self.action_size)


def smoke(folder: Path, agent: str = "sac", *overrides: str, task: str = "walker_walk") -> Config:
    """A configuration of seconds that trains into `folder`, without W&B unless asked."""
    return load(
        agent,
        task,
        "smoke",
        overrides=[f"run.dir={json.dumps(str(folder))}", "wandb.mode=disabled", "device=cpu", *overrides],
    )


def run(folder: Path, agent: str = "sac", *overrides: str, task: str = "walker_walk") -> Path:
    """Train such a configuration to its end."""
    assert train(smoke(folder, agent, *overrides, task=task), make_sheet=Sheet) == 0
    return folder


def metrics(folder: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what the wall clock decides."""
    return [
        {name: value for name, value in record.items() if not name.startswith(WALL_CLOCK)}
        for record in read_json_lines(folder / "metrics.jsonl")
    ]


def evaluations(folder: Path) -> list[dict[str, Any]]:
    """eval.jsonl."""
    return read_json_lines(folder / "eval.jsonl")


def wandb_history(file: Path) -> list[dict[str, float]]:
    """The metrics that an offline W&B file holds, a dict per logged row."""
    from wandb.proto import wandb_internal_pb2  # pyright: ignore  # not on every machine with a GPU

    history = []
    for data in _leveldb_records(file.read_bytes()[7:]):
        record = wandb_internal_pb2.Record()  # pyright: ignore[reportAttributeAccessIssue]
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            history.append(
                {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}
            )
    return history


def _leveldb_records(log: bytes, header: int = 7) -> Iterator[bytes]:
    """Records of a LevelDB log without its file header: 32 kB blocks of (checksum, length, kind, data)."""
    record, position = b"", 0
    while position + 7 <= len(log):
        left_in_block = 32768 - (position + header) % 32768
        if left_in_block < 7:
            position += left_in_block
            continue
        length, kind = int.from_bytes(log[position + 4 : position + 6], "little"), log[position + 6]
        record += log[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a full record, or the last part of one
            yield record
            record = b""
