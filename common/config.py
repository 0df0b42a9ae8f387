"""The configuration of a run: YAML files and overrides merged left to right, validated once.

`load` merges default.yaml, the agent's, the task's and the preset's file, then the user's files, then
`key.sub=value` overrides into a frozen `Config`. configs/default.yaml documents every key. A section
of an agent's own (`smg:`, `sgqn:`) is typed by the agent class and found in `Config.settings`.
"""

import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
)

from common import yaml_files
from common.envs.shifts import expand, shifts_of
from common.errors import UserError, did_you_mean
from common.networks import trunk_resolution
from common.registry import AGENTS, agent_class, is_import_path, registered_ancestor
from common.validation import (
    Key,
    Layer,
    Origins,
    dotted,
    explained,
    keys_of,
    merge,
    source_of,
    unknown,
    whole,
)

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
COMMAND_LINE = "command line"
RESOLVED_NAME = "config.yaml"


# Types of values. YAML reads 5e5 as a float, which is as good an integer as 500000, and a name such as 7
# as an integer.


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _share(value: Any) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value == "auto" or (number and 0 < value < 1):
        return value
    raise ValueError("'auto' or a number between 0 and 1, both excluded")


def _augmentation(value: Any) -> Any:
    for item in value if isinstance(value, list) else [value]:
        named = isinstance(item, dict) and isinstance(item.get("name"), str)
        if not (named or isinstance(item, str) or (item is None and value is None)):
            raise ValueError("null, a name, {name: ..., argument: value} or a list of those")
    return value


def _device(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", value):
        raise ValueError("auto, cpu, cuda or cuda:<index>")
    return value


def _folder_name(value: str) -> str:
    if not value or value.startswith(".") or re.search(r"[/\\\x00]", value):
        raise ValueError("a plain folder name, without path separators or a leading dot")
    return value


def _interval(value: Any) -> Any:
    value = whole(value)
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    if isinstance(value, str) and re.fullmatch(r"[0-9]*[1-9][0-9]*(s|min|h)", value):
        return value
    raise ValueError("a duration such as 20s, 10min or 1h, or a positive number of agent steps")


Count = Annotated[int, BeforeValidator(whole), Field(ge=0)]
Positive = Annotated[int, BeforeValidator(whole), Field(ge=1)]
Seed = Annotated[int, BeforeValidator(whole), Field(ge=0, lt=2**31)]
Rate = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float | Literal["auto"], PlainValidator(_share)]
Switch = Literal["auto"] | bool
Device = Annotated[str, AfterValidator(_device)]
Text = Annotated[str, BeforeValidator(_text)]
Folder = Annotated[str, BeforeValidator(_text), AfterValidator(os.path.expanduser)]
FolderName = Annotated[str, BeforeValidator(_text), AfterValidator(_folder_name)]


class Section(BaseModel):
    """Base of every section: frozen, strictly typed, no unknown keys. An agent's `Settings` extends it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Run(Section):
    dir: Folder | None
    name: FolderName | None


class Train(Section):
    steps: Positive
    random_steps: Positive
    burst_updates: Count
    batch: Positive
    log_every: Positive


class Evaluation(Section):
    every: Positive
    episodes: Positive
    shifts: Annotated[tuple[str, ...], Field(min_length=1, strict=False)]
    seed_offset: Seed
    clips: Annotated[tuple[Count, Count], Field(strict=False)] | None
    envs: Positive
    processes: Count
    sheet: bool = True  # runs recorded before this key existed have none


class Data(Section):
    root: Folder | None
    overlay: Folder | None
    overlay_bank: Positive

    def overlay_folder(self) -> Path | None:
        """The folder of overlay images: `data.overlay`, else $SMG_OVERLAY, else None (procedural ones)."""
        folder = self.overlay or os.environ.get("SMG_OVERLAY")
        return Path(folder) if folder else None


class Environment(Section):
    model: Literal["dmcgb", "smg"]
    action_repeat: Positive
    episode_steps: Positive
    image_size: Positive
    render_size: Positive | None = None  # runs recorded before this key existed have none
    frames: Positive
    ahead: Annotated[int, BeforeValidator(whole), Field(ge=0, le=1)]
    action_axes: Literal["xy", "xyz"] | None
    camera: Literal["third_person", "first_person"] | None
    view_strength: Weight
    shadow_size: Positive | None = None  # runs recorded before this key existed have the models' own

    @property
    def frame_size(self) -> int:
        """Height and width of a rendered frame [pixels]."""
        return self.render_size or self.image_size


class Replay(Section):
    capacity: Positive
    device: Literal["auto", "cpu", "cuda"]


class Network(Section):
    filters: Positive
    strides: Annotated[tuple[Positive, ...], Field(min_length=1, strict=False)]
    latent: Positive
    hidden: Positive
    decoder_filters: Annotated[tuple[Positive, Positive, Positive], Field(strict=False)]
    log_std: Annotated[tuple[float, float], Field(strict=False)]


class SoftActorCritic(Section):
    discount: Fraction
    temperature: Rate
    actor_every: Positive
    target_every: Positive
    encoder_tau: Fraction
    critic_tau: Fraction


class Adam(Section):
    lr: Rate
    beta1: Annotated[float, Field(ge=0, lt=1)]


class ClippedAdam(Adam):
    clip: Rate | None


class Optimisers(Section):
    actor: Adam
    critic: Adam
    temperature: Adam
    auxiliary: ClippedAdam
    fused: Switch


class WandB(Section):
    mode: Literal["offline", "online", "disabled"]
    project: Text
    entity: Text | None
    group: Text | None
    name: Text | None


class Checkpoint(Section):
    every: Annotated[int | str, PlainValidator(_interval)]
    replay: Literal["full", "none"]

    @property
    def seconds(self) -> int | None:
        """The interval in seconds, if it is a duration."""
        if isinstance(self.every, int):
            return None
        number, unit = re.fullmatch(r"([0-9]+)([a-z]+)", self.every).groups()  # type: ignore[union-attr]
        return int(number) * {"s": 1, "min": 60, "h": 3600}[unit]

    @property
    def steps(self) -> int | None:
        """The interval in agent steps, if it is not a duration."""
        return self.every if isinstance(self.every, int) else None


class Config(Section):
    """Everything that determines a run. See configs/default.yaml for each key's meaning and unit."""

    agent: str
    task: str
    preset: str
    seed: Seed
    device: Device
    compile: Literal["auto", "eager", "default", "graphs"]
    amp: Literal["auto", "off", "bf16"]
    channels_last: Switch
    tf32: bool
    augmentation: Annotated[Any, PlainValidator(_augmentation)]
    shift: Count
    run: Run
    train: Train
    eval: Evaluation
    data: Data
    env: Environment
    replay: Replay
    network: Network
    sac: SoftActorCritic
    optim: Optimisers
    losses: dict[str, Weight]
    wandb: WandB
    checkpoint: Checkpoint
    settings: Any
    """The agent's own section: an instance of its class's `Settings`, or None."""

    def run_folder(self) -> Path:
        """The run's folder: `run.dir`, else runs/<task>/<agent>[-no_<term>…]/<run.name or seed…>."""
        if self.run.dir is not None:
            return Path(self.run.dir)
        ablated = "".join(f"-no_{term}" for term, weight in self.losses.items() if weight == 0)
        name = self.run.name or f"seed{self.seed}"
        return Path("runs", self.task, self.agent.replace(":", ".") + ablated, name)


# Loading


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
        *_agent_layers(agent, agent_type),
        *_layers_for("tasks", task, agent_type),
        *_layers_for("presets", preset, agent_type),
        *given,
    ]
    return _validate(*merge([_relevant(layer, agent, agent_type) for layer in layers]))


def load_run_config(
    run_folder: str | Path, overrides: Sequence[str] = (), allow_code: bool = False
) -> Config:
    """Read the resolved configuration that a run folder holds.

    Args:
        run_folder: the run's folder.
        overrides: `key.sub=value` texts on top, for paths that differ on this machine.
        allow_code: import an agent that the file names as `package.module:Class`. A run folder may come
            from a stranger, so this needs the user's word.

    Raises:
        UserError: there is no such file, it is not a complete configuration, or it needs `allow_code`.
    """
    path = Path(run_folder) / RESOLVED_NAME
    if not path.is_file():
        raise UserError(f"{run_folder}: not a run folder (it has no {RESOLVED_NAME})")
    stored = Layer(str(path), yaml_files.read_mapping(path), given=True)
    agent = _chosen([stored], "agent", AGENTS)
    _chosen([stored], "task", packaged_names("tasks"))
    if is_import_path(agent) and not allow_code:
        raise UserError(f"{path}: agent '{agent}' is code from outside this package; --allow-code imports it")
    changes = [_override(text) for text in overrides]
    for key in ("agent", "task", "preset"):
        if any(key in change.values for change in changes):
            raise UserError(f"{COMMAND_LINE}: {key}: a run keeps the {key} it was trained with")
    layers = [stored, *changes]
    return _validate(*merge([_relevant(layer, agent, agent_class(agent)) for layer in layers]))


def to_yaml(config: Config) -> str:
    """The resolved configuration as YAML, which `load_run_config` reads back to an equal object."""
    values = config.model_dump(mode="json")
    settings = values.pop("settings")
    section = agent_class(config.agent).SECTION
    if section is not None:
        values[section] = settings
    return yaml_files.dump(values)


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
    parsed: Any = yaml_files.parse(value, f"{COMMAND_LINE}: {key}")
    for name in reversed(names):
        parsed = {name: parsed}
    return Layer(COMMAND_LINE, parsed, given=True)


def _chosen(layers: list[Layer], key: str, known: Iterable[str]) -> str:
    """The last layer's value of one of the names that select further layers."""
    layer = next((layer for layer in reversed(layers) if key in layer.values), None)
    if layer is None:
        raise UserError(f"no {key} given: choose one with --{key} ({', '.join(known)})")
    name = layer.values[key]
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


def _agent_layers(agent: str, agent_type: type[Any]) -> list[Layer]:
    """The agent's YAML: packaged, or that of the agent it extends and then the one beside its module."""
    layers = []
    packaged = registered_ancestor(agent_type)
    if packaged is not None:
        layers.append(_packaged("agents", packaged))
    if is_import_path(agent):
        beside = Path(inspect.getfile(agent_type)).with_suffix(".yaml")
        if beside.is_file():
            layers.append(_given_file(beside))
    return layers


def _layers_for(kind: str, name: str, agent_type: type[Any]) -> list[Layer]:
    """The YAML of a task or preset, then what its `agents:` says for this agent alone."""
    if name not in packaged_names(kind):
        return []
    layer = _packaged(kind, name)
    for_agents = layer.values.pop("agents", {})
    special = for_agents.get(registered_ancestor(agent_type), {})
    return [layer, Layer(layer.source, special, given=False)]


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


# Validation


def _validate(values: dict[str, Any], origins: Origins) -> Config:
    agent_type = agent_class(values["agent"])
    section = () if agent_type.SECTION is None else (agent_type.SECTION,)
    if "settings" in values:  # the field's name; in YAML the section has the agent's
        raise unknown(("settings",), origins, _valid_keys(agent_type))
    _check_losses(values, agent_type, origins)
    _resolve(values)
    common = {key: value for key, value in values.items() if key not in section}
    settings = None
    try:
        if section:
            settings = agent_type.Settings.model_validate(values.get(section[0], {}))
    except ValidationError as error:
        raise explained(error, values, section, origins, _valid_keys(agent_type)) from error
    try:
        config = Config.model_validate(common | {"settings": settings})
    except ValidationError as error:
        raise explained(error, values, (), origins, _valid_keys(agent_type)) from error
    for key, problem in _conflicts(config):
        raise UserError(f"{source_of(origins, key)}: {dotted(key)}: {problem}")
    return config


def _check_losses(values: dict[str, Any], agent_type: type[Any], origins: Origins) -> None:
    """The keys of `losses` are exactly the terms that the agent declares."""
    agent, weights = values["agent"], values.get("losses", {})
    if not isinstance(weights, dict):
        return  # a wrong type, which the validation reports
    for term in weights:
        if term not in agent_type.LOSSES:
            problem = f"agent {agent} computes no such term; {did_you_mean(term, agent_type.LOSSES)}"
            raise UserError(f"{source_of(origins, ('losses', term))}: losses.{term}: {problem}")
    for term in agent_type.LOSSES:
        if term not in weights:
            raise UserError(f"losses.{term}: agent {agent} computes this term, but no file gives its weight")


def _resolve(values: dict[str, Any]) -> None:
    """Replace what stands for values that follow from others: groups of shifts, a capacity of `auto`."""
    try:
        shifts, capacity = values["eval"]["shifts"], values["replay"]["capacity"]
        names = [shifts] if isinstance(shifts, str) else shifts
        values["eval"]["shifts"] = list(expand(names, values["task"]))
        if capacity == "auto":
            values["replay"]["capacity"] = max(values["train"]["steps"], values["train"]["batch"])
    except (KeyError, TypeError):
        return  # something is missing or of a wrong type, which the validation reports


def _conflicts(config: Config) -> Iterator[tuple[Key, str]]:
    """Values that are impossible together or on this machine: the key to change, and why."""
    env, network, evaluation = config.env, config.network, config.eval
    if trunk_resolution(env.image_size, network.strides) < 1:
        layers = len(network.strides)
        yield ("env", "image_size"), f"{env.image_size} pixels are too few for the encoder's {layers} layers"
    if env.image_size % 4:
        yield ("env", "image_size"), f"should be a multiple of 4, which decoders need, got {env.image_size}"
    if env.frame_size < env.image_size:
        yield ("env", "render_size"), f"smaller than the {env.image_size} pixels that are cropped from it"
    if env.frame_size > env.image_size and not agent_class(config.agent).CROPS:
        yield ("env", "render_size"), f"agent {config.agent} does not crop what is rendered; set it to null"
    if env.action_repeat > env.episode_steps:
        yield ("env", "action_repeat"), f"longer than an episode of {env.episode_steps} simulator steps"
    for key, period in _periods(config).items():
        if config.train.burst_updates > 1 and config.train.random_steps % period:
            problem = f"should be a multiple of {key}={period}, or the burst, of that step, lacks its part"
            yield ("train", "random_steps"), problem
    batch, capacity = config.train.batch, config.replay.capacity
    if batch > capacity:
        yield ("train", "batch"), f"{batch} is larger than the replay ({capacity}); lower it"
    low, high = network.log_std
    if low >= high:
        yield ("network", "log_std"), f"should be [low, high] with low < high, got [{low}, {high}]"
    if evaluation.clips is not None and evaluation.clips[0] > evaluation.clips[1]:
        yield ("eval", "clips"), f"should be [first, last] with first <= last, got {list(evaluation.clips)}"
    for shift in evaluation.shifts:
        if shift not in (known := shifts_of(config.task)):
            yield ("eval", "shifts"), f"{config.task} has no shift '{shift}'; {did_you_mean(shift, known)}"
    for name, folder in (("root", config.data.root), ("overlay", config.data.overlay)):
        if folder is not None and not Path(folder).is_dir():
            yield ("data", name), f"the folder {folder} does not exist"


def _periods(config: Config) -> dict[str, int]:
    """Every how many agent steps a part of the update runs, by key."""
    periods = {f"sac.{name}": getattr(config.sac, name) for name in ("actor_every", "target_every")}
    if hasattr(config.settings, "auxiliary_every"):
        periods["auxiliary_every"] = config.settings.auxiliary_every
    return periods


def _valid_keys(agent_type: type[Any]) -> list[str]:
    """Every key that a configuration of this agent may hold, dotted."""
    keys = [key for key in keys_of(Config) if key != "settings"]
    keys += [f"losses.{term}" for term in agent_type.LOSSES]
    if agent_type.SECTION is not None:
        keys += [agent_type.SECTION, *keys_of(agent_type.Settings, f"{agent_type.SECTION}.")]
    return keys
