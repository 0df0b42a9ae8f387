"""YAML as this project reads and writes it: plain data only, bounded in size, YAML 1.2 scalars.

PyYAML follows YAML 1.1, where `1e-4` is text, `off` is a boolean, `010` is eight and `1:30` is ninety.
Here scalars are read as YAML 1.2 does, so that a value means what it looks like. A key of text wants the text
itself, though it may look like a number, so mappings and lists remember how their plain scalars were written.
"""

import copy
import json
import math
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import Composer

from common.errors import UserError

MAX_BYTES = 256 * 1024
MAX_DEPTH = 20

_TAG = "tag:yaml.org,2002:"
_INTEGER = re.compile(r"[-+]?[0-9][0-9_]*$")
_SCALARS = {  # tag: how its text looks, and the characters it may start with
    f"{_TAG}null": (re.compile(r"(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    f"{_TAG}bool": (re.compile(r"(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    f"{_TAG}float": (
        re.compile(r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$"),
        list("-+.0123456789"),
    ),
}


class Mapping(dict[str, Any]):
    """A mapping from YAML; `written` holds, by key, the text of each value that YAML takes for no text."""

    def __init__(self, values: dict[str, Any] | None = None) -> None:
        super().__init__(values or {})
        self.written: dict[str, str] = {}


class Items(list[Any]):
    """A list that was read, with the same by index."""

    def __init__(self) -> None:
        super().__init__()
        self.written: dict[int, str] = {}

    def texts(self) -> list[Any]:
        """The items, each scalar as the text that was written."""
        return [self.written.get(index, item) for index, item in enumerate(self)]


class _Loader(Composer, yaml.CSafeLoader):
    """Parses to nodes; refuses aliases, which let a small file expand without bound or contain itself.

    libyaml finds the events, ten times faster than Python; nodes are made in Python, where deep nesting ends
    in a RecursionError and not in a crash.
    """

    def __init__(self, text: str) -> None:
        yaml.CSafeLoader.__init__(self, text)
        Composer.__init__(self)

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            alias: Any = self.get_event()
            raise yaml.MarkedYAMLError(
                problem="aliases (*name) are not supported: repeat the value", problem_mark=alias.start_mark
            )
        # Without aliases an anchor on a scalar only takes away a part of what was written.
        event: Any = self.peek_event()
        if isinstance(event, yaml.ScalarEvent) and event.anchor is not None:
            raise yaml.MarkedYAMLError(
                problem=f"anchors (&name) are not supported: put quotes around text with &{event.anchor}",
                problem_mark=event.start_mark,
            )
        return super().compose_node(parent, index)


class _Dumper(yaml.SafeDumper):
    """SafeDumper that also quotes text which only the loader above would read as a number."""


_Dumper.add_representer(Mapping, yaml.SafeDumper.represent_dict)
_Dumper.add_representer(Items, yaml.SafeDumper.represent_list)
_Loader.yaml_implicit_resolvers = {}  # YAML 1.1's
for _tag, (_pattern, _first) in _SCALARS.items():
    _Loader.add_implicit_resolver(_tag, _pattern, _first)
    _Dumper.add_implicit_resolver(_tag, _pattern, _first)


def parse(text: str, source: str) -> Any:
    """Parse one YAML document into mappings, lists, str, int, float, bool and None.

    Raises:
        UserError: the text is not plain, finite YAML; the message starts with `source`.
    """
    return _parsed(text, source)[1]


def typed(key: str, text: str, source: str) -> Mapping:
    """The mapping of `key` to a value in YAML as it was typed on a command line.

    Raises:
        UserError: the text is not plain YAML, or YAML leaves out a part of it, such as a comment.
    """
    node, value = _parsed(text, source)
    start, end = (0, 0) if node is None else (node.start_mark.index, node.end_mark.index)
    unquoted = _unquoted(node)
    read = text[start:end]
    if unquoted is not None and not read.startswith("!!"):
        read = unquoted  # in which lines are folded into one
    if read != text.strip() and (text[:start].strip() or text[end:].strip() or unquoted == read):
        whole = shlex.quote(json.dumps(text, ensure_ascii=False))
        raise UserError(f"{source}: YAML reads {read!r} of {text!r}; if all of it is meant, write {whole}")
    mapping = Mapping({key: value})
    if not isinstance(value, str) and (node is None or unquoted is not None):
        mapping.written[key] = unquoted or ""
    return mapping


def take(target: dict[str, Any], key: str, source: dict[str, Any]) -> None:
    """Copy a value from one mapping into another, with how it was written."""
    target[key] = copy.deepcopy(source[key])
    if isinstance(target, Mapping):
        target.written.pop(key, None)
        if isinstance(source, Mapping) and key in source.written:
            target.written[key] = source.written[key]


def flattened(settings: dict[str, Any], at: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings as (dotted key, value); an augmentation is one value, whatever its form."""
    for key, value in settings.items():
        dotted = f"{at}{key}"
        if isinstance(value, dict) and value and dotted != "augmentation":
            yield from flattened(value, f"{dotted}.")
        else:
            yield dotted, value


def _parsed(text: str, source: str) -> tuple[yaml.Node | None, Any]:
    try:
        node = yaml.compose(text, Loader=_Loader)
        return node, None if node is None else _plain(node, MAX_DEPTH)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        # libyaml sees the end of a text on a line of its own.
        line = f", line {min(mark.line + 1, len(text.splitlines()) or 1)}" if mark else ""
        problem = error.problem or error.context
    except yaml.YAMLError as error:
        line, problem = "", str(error).splitlines()[0]
    except RecursionError:
        line, problem = "", "nested too deeply"
    except (ValueError, OverflowError) as error:  # PyYAML on an escape beyond Unicode
        line, problem = "", str(error)
    raise UserError(f"{source}{line}: not valid YAML: {problem}")


def read_mapping(path: Path, source: str | None = None) -> Mapping:
    """Read a YAML file that holds a mapping at its top.

    Args:
        path: the file, at most `MAX_BYTES` long.
        source: how error messages call it; its path if not given.

    Raises:
        UserError: it cannot be read, or is not such a file.
    """
    source = source or str(path)
    try:
        if not path.is_file():  # a pipe or a device could be read for ever
            raise UserError(f"{source}: {'not a file' if path.exists() else 'no such file'}")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{source}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{source}: not UTF-8 text") from error
    if len(content) > MAX_BYTES:
        raise UserError(f"{source}: larger than {MAX_BYTES // 1024} KiB, so not a configuration file")
    values = parse(text, source)
    if values is None:
        raise UserError(
            f"{source}: empty; a configuration file holds at least one 'key: value'; without any, write {{}}"
        )
    if not isinstance(values, Mapping):
        raise UserError(f"{source}: expected 'key: value' lines, found {_called(values)}")
    return values


def dump(values: dict[str, Any]) -> str:
    """Write plain data as YAML (ASCII, so that no line separator is lost) that `parse` reads back equal."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, width=100)


def _called(value: Any) -> str:
    return "a list" if isinstance(value, list) else f"a {type(value).__name__}"


def _plain(node: yaml.Node, depth: int) -> Any:
    if depth == 0:
        raise _problem("nested too deeply", node)
    if isinstance(node, yaml.MappingNode) and node.tag == f"{_TAG}map":
        mapping = Mapping()
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise _problem("a key must be a name", key_node)
            if key_node.value in mapping:
                raise _problem(f"key '{key_node.value}' appears twice", key_node)
            value = mapping[key_node.value] = _plain(value_node, depth - 1)
            if not isinstance(value, str) and (written := _unquoted(value_node)) is not None:
                mapping.written[key_node.value] = written
        return mapping
    if isinstance(node, yaml.SequenceNode) and node.tag == f"{_TAG}seq":
        items = Items()
        for item_node in node.value:
            items.append(_plain(item_node, depth - 1))
            if not isinstance(items[-1], str) and (written := _unquoted(item_node)) is not None:
                items.written[len(items) - 1] = written
        return items
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node)
    raise _problem(f"tag {node.tag} is not supported", node)


def _unquoted(node: yaml.Node | None) -> str | None:
    """The text of a scalar without quotes; None for any other node."""
    return node.value if isinstance(node, yaml.ScalarNode) and not node.style else None


def _scalar(node: yaml.ScalarNode) -> Any:
    if node.tag == f"{_TAG}str":
        return node.value
    if node.tag not in _SCALARS or not _SCALARS[node.tag][0].match(node.value):
        raise _problem(f"tag {node.tag} is not supported", node)
    if node.tag == f"{_TAG}null":
        return None
    if node.tag == f"{_TAG}bool":
        return node.value.lower() == "true"
    digits = node.value.replace("_", "")
    try:
        number = int(digits) if _INTEGER.match(digits) else float(digits)
    except ValueError:  # Python refuses integers of thousands of digits
        return node.value
    # No float holds 1e999, which may be a name.
    return number if math.isfinite(number) else node.value


def _problem(text: str, node: yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=text, problem_mark=node.start_mark)
