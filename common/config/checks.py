"""What merged values must satisfy beyond their types: losses, groups of shifts, values that conflict."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from common.config.messages import Key, Origins, dotted, explained, keys_of, source_of, unknown
from common.config.registry import agent_class, is_import_path
from common.config.schema import Config, trunk_resolution
from common.config.shifts import (
    ROBOT_CAMERAS,
    ROBOT_TASKS,
    expand,
    groups_of,
    remedy,
    shifts_of,
    usual_camera,
)
from common.errors import UserError, did_you_mean


def validate(values: dict[str, Any], origins: Origins) -> Config:
    """A typed configuration of merged values.

    Raises:
        UserError: a key is unknown, or a value of the wrong type or impossible.
    """
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
            if is_import_path(agent):
                problem += f" (a term of your own stands in {agent_type.__name__}.LOSSES)"
            raise UserError(f"{source_of(origins, ('losses', term))}: losses.{term}: {problem}")
    for term in agent_type.LOSSES:
        if term not in weights:
            raise UserError(
                f"losses.{term}: agent {agent} computes this term, but no file gives its weight; "
                f"put it under losses: in the agent's YAML, or say losses.{term}=1"
            )


def whole_run(values: dict[str, Any]) -> int:
    """What `replay.capacity: auto` means: a replay that keeps every step of the run."""
    return max(values["train"]["steps"], values["train"]["batch"])


def _resolve(values: dict[str, Any]) -> None:
    """Replace what stands for values that follow from others: groups of shifts, `auto`, the usual camera."""
    try:
        shifts, capacity = values["eval"]["shifts"], values["replay"]["capacity"]
        names = [shifts] if isinstance(shifts, str) else shifts
        values["eval"]["shifts"] = list(expand(names, values["task"]))
        if capacity == "auto":
            values["replay"]["capacity"] = whole_run(values)
        if values["env"]["camera"] is None:
            values["env"]["camera"] = usual_camera(values["task"])
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
    if config.augmentation is not None and not agent_class(config.agent).AUGMENTS:
        problem = f"agent {config.agent} applies no τ"
        if is_import_path(config.agent):
            problem += " (one that calls augment says so in its class: AUGMENTS = True)"
        yield ("augmentation",), problem
    if env.action_repeat > env.episode_steps:
        yield ("env", "action_repeat"), f"longer than an episode of {env.episode_steps} simulator steps"
    if config.task in ROBOT_TASKS and env.camera not in ROBOT_CAMERAS:
        yield ("env", "camera"), f"should be {' or '.join(map(repr, ROBOT_CAMERAS))}, got {env.camera!r}"
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
            known = (*known, *groups_of(config.task))
            yield (
                ("eval", "shifts"),
                f"{config.task} has no shift '{shift}'; {remedy(shift, config.task, known)}",
            )
    for name, folder in (("root", config.data.root), ("overlay", config.data.overlay)):
        if folder is not None and not Path(folder).is_dir():
            yield ("data", name), f"the folder {folder} does not exist"


def _periods(config: Config) -> dict[str, int]:
    """Every how many agent steps a part of the update runs, by key."""
    periods = {f"sac.{name}": getattr(config.sac, name) for name in ("actor_every", "target_every")}
    periods["train.update_every"] = config.train.update_every
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
