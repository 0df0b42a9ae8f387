"""Loading a configuration: YAML files and overrides merged left to right, validated once.

`load` merges default.yaml, the agent's, the task's and the preset's file, the one beside an agent that is not
registered, then the user's files, then `key.sub=value` overrides into a frozen `Config`.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from common.config import yaml_files
from common.config.checks import validate, whole_run
from common.config.messages import Layer, merge
from common.config.registry import AGENTS, agent_class, files_of, is_import_path, registered_lineage
from common.config.schema import Config
from common.config.shifts import ROBOT_TASKS
from common.errors import UserError, did_you_mean

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
COMMAND_LINE = "command line"
RESOLVED_NAME = "config.yaml"


def load(
    agent: str | None = None,
    task: str | None = None,
    preset: str | None = None,
    files: Iterable[str | Path] = (),
    overrides: Sequence[str] = (),
    announce: Callable[[str], None] = lambda _: None,
) -> Config:
    """Merge the packaged files, the user's files and the overrides, left to right, and validate.

    Args:
        agent: registered name or `package.module:Class`; may also stand in a file or an override.
        task: such as walker_walk; likewise.
        preset: paper, laptop or smoke; likewise. Without one, paper with a GPU and laptop without.
        files: YAML files, as paths from here or as packaged names (configs/ablations/….yaml).
        overrides: `key.sub=value` texts, the value in YAML.
        announce: gets one line when the preset was chosen here.

    Raises:
        UserError: anything in them is unknown, of the wrong type or impossible; the message names the
            file, the key and the nearest valid key.
    """
    flags = {key: value for key, value in (("agent", agent), ("task", task), ("preset", preset)) if value}
    given = [_given_file(file) for file in files]
    given.append(Layer(COMMAND_LINE, flags, given=True))
    given += [_override(text) for text in overrides]

    agent = _chosen(given, "agent", AGENTS)
    task = _chosen(given, "task", packaged_names("tasks"))
    if not any("preset" in layer.values for layer in given):
        preset = _default_preset(given)
        where = "a GPU" if preset == "paper" else "the CPU"
        announce(f"preset: {preset}, for training on {where} (choose with --preset)")
        given.append(Layer(COMMAND_LINE, {"preset": preset}, given=True))
    preset = _chosen(given, "preset", packaged_names("presets"))

    agent_type = agent_class(agent)
    layers = [
        _packaged("default"),
        *(_packaged("agents", name) for name in registered_lineage(agent_type)),
        *_layers_for("tasks", task, agent_type),
        *_layers_for("presets", preset, agent_type),
        *_layers_beside(agent, agent_type),
        *given,
    ]
    return validate(*merge([_relevant(layer, agent, agent_type) for layer in layers]))


def load_run_config(
    run_folder: str | Path,
    overrides: Sequence[str] = (),
    allow_code: bool = False,
    name: str = RESOLVED_NAME,
) -> Config:
    """Read the resolved configuration that a run folder holds.

    Args:
        run_folder: the run's folder.
        overrides: `key.sub=value` texts on top, for paths that differ on this machine. With more
            `train.steps`, a replay that kept the whole run will do so again.
        allow_code: import an agent that the file names as `package.module:Class`. A run folder may come
            from a stranger, so this needs the user's word.
        name: the file to read, of those in the folder.

    Raises:
        UserError: there is no such file, it is not a complete configuration, or it needs `allow_code`.
    """
    path = Path(run_folder) / name
    if not path.is_file():
        raise UserError(f"{run_folder}: not a run folder (it has no {name})")
    stored = Layer(str(path), yaml_files.read_mapping(path), given=True)
    _capacity_follows_steps(stored.values)
    agent = _chosen([stored], "agent", AGENTS)
    _chosen([stored], "task", packaged_names("tasks"))
    if is_import_path(agent) and not allow_code:
        raise UserError(
            f"{path}: agent '{agent}' is code from outside this package; --allow-code (in Python "
            "allow_code=True) imports it"
        )
    _name_camera(stored.values)
    if not is_import_path(agent) and not agent_class(agent).AUGMENTS:
        stored.values["augmentation"] = None  # which was once taken, recorded and not applied
    stored.values.setdefault("threads", "auto")  # a run recorded before there was this key
    changes = [_override(text) for text in overrides]
    for key in ("agent", "task", "preset"):
        if any(key in change.values for change in changes):
            raise UserError(f"{COMMAND_LINE}: {key}: a run keeps the {key} it was trained with")
    layers = [stored, *changes]
    return validate(*merge([_relevant(layer, agent, agent_class(agent)) for layer in layers]))


def _name_camera(values: dict[str, Any]) -> None:
    """Write out the camera of a suite task's run recorded when null still meant the model's first."""
    env = values.get("env")
    if isinstance(env, dict) and env.get("camera", 0) is None and values["task"] not in ROBOT_TASKS:
        env["camera"] = 0


def _capacity_follows_steps(values: dict[str, Any]) -> None:
    """Turn a recorded capacity that keeps every step of the run back into the `auto` that it was."""
    with contextlib.suppress(KeyError, TypeError):  # validation says what is missing or of a wrong type
        if values["replay"]["capacity"] == whole_run(values):
            values["replay"]["capacity"] = "auto"


def to_yaml(config: Config) -> str:
    """The resolved configuration as YAML, which `load_run_config` reads back to an equal object."""
    return yaml_files.dump(to_values(config))


def to_values(config: Config) -> dict[str, Any]:
    """The resolved configuration as a YAML file has it."""
    values = config.model_dump(mode="json")
    settings = values.pop("settings")
    section = agent_class(config.agent).SECTION
    if section is not None:
        values[section] = settings
    return values


def packaged_names(kind: str) -> list[str]:
    """The names of the packaged files in configs/<kind>/, sorted."""
    return sorted(path.stem for path in (CONFIGS / kind).glob("*.yaml"))


def _packaged(*parts: str) -> Layer:
    path = CONFIGS.joinpath(*parts).with_suffix(".yaml")
    source = path.relative_to(CONFIGS.parent).as_posix()
    return Layer(source, yaml_files.read_mapping(path, source), given=False)


def _given_file(name: str | Path) -> Layer:
    path = Path(name)
    if path.parts[:1] == ("configs",) and not os.path.exists(path):
        path = CONFIGS.parent / path
    return Layer(str(name), yaml_files.read_mapping(path, str(name)), given=True)


def _override(text: str) -> Layer:
    key, equals, value = text.partition("=")
    names = key.split(".")
    if not equals or not all(names):
        raise UserError(f"{COMMAND_LINE}: '{text}' is not of the form key.sub=value")
    values: dict[str, Any] = yaml_files.typed(names[-1], value, f"{COMMAND_LINE}: {key}")
    for name in reversed(names[:-1]):
        values = {name: values}
    return Layer(COMMAND_LINE, values, given=True)


def _chosen(layers: list[Layer], key: str, known: Iterable[str]) -> str:
    """The last layer's value of one of the names that select further layers."""
    layer = next((layer for layer in reversed(layers) if key in layer.values), None)
    if layer is None:
        raise UserError(f"no {key} given: choose one with --{key} ({', '.join(known)})")
    name = layer.values[key]
    if isinstance(layer.values, yaml_files.Mapping):
        name = layer.values.written.get(key, name)
    if not isinstance(name, str):
        raise UserError(f"{layer.source}: {key}: should be a name, got {name!r}")
    if key == "agent" and is_import_path(name):
        return name
    if name not in known and not (key == "task" and name in _suite_tasks()):
        raise UserError(f"{layer.source}: unknown {key} '{name}'; {did_you_mean(name, known)}")
    return name


def _suite_tasks() -> list[str]:
    """Every task of the dm_control suite; those without a packaged file run with the defaults."""
    listing = "from dm_control import suite\nprint(*map('_'.join, suite.ALL_TASKS))"
    # dm_control settles for good on an OpenGL back end when it is imported; this is not the time.
    environment = os.environ | {"MUJOCO_GL": "disabled"}
    command = [sys.executable, "-c", listing]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()


def _default_preset(given: list[Layer]) -> str:
    device = next((layer.values["device"] for layer in reversed(given) if "device" in layer.values), "auto")
    if device == "auto":
        return "paper" if torch.cuda.is_available() else "laptop"
    return "paper" if str(device).startswith("cuda") else "laptop"


def _layers_beside(agent: str, agent_type: type[Any]) -> list[Layer]:
    """The YAML beside the module of an agent that is not registered, after those of its ancestors."""
    if not is_import_path(agent):
        return []
    beside = [path.with_suffix(".yaml") for path in files_of(agent_type)]
    return [_given_file(path) for path in beside if path.is_file()]


def _layers_for(kind: str, name: str, agent_type: type[Any]) -> list[Layer]:
    """The YAML of a task or preset, then what its `agents:` says for this agent alone."""
    if name not in packaged_names(kind):
        return []
    layer = _packaged(kind, name)
    for_agents = layer.values.pop("agents", {})
    special = [for_agents.get(name, {}) for name in registered_lineage(agent_type)]
    return [layer, *(Layer(layer.source, values, given=False) for values in special)]


def _relevant(layer: Layer, agent: str, agent_type: type[Any]) -> Layer:
    """Drop what the packaged files say for other agents; the same from the user is an error."""
    values = dict(layer.values)
    for section in AGENTS.keys() & values.keys() - {agent_type.SECTION} - Config.model_fields.keys():
        if layer.given:
            raise UserError(
                f"{layer.source}: section '{section}' is agent {section}'s, but this run's agent is {agent}"
            )
        del values[section]
    if not layer.given and isinstance(values.get("losses"), dict):
        values["losses"] = {k: v for k, v in values["losses"].items() if k in agent_type.LOSSES}
    return Layer(layer.source, values, layer.given)
