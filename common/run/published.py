"""The papers' numbers and the conditions that they were made under, to stand beside runs that meet these.

`compared` is the one rule for it: what is printed for a run's method, task and shift, and how the run differs
from those that the number is of.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from common.config.loading import load
from common.config.registry import agent_class
from common.config.schema import COMPUTING, Config, Positive, Section
from common.config.shifts import COLOR_SHIFTS, VIDEO_SHIFTS, clips_of
from common.config.yaml_files import flattened, read_mapping
from common.envs.procedural import CLIPS, PRESETS
from common.run.data_sources import backgrounds_of, draws_overlays, recorded
from common.run.run_folder import replay_emptied
from common.run.shares import set_by_hand

PATH = Path(__file__).with_name("published.yaml")
NOTHING: Mapping[str, Any] = MappingProxyType({})


class Score(NamedTuple):
    """A printed cell: mean and standard deviation over seeds, and where it is printed."""

    mean: float
    deviation: float | None
    source: str
    seeds: int | None
    episodes: int | None
    """Per seed."""
    usable: bool
    """Whether the deviation can be computed with: it is printed, and is this cell's own."""


class PrintedTable(Section):
    """A table as a paper prints it; published.yaml explains each key."""

    source: str
    seeds: Positive | None = None
    episodes: Positive | None = None
    order: Annotated[tuple[Literal["task", "shift"], ...], Field(strict=False)]
    shift: str | None = None
    task: str | None = None
    otherwise: str | None = None
    copied_deviations: Annotated[tuple[str, ...], Field(strict=False)] = ()
    conditions: Annotated[tuple[dict[str, Any], ...], Field(strict=False)]
    cells: dict[str, Any]

    def row(self, task: str, shift: str) -> Mapping[str, list[float]]:
        """What is printed of a task under a shift, by column: mean and, mostly, deviation."""
        if self.shift not in (None, shift) or self.task not in (None, task):
            return {}
        found = self.cells
        for key in self.order:
            found = found.get(task.removeprefix("robot_") if key == "task" else shift, {})
        return found

    def conditions_of(self, task: str, column: str) -> dict[str, Any]:
        """Keys and values that the cells of a task and column were made with."""
        found: dict[str, Any] = {}
        place = {"task": task, "column": column}
        for rule in self.conditions:
            if all(name in _alternatives(rule[key]) for key, name in place.items() if key in rule):
                found |= {key: value for key, value in rule.items() if key not in place}
        return found

    def score(self, task: str, values: list[float]) -> Score:
        """A printed cell of a task."""
        mean, *deviation = values
        spread = deviation[0] if deviation else None
        usable = spread is not None and task not in self.copied_deviations
        return Score(mean, spread, self.source, self.seeds, self.episodes, usable)


class Unmet(NamedTuple):
    """A condition of a printed score that a run does not meet."""

    key: str
    printed: object
    here: object

    def __str__(self) -> str:
        return f"{in_words(self.key, self.printed)} (here {_shown(self.here)})"


@dataclass(frozen=True)
class Comparison:
    """A printed score of a run's method, and how the run differs from those that it is of."""

    score: Score
    conditions: Mapping[str, object]
    """What is stated of those, by key of configs/."""
    unmet: tuple[Unmet, ...]


@cache
def tables() -> dict[str, PrintedTable]:
    """Every table by the name that a study gives it."""
    return {name: PrintedTable.model_validate(values) for name, values in read_mapping(PATH).items()}


def compared(
    config: Config,
    shift: str,
    published_name: str | None = None,
    column: str | None = None,
    sessions: Sequence[Mapping[str, Any]] = (),
    learnt: Mapping[str, Config | str] = NOTHING,
) -> Comparison | None:
    """The printed score that is nearest to a run's settings, and the conditions that the run does not meet.

    A score may stand for the run's only where none is unmet. A column is considered if it is of the run's
    agent with the same losses switched on; of several, that with the fewest unmet, the first of equals.

    Args:
        config: the run's.
        shift: that it was evaluated under.
        published_name: of the only table to look at; by default all are.
        column: the run's in that table; one of another name counts only if the run meets all its conditions.
        sessions: provenances of the run's, whose images and clips all count; without any they are taken to be
            the papers'.
        learnt: what else the weights learnt with, by when that was, or why it cannot be read; each must meet
            the conditions too.

    Returns:
        None if no table prints a score of the run's method, task and shift.
    """
    nearest = None
    data = dict.fromkeys(unmet for session in sessions for unmet in _unmet_data(config, shift, session))
    for name in tables() if published_name is None else (published_name,):
        for printed, (owner, values) in _row(name, config.task, shift).items():
            if not _same_method(config, owner, printed):
                continue
            by_hand = _unmet_shares(config, owner, printed, sessions)
            unmet = (*_unmet_ever(config, learnt, owner, printed, shift), *by_hand, *data)
            if unmet and column not in (None, printed):
                continue
            conditions, _ = _reference(owner, config.task, printed)
            found = Comparison(tables()[owner].score(config.task, values), conditions, unmet)
            if nearest is None or len(unmet) < len(nearest.unmet):
                nearest = found
    return nearest


def score_text(score: Score) -> str:
    """A score as it is printed."""
    return f"{score.mean:g}" if score.deviation is None else f"{score.mean:g} ± {score.deviation:g}"


Cells = Mapping[tuple[str, str, str], Comparison]
"""Comparisons by task, column and shift of a table of ours."""


def conditions_text(cells: Cells) -> str:
    """Where printed scores are from, over how many seeds, and what is stated of their runs, in one phrase."""
    scores = dict.fromkeys(
        (found.score.source, found.score.seeds, found.score.episodes) for found in cells.values()
    )
    sources = []
    for source, seeds, episodes in scores:
        counts = f" ({seeds} seeds" + (f" × {episodes} episodes)" if episodes else ")") if seeds else ""
        sources.append(source + counts)
    keys = dict.fromkeys(key for found in cells.values() for key in found.conditions if key in _WORDS)
    texts = [text for key in keys for text in _condition_texts(cells, key)]
    return f"{', '.join(sources)}: {', '.join(texts) or 'no settings are stated'}"


def _condition_texts(cells: Cells, key: str) -> Iterator[str]:
    """A condition's value in most cells, then where it has others."""
    values = {
        cell: in_words(key, _alternatives(found.conditions[key])[0])
        for cell, found in cells.items()
        if key in found.conditions
    }
    general = max(values.values(), key=list(values.values()).count) if len(values) == len(cells) else None
    if general is not None:
        yield general
    for text in dict.fromkeys(values.values()):
        if text != general:
            chosen = [cell for cell in values if values[cell] == text]
            yield f"{text} ({', '.join(_places(cells, chosen))})"


def _without_shifts(cells: Iterable[tuple[str, str, str]]) -> list[tuple[str, str]]:
    """Tasks and columns of some cells, each once."""
    return list(dict.fromkeys((task, column) for task, column, _ in cells))


def _places(cells: Cells, chosen: Iterable[tuple[str, str, str]]) -> Iterator[str]:
    """Cells by name, whatever their shift: a task where all of its columns are chosen, else each on it."""
    everywhere, places = _without_shifts(cells), _without_shifts(chosen)
    for task in dict.fromkeys(task for task, _ in places):
        columns = [column for other, column in places if other == task]
        if len(columns) == sum(other == task for other, _ in everywhere):
            yield task
        else:
            yield f"{', '.join(columns)} on {task}"


def unmet_text(cells: Cells) -> str:
    """Conditions that runs do not meet, and whose if not of most, in one phrase; empty if none."""
    where: dict[str, list[tuple[str, str, str]]] = {}
    for cell, found in cells.items():
        for unmet in found.unmet:
            where.setdefault(str(unmet), []).append(cell)
    half = len(_without_shifts(cells)) / 2
    texts = [
        text if len(_without_shifts(chosen)) > half else f"{text} for {', '.join(_places(cells, chosen))}"
        for text, chosen in where.items()
    ]
    more = f" and {len(texts) - _SHOWN} more conditions" if len(texts) > _SHOWN else ""
    return ", ".join(texts[:_SHOWN]) + more


_SHOWN = 6


def in_words(key: str, value: object) -> str:
    """A condition as a person says it."""
    shown = _shown(value)
    return _WORDS[key].format(shown) if key in _WORDS else f"{key} {shown}"


_WORDS = {
    "train.steps": "{} agent steps",
    "train.batch": "batch {}",
    "network.latent": "latent {}",
    "env.image_size": "{0}×{0} pixels",
    "env.frames": "frames {}",
    "env.action_repeat": "action repeat {}",
    "env.action_axes": "actions {}",
    "env.model": "models {}",
    "eval.clips": "{} clips of video_hard",
    "backgrounds": "{} backgrounds",
    "overlay images": "{} as overlay images",
    **{f"clips of {shift}": f"{{}} clips of {shift}" for shift in VIDEO_SHIFTS},
    **{f"presets of {shift}": f"{{}} presets of {shift}" for shift in COLOR_SHIFTS},
    "settings": "settings {}",
}


def _shown(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float | str | None):
        return json.dumps(value)
    if value is None:
        return "the default"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else value


def _alternatives(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _row(published_name: str, task: str, shift: str) -> dict[str, tuple[str, list[float]]]:
    """A table's row by column, each with the table that prints it, which for repeated cells is another."""
    found = tables()[published_name]
    row = {column: (published_name, values) for column, values in found.row(task, shift).items()}
    return (_row(found.otherwise, task, shift) if found.otherwise else {}) | row


# Where and how fast a run computes, and how often and by what means it is looked at. env.model matters where
# a condition names it: most tasks have one model.
_INDIFFERENT = (
    *COMPUTING, "agent", "task", "preset", "seed", "tf32", "train.log_every", "eval.", "data.", "env.model",
    "env.view_strength", "checkpoint.",
)  # fmt: skip


def _unmet_ever(
    config: Config, learnt: Mapping[str, Config | str], published_name: str, column: str, shift: str
) -> Iterator[Unmet]:
    """What a run does not meet as it is configured now, then what it did not meet before."""
    now = tuple(_unmet(config, published_name, column, shift))
    yield from now
    for when, other in learnt.items():
        if isinstance(other, str):
            yield Unmet("settings", "that are known", f"unreadable {when}")
            continue
        # How long it learnt and how it was evaluated is the run's, not a session's.
        train = other.train.model_copy(update={"steps": config.train.steps})
        other = other.model_copy(update={"train": train, "eval": config.eval})
        for unmet in _unmet(other, published_name, column, shift):
            if unmet not in now:
                yield unmet._replace(here=f"{_shown(unmet.here)} {when}")


def _unmet(config: Config, published_name: str, column: str, shift: str) -> Iterator[Unmet]:
    conditions, reference = _reference(published_name, config.task, column)
    if not conditions:
        yield Unmet("settings", "that are not stated", config.preset)
    values = _values(config)
    for key, wanted in conditions.items():
        if values.get(key) not in _alternatives(wanted):
            yield Unmet(key, _alternatives(wanted)[0], values.get(key))
    for key in dict.fromkeys((*reference, *values)):
        wanted, found = reference.get(key), values.get(key)
        if wanted not in (found, "auto") and key not in conditions and not key.startswith(_INDIFFERENT):
            yield Unmet(key, wanted, found)
    if clips_of(shift) == "video_hard" and config.eval.clips is not None:
        yield Unmet("eval.clips", "all", "{} to {}".format(*config.eval.clips))


def _unmet_shares(
    config: Config, published_name: str, column: str, sessions: Iterable[Mapping[str, Any]]
) -> Iterator[Unmet]:
    """What the printed score's runs measured, and this one has of somebody's choice."""
    _, reference = _reference(published_name, config.task, column)
    by_hand = {name: value for session in sessions for name, value in set_by_hand(config, session).items()}
    for name, value in by_hand.items():
        key = f"{agent_class(config.agent).SECTION}.{name}"
        if reference.get(key) == "auto":
            yield Unmet(key, "as measured", value)


def _unmet_data(config: Config, shift: str, session: Mapping[str, Any]) -> Iterator[Unmet]:
    """What all printed scores are of: a replay that was kept, photographs as overlay images, and the whole
    benchmark as backgrounds.

    Whatever else a damaged provenance holds meets it.
    """
    for when in replay_emptied(session):
        yield Unmet("replay", "kept throughout", f"emptied {when}")
    if recorded(session, "overlay").get("source") == "procedural" and draws_overlays(config):
        yield Unmet("overlay images", "photographs", "procedural")
    data, sources = recorded(session, "data"), backgrounds_of([shift])
    if sources and data.get("source") == "procedural":
        yield Unmet("backgrounds", "the benchmark's", "procedural")
        return
    for source in sources:
        kind, whole = ("clips", CLIPS[source]) if source in CLIPS else ("presets", PRESETS)
        count = recorded(data, source).get(kind)
        if isinstance(count, int) and count < whole:
            yield Unmet(f"{kind} of {source}", whole, count)


def _same_method(config: Config, published_name: str, column: str) -> bool:
    """Whether a run is of a column's agent, with its losses and what else tells its columns apart."""
    conditions = tables()[published_name].conditions_of(config.task, column)
    if config.agent != conditions.get("agent", column):
        return False
    _, reference = _reference(published_name, config.task, column)
    values = _values(config)
    own = [key for key in conditions if "agent" in conditions and key.startswith(f"{config.agent}.")]
    switched = [f"losses.{term}" for term in config.losses]
    return all(bool(values[key]) == bool(reference[key]) for key in switched) and all(
        values[key] == conditions[key] for key in own
    )


@cache
def _reference(published_name: str, task: str, column: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """What a printed cell states of its runs, and all settings of a run that meets it; keys are dotted."""
    conditions = tables()[published_name].conditions_of(task, column)
    agent = conditions.pop("agent", column)
    overrides = [f"{key}={json.dumps(_alternatives(value)[0])}" for key, value in conditions.items()]
    return conditions, _values(load(agent, task, "paper", overrides=overrides))


def _values(config: Config) -> dict[str, Any]:
    section = agent_class(config.agent).SECTION
    values = config.model_dump(mode="json")
    settings = values.pop("settings")
    found = dict(flattened(values | ({section: settings} if section is not None else {})))
    if config.replay.capacity >= config.train.steps:
        found["replay.capacity"] = "every transition"
    return found
