"""Merging of configuration layers, and validation errors in the words of someone who writes YAML."""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from common.config.yaml_files import Mapping, take
from common.errors import UserError

Key = tuple[str | int, ...]
Origins = dict[Key, str]
"""Which source each key's value came from; a key that is not in it came with the key above it."""


@dataclass(frozen=True)
class Layer:
    """One source of values; `given` when the user named it, rather than the package supplying it."""

    source: str
    values: dict[str, Any]
    given: bool


def merge(layers: Iterable[Layer]) -> tuple[dict[str, Any], Origins]:
    """Deep-merge mappings, later over earlier."""
    merged = Mapping()
    origins: Origins = {}
    for layer in layers:
        _merge_into(merged, layer.values, layer.source, origins, ())
    return merged, origins


def _merge_into(
    target: dict[str, Any], values: dict[str, Any], source: str, origins: Origins, at: Key
) -> None:
    for key, value in values.items():
        here = (*at, key)
        # An augmentation is one value, though it may be written as a mapping: arguments of one kind
        # mean nothing to another.
        if isinstance(value, dict) and isinstance(target.get(key), dict) and here != ("augmentation",):
            _merge_into(target[key], value, source, origins, here)
        else:
            for stale in [known for known in origins if known[: len(here)] == here]:
                del origins[stale]
            take(target, key, values)
            origins[here] = source


def source_of(origins: Origins, key: Key) -> str:
    """The file, or the command line, that a key's value came from."""
    for length in range(len(key), 0, -1):
        if key[:length] in origins:
            return origins[key[:length]]
    return "configuration"


def dotted(key: Key) -> str:
    """A key as it is written on the command line."""
    return ".".join(map(str, key))


def whole(value: Any) -> Any:
    """A float without a fraction as an integer; anything else as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def keys_of(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every key of a section and of the sections in it, dotted."""
    for name, field in section.model_fields.items():
        yield prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from keys_of(field.annotation, f"{prefix}{name}.")


# What pydantic expected.
_EXPECTED = {
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "missing": "a longer list",
    "too_short": "a longer list",
    "too_long": "a list of at most {max_length}",
    "greater_than": "above {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "below {lt}",
    "less_than_equal": "at most {le}",
    "literal_error": "{expected}",
    "value_error": "{error}",
}


def explained(
    error: ValidationError, values: dict[str, Any], at: Key, origins: Origins, valid: Sequence[str]
) -> UserError:
    """The first problem of a validation as one line: source, key, what it should be, what it is.

    Args:
        error: what pydantic raised.
        values: everything that was merged.
        at: key of the part of `values` that was validated.
        origins: where the values came from.
        valid: every key that there may be, dotted.
    """
    problems = [(_key_of(problem, values, at), problem) for problem in error.errors()]
    key, first = problems[0]
    if first["type"] == "extra_forbidden":
        return unknown(key, origins, valid)
    value: Any = values
    for part in key:
        if isinstance(value, dict) and part not in value:
            return UserError(f"{source_of(origins, key)}: {dotted(key)}: missing; give it a value")
        value = value[part]
    if isinstance(first["input"], str):
        value = first["input"]  # as it was written
    # Each alternative of a union reports its own problem.
    expected = " or ".join(
        _EXPECTED.get(problem["type"], problem["msg"]).format(
            **{name: whole(limit) for name, limit in problem.get("ctx", {}).items()}
        )
        for problem_key, problem in problems
        if problem_key == key
    )
    shown = repr(value) if len(repr(value)) <= 60 else f"{repr(value)[:60]}…"
    if first["type"] == "string_type" and isinstance(value, dict | list):
        shown += ", as YAML reads it; put quotes around text"
    return UserError(f"{source_of(origins, key)}: {dotted(key)}: should be {expected}, got {shown}")


def unknown(key: Key, origins: Origins, valid: Sequence[str]) -> UserError:
    """The error about a key that does not exist, with the nearest of the `valid` ones."""
    remedy = "'smg config' prints every key"
    by_last_name = {name.rpartition(".")[2]: name for name in reversed(valid)}
    for text, names in ((dotted(key), {name: name for name in valid}), (str(key[-1]), by_last_name)):
        nearest = difflib.get_close_matches(text, names, n=1, cutoff=0.6)
        if nearest:
            remedy = f"did you mean '{names[nearest[0]]}'?"
            break
    return UserError(f"{source_of(origins, key)}: unknown key '{dotted(key)}'; {remedy}")


def _key_of(problem: Any, values: Any, at: Key) -> Key:
    """Where in `values` a problem lies: pydantic's location without the names of union members."""
    key: Key = ()
    for part in (*at, *problem["loc"]):
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            absent = problem["type"] == "missing" and isinstance(part, str)
            return (*key, part) if absent else key
        key = (*key, part)
    return key
