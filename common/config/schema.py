"""What a run's configuration may hold: a frozen, typed object per section.

configs/default.yaml explains every key. A section of an agent's own (`smg:`, `sgqn:`) is typed by the agent
class and found in `Config.settings`.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    model_validator,
)

from common.config.messages import whole
from common.config.yaml_files import Items, Mapping

# Types of values. YAML reads 5e5 as a float, which is as good an integer as 500000. A section gives what was
# written to its keys of text, whatever YAML takes it for.


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


def _camera(value: Any) -> Any:
    value = whole(value)
    if isinstance(value, str) and value:
        return int(value) if value.isdecimal() else value
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise ValueError("a camera's number or name")


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
Camera = Annotated[int | str, PlainValidator(_camera)]
Device = Annotated[str, AfterValidator(_device)]
Folder = Annotated[str, AfterValidator(os.path.expanduser)]
FolderName = Annotated[str, AfterValidator(_folder_name)]


class Section(BaseModel):
    """Base of every section: frozen, strictly typed, no unknown keys. An agent's `Settings` extends it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _as_written(cls, values: Any) -> Any:
        """Values as they were read, those of keys of text as they were written."""
        if not isinstance(values, Mapping):
            return values
        texts = {
            key: text
            for key, text in values.written.items()
            if key in cls.model_fields and _is_meant(text, _alternatives(cls.model_fields[key].annotation))
        }
        lists = {
            key: value.texts()
            for key, value in values.items()
            if isinstance(value, Items)
            and key in cls.model_fields
            and get_args(cls.model_fields[key].annotation) == (str, ...)
        }
        return {**values, **texts, **lists}


def _alternatives(annotation: Any) -> set[Any]:
    """The types that a value may have, without what is annotated about them."""
    if get_origin(annotation) is Annotated:
        return _alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return set().union(*map(_alternatives, get_args(annotation)))
    return {annotation}


def _is_meant(text: str, alternatives: set[Any]) -> bool:
    """Whether the text of a scalar, rather than what YAML makes of it, is the value of such a key."""
    nothing = text in ("", "null", "~") if NoneType in alternatives else text == ""
    return alternatives <= {str, NoneType} and not nothing


class Run(Section):
    dir: Folder | None
    name: FolderName | None


class Train(Section):
    steps: Positive
    random_steps: Positive
    burst_updates: Count
    update_every: Positive = 1  # runs recorded before this key existed update at every step
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
    camera: Camera | None
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


def trunk_resolution(image_size: int, strides: Sequence[int]) -> int:
    """Height and width that 3×3 convolutions without padding leave of a square image; below 1: too small."""
    for stride in strides:
        image_size = (image_size - 3) // stride + 1
    return image_size


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
    project: str
    entity: str | None
    group: str | None
    name: str | None


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


COMPUTING = (
    "run.", "device", "compile", "amp", "channels_last", "threads", "optim.fused", "env.ahead",
    "replay.device", "eval.envs", "eval.processes", "wandb.",
)  # fmt: skip
"""Beginnings of dotted keys that say where and how fast a run computes, not what it learns."""


class Config(Section):
    """Everything that determines a run. See configs/default.yaml for each key's meaning and unit."""

    agent: str
    task: str
    preset: str
    seed: Seed
    device: Device
    compile: Literal["auto", "eager", "default", "graphs", "compiled_graphs"]
    amp: Literal["auto", "off", "bf16"]
    channels_last: Switch
    tf32: bool
    threads: Positive | Literal["auto"]
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
