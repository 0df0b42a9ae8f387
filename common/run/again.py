"""Saying `smg train` again: what a run that is there already goes on with, and whether it has ended."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from common.config import yaml_files
from common.config.loading import RESOLVED_NAME, load_run_config, to_values
from common.config.schema import COMPUTING, Config
from common.errors import UserError
from common.run import checkpoint, weights
from common.run.data_sources import folders

FREE = (*COMPUTING, "eval.sheet", "checkpoint.")
"""Keys that say where, how fast and how safely a run computes, not what it learns. They may change."""


def is_run(folder: Path) -> bool:
    """Whether a run was begun in a folder."""
    return (folder / RESOLVED_NAME).is_file()


def taken_up(config: Config, folder: Path) -> Config:
    """The configuration with which the run in `folder` goes on when a command asks for it again.

    It is the command's, with what was decided for the run where the command says `auto`. It may ask for more
    `train.steps`.

    Args:
        config: what the command says.
        folder: holds a run.

    Raises:
        UserError: the command says something else than the one that began the run, or the run cannot be read.
    """
    values = yaml_files.read_mapping(folder / RESOLVED_NAME)
    # The agent's module is imported only if it is the one that the command names.
    if values.get("agent") != config.agent:
        raise _other(folder, [f"agent is {values.get('agent')!r}, not {config.agent!r}"])
    # The same files may lie in another folder than before: what is in them is compared when the run goes on.
    moved = folders(config)
    steps = load_run_config(folder, moved, allow_code=True).train.steps
    longer = f"train.steps={max(steps, config.train.steps)}"
    recorded = load_run_config(folder, [*moved, longer], allow_code=True)
    config = _decided(config, recorded)
    changed = [f"{key} is {there!r}, not {here!r}" for key, here, there in _changes(config, recorded)]
    if changed:
        raise _other(folder, changed)
    return config


def _other(folder: Path, changed: list[str]) -> UserError:
    more = f" and {len(changed) - 3} more keys" if len(changed) > 3 else ""
    return UserError(
        f"{folder} holds a run with other settings ({'; '.join(changed[:3])}{more}): give another run.dir or "
        f"run.name, or let that run go on as it is with --resume {folder}"
    )


def _decided(value: Any, recorded: Any) -> Any:
    """A section or value with what was recorded for each `auto`."""
    if value == "auto":
        return recorded
    if isinstance(value, BaseModel) and isinstance(recorded, BaseModel):
        names = type(value).model_fields
        return value.model_copy(
            update={name: _decided(getattr(value, name), getattr(recorded, name)) for name in names}
        )
    return value


def _changes(config: Config, recorded: Config) -> Iterator[tuple[str, Any, Any]]:
    """The differences that matter for what is learnt."""
    yield from (found for found in differences(config, recorded) if not found[0].startswith(FREE))


def differences(one: Config, other: Config) -> Iterator[tuple[str, Any, Any]]:
    """Dotted keys whose values differ, with both values."""
    yield from _differences(to_values(one), to_values(other), "")


def _differences(one: Any, other: Any, key: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(one, dict) and isinstance(other, dict):
        for name in dict.fromkeys((*one, *other)):
            yield from _differences(one.get(name), other.get(name), f"{key}.{name}".lstrip("."))
    elif one != other:
        yield key, one, other


def refuse_changes(folder: Path, config: Config) -> None:
    """Raise UserError if `config` differs from what the ended run in `folder` learnt and was evaluated with.

    Where its data lie on this machine may differ, as may what is `FREE`.
    """
    recorded = load_run_config(folder, folders(config), allow_code=True)  # the agent's is imported already
    keys = [key for key, *_ in _changes(config, recorded)]
    if keys:
        raise UserError(
            f"{folder} has ended at step {config.train.steps}, so that {', '.join(keys)} would change "
            f"nothing: go on with more train.steps, evaluate it with `smg eval {folder}`, or give another "
            "run.dir"
        )


def has_ended(folder: Path, config: Config) -> bool:
    """Whether the run in `folder` has reached the last step of `config`, and everything that belongs to it.

    Raises:
        UserError: it is further than that, or lacks the checkpoint that it would need to go on.
        CorruptFile: its checkpoint cannot be read.
    """
    source, steps = folder / "checkpoint", config.train.steps
    exported = not checkpoint.exists(source)
    if not exported:
        state, _ = checkpoint.load(source, None)
    elif (folder / weights.FILE).exists():
        source = folder / weights.FILE
        state = checkpoint.load_tensors(source)
    elif (evaluated := weights.scores_of(folder)) is not None:
        state = {"step": evaluated}
    else:
        return False
    with checkpoint.must_fit(source):
        step = int(state["step"])
    if step > steps:
        raise UserError(f"{folder} has learnt for {step} agent steps already, more than train.steps={steps}")
    if exported and step < steps:
        raise UserError(
            f"{folder} was exported at step {step}, without the checkpoint that going on to "
            f"train.steps={steps} needs: give another run.dir"
        )
    return exported or (state.get("finished") is True and step == steps)
