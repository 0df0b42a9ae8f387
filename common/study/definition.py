"""What makes up a study: a YAML file of tasks × agents × seeds, expanded into runs that are checked at once.

    published: smg_video_hard            # the printed table to stand beside, or null
    shifts: [video_hard]                 # whose returns the table shows, groups as in eval.shifts included
    seeds: [0, 1, 2, 3]
    preset: paper
    settings: {train: {batch: 64}}       # of every run; keys of configs/default.yaml
    tasks:                               # rows; a list, or a mapping to settings of that task alone
      cartpole_swingup: {env: {action_repeat: 8}}
    agents:                              # columns; likewise. `agent` and `config` (files, as in smg train
      sac: {}                            #   --config) may stand among the settings
      smg: {}
      no_background: {agent: smg, losses: {background: 0}}
    more:                                # runs beyond that grid: a fifth seed of two cells, a row of one cell
      - {tasks: [cartpole_swingup], agents: [sac, smg], seeds: [4]}
      - {tasks: {reacher_easy: {train: {steps: 50_000}}}, agents: [smg], seeds: [0]}
    subject: smg                         # the column that the others are compared with; by default the last
    folder: studies/smg_video_hard       # where the runs are
    layout: "{task}/{agent}/seed{seed}"  # a run's folder in it; the agent is the column
    resources: {gpus: 0.25, cpus: 4, memory: 24}    # of one run on a cluster: shares of GPUs, cores, GB

A run's settings are the study's, then its task's, then its column's, then those of the command line. A task
or column has its settings where it first stands in the file, and keeps them wherever it is named again. A
preset named on the command line also beats what the file says for the keys which that preset sets, so
that `preset=smoke` makes any study small.
"""

import itertools
import json
import re
from collections import ChainMap
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from common.config.loading import COMMAND_LINE, CONFIGS, load, yaml_files
from common.config.registry import is_import_path
from common.config.schema import Config, Folder, Section, Seed
from common.config.shifts import expand
from common.config.yaml_files import flattened
from common.errors import UserError, did_you_mean
from common.run import published

Settings = dict[str, object]
"""Nested keys and values, as YAML has them."""


def _named_settings(value: object) -> object:
    """A list of names as a mapping to no settings; an empty value in a mapping likewise."""
    if isinstance(value, str):
        value = [value]
    if isinstance(value, yaml_files.Items):
        value = value.texts()
    if isinstance(value, list):
        if not all(map(_is_text, value)):
            return value
        repeated = {name for name in value if value.count(name) > 1}
        if repeated:
            raise ValueError(f"{min(repeated)} is listed twice, so two runs would share a folder")
        return {name: {} for name in value}
    if isinstance(value, dict):
        return {name: {} if settings is None else settings for name, settings in value.items()}
    return value


def _names(value: object) -> Collection[object]:
    if isinstance(value, yaml_files.Items):
        return value.texts()
    return value if isinstance(value, dict | list) else (value,)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _distinct(value: object) -> tuple[object, ...]:
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    for item in values:
        if values.count(item) > 1:
            raise ValueError(f"{item} is listed twice, so two runs would share a folder")
    return values


Named = Annotated[dict[str, Settings], BeforeValidator(_named_settings), Field(min_length=1)]
Seeds = Annotated[tuple[Seed, ...], BeforeValidator(_distinct), Field(min_length=1)]


def _a_share_or_whole(gpus: float) -> float:
    # As Ray has it; a run trains on one GPU in any case.
    if gpus > 1 and not gpus.is_integer():
        raise ValueError(f"{gpus:g} is neither a share of one GPU nor a whole number of them")
    return gpus


class Resources(Section):
    """What one run asks of a cluster."""

    gpus: Annotated[float, Field(ge=0), AfterValidator(_a_share_or_whole)] = 1
    cpus: Annotated[float, Field(gt=0)] = 2
    memory: Annotated[float, Field(gt=0)] | None = None
    """GB of host memory; None asks for none in particular."""


class Grid(Section):
    """A run for each task, agent and seed."""

    tasks: Named
    agents: Named
    seeds: Seeds


class StudyFile(Grid):
    """The file's keys; see the module's example."""

    published: str | None = None
    shifts: Annotated[tuple[str, ...], BeforeValidator(_distinct), Field(min_length=1)]
    preset: str = "paper"
    settings: Settings = Field(default_factory=dict)
    more: Annotated[tuple[Grid, ...], Field(strict=False)] = ()
    subject: str | None = None
    folder: Folder | None = None
    layout: str = "{task}/{agent}/seed{seed}"
    resources: Resources = Resources()

    def all_tasks(self) -> Mapping[str, Settings]:
        """The settings of every task by name, as they stand where it is named first."""
        return ChainMap(self.tasks, *(grid.tasks for grid in self.more))

    def all_agents(self) -> Mapping[str, Settings]:
        """The settings of every column by name, as they stand where it is named first."""
        return ChainMap(self.agents, *(grid.agents for grid in self.more))


@dataclass(frozen=True, eq=False)
class PlannedRun:
    """One run of a study: its place in the table, its folder and what `smg train` gets to begin it."""

    task: str
    column: str
    seed: int
    folder: Path
    config: Config
    arguments: tuple[str, ...]

    @property
    def name(self) -> str:
        """<task>/<column>/seed<seed>."""
        return f"{self.task}/{self.column}/seed{self.seed}"

    @property
    def foreign_code(self) -> bool:
        """Whether the agent is package.module:Class, which the study's author thereby vouches for."""
        return is_import_path(self.config.agent)


@dataclass(frozen=True)
class Study:
    """A checked study: all its runs, in the order in which they are done."""

    name: str
    source: str
    published: str | None
    shifts: tuple[str, ...]
    tasks: tuple[str, ...]
    columns: tuple[str, ...]
    seeds: tuple[int, ...]
    preset: str
    subject: str
    folder: Path
    resources: Resources
    runs: tuple[PlannedRun, ...]
    settings: tuple[str, ...]
    """What every run is given on top of configs/, as `key=value` texts."""
    original: StudyFile | None = None
    """The file without the overrides, if there were any."""

    def seeds_of(self, task: str, column: str) -> tuple[int, ...]:
        """The seeds of a cell's runs; none for a cell that the study leaves out."""
        return tuple(run.seed for run in self.runs if (run.task, run.column) == (task, column))


def load_study(path: str | Path, overrides: Iterable[str] = ()) -> Study:
    """Read a study and check every run of it.

    Args:
        path: a YAML file, or the name of one in configs/studies/.
        overrides: `key=value` texts. A study's own keys (`tasks=[walker_walk]`, `agents=[sac,smg]`,
            `seeds=[0]`, `shifts`, `preset`, `folder`, `resources.cpus` …) replace the file's; tasks and
            agents that the file lists keep their settings, and of its runs beyond the grid those stay that
            are of these tasks, agents and seeds. All others are settings of every run.

    Raises:
        UserError: the file is not a study, or a run of it could not start; the message names the cell.
    """
    source, stem = _find(path)
    values = yaml_files.read_mapping(source, str(path))
    original = _validated(values, str(path))
    _refuse_second_settings(original, str(path))
    settings, replaced = _override(values, original, overrides)
    file = _validated(values, str(path))
    # A selection may leave the subject out; then the last column stands for it.
    columns = [*file.all_agents(), *original.all_agents()]
    if file.subject is not None and file.subject not in columns:
        raise UserError(f"{path}: subject: {did_you_mean(file.subject, columns)}")
    study = _expand(file, str(path), stem, settings, replaced)
    return study if file == original and not settings else replace(study, original=original)


def _override(
    values: yaml_files.Mapping, original: StudyFile, overrides: Iterable[str]
) -> tuple[list[str], set[str]]:
    """Put the command line's values for the study's own keys in the place of its file's.

    Args:
        values: of the file, which are changed.
        original: the file before that.
        overrides: `key=value` texts.

    Returns:
        The texts that are settings of every run instead, and the sections that were replaced as a whole.

    Raises:
        UserError: a text is no `key=value`, or its key leads nowhere.
    """
    settings: list[str] = []
    replaced: set[str] = set()
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UserError(f"{COMMAND_LINE}: '{text}' is not of the form key=value")
        section, _, rest = key.partition(".")
        if section == "settings" or section not in StudyFile.model_fields:
            settings.append(text)
            continue
        given = yaml_files.typed(key.rpartition(".")[2], value, f"{COMMAND_LINE}: {key}")
        if not rest:
            yaml_files.take(values, section, given)
            if section in ("tasks", "agents"):
                known = original.all_tasks() if section == "tasks" else original.all_agents()
                values[section] = _selection(given.written.get(section, given[section]), known)
            replaced.add(section)
        elif section in ("tasks", "agents"):
            name = rest.partition(".")[0]
            named = [grid for grid in values.get("more", ()) if name in _names(grid[section])]
            holder = values if name in _names(values[section]) or not named else named[0]
            holder[section] = _assigned(_named_settings(holder[section]), rest, given, key)
        elif section == "resources":
            values[section] = _assigned(values.get(section, {}), rest, given, key)
        else:
            raise UserError(f"{COMMAND_LINE}: {key}: {section} is one value; write {section}=…")
    return settings, replaced


def as_written(study: Study) -> dict[tuple[str, str], Config]:
    """Task and column → configuration as the file has it, for the cells of a study with overrides."""
    original = study.original
    if original is None:
        return {}
    cells = dict.fromkeys((run.task, run.column) for run in study.runs)
    return {
        (task, column): _cell_config(original, task, column, study.source)[0]
        for task, column in cells
        if task in original.all_tasks() and column in original.all_agents()
    }


def _find(path: str | Path) -> tuple[Path, str]:
    """The study's file, also as configs/… from anywhere or by its bare name, and its name."""
    given = Path(path)
    candidates = [given]
    if given.parts[:1] == ("configs",):
        candidates.append(CONFIGS.parent / given)
    if given.name == str(path) and given.suffix == "":
        candidates.append(CONFIGS / "studies" / f"{given.name}.yaml")
    found = next((candidate for candidate in candidates if candidate.is_file()), None)
    if found is None:
        known = sorted(file.stem for file in (CONFIGS / "studies").glob("*.yaml"))
        raise UserError(f"{path}: no such study; {did_you_mean(given.stem, known)}")
    return found, found.stem


def _selection(chosen: object, listed: Mapping[str, Settings]) -> object:
    """Names from the command line, with the settings that the file has for them."""
    try:
        named = _named_settings(chosen)
    except ValueError as error:
        raise UserError(f"{COMMAND_LINE}: {error}") from error
    if not isinstance(named, dict):
        return named
    return {name: settings or listed.get(name, {}) for name, settings in named.items()}


def _assigned(values: object, dotted: str, given: yaml_files.Mapping, key: str) -> Settings:
    """The nested mapping with the given value in its place; `dotted` leads to it."""
    if not isinstance(values, dict):
        raise UserError(f"{COMMAND_LINE}: {key}: there is no mapping to put {dotted} into")
    first, _, rest = dotted.partition(".")
    inner = {first: _assigned(values.get(first) or {}, rest, given, key)} if rest else given
    changed = yaml_files.Mapping()
    for source in (values, inner):
        for name in source:
            yaml_files.take(changed, name, source)
    return changed


def _validated(values: Mapping[str, object], source: str) -> StudyFile:
    try:
        return StudyFile.model_validate(values)
    except ValidationError as error:
        # A misspelt key also leaves the right one missing.
        first = min(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
        key = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            section, *inner = map(str, first["loc"])
            within = {"resources": Resources, "more": Grid}.get(section, StudyFile) if inner else StudyFile
            nearest = did_you_mean(str(first["loc"][-1]), within.model_fields)
            raise UserError(f"{source}: unknown key '{key}'; {nearest}") from error
        if first["type"] == "missing":
            raise UserError(f"{source}: {key}: missing; give it a value") from error
        message = first["msg"].removeprefix("Value error, ")
        raise UserError(f"{source}: {key}: {message[:1].lower()}{message[1:]}") from error


def _refuse_second_settings(file: StudyFile, source: str) -> None:
    for known, section in ((file.all_tasks(), "tasks"), (file.all_agents(), "agents")):
        for grid in file.more:
            for name, settings in getattr(grid, section).items():
                if settings and settings != known[name]:
                    raise UserError(f"{source}: more: give {name} its settings where it is named first")


def _expand(file: StudyFile, source: str, name: str, given: list[str], replaced: set[str]) -> Study:
    """All runs of a study; `given` and `replaced` are the command line's settings and sections."""
    if file.published is not None and file.published not in published.tables():
        raise UserError(
            f"{source}: unknown published table '{file.published}'; "
            f"{did_you_mean(file.published, published.tables())}"
        )
    beaten = set(_preset_keys(file.preset)) if "preset" in replaced else set()
    folder = Path(file.folder or Path("studies", name))
    cells: dict[tuple[str, str], tuple[Config, tuple[str, ...]]] = {}
    runs = []
    owners: dict[Path, str] = {}
    for task, column, seed in _keys(file, replaced):
        if (task, column) not in cells:
            cells[task, column] = _cell_config(file, task, column, source, given, beaten)
        config, arguments = cells[task, column]
        run_folder = folder / _run_folder(file.layout, task, column, seed, source)
        own_name = f"{task}/{column}/seed{seed}"
        if owners.setdefault(run_folder, own_name) != own_name:
            raise UserError(
                f"{source}: layout: {owners[run_folder]} and {own_name} would share the folder {run_folder}: "
                "put a / between the placeholders"
            )
        own = config.model_copy(
            update={"seed": seed, "run": config.run.model_copy(update={"dir": str(run_folder)})}
        )
        # Nodes and shells may stand elsewhere; the folder must not move with them.
        texts = (*arguments, f"seed={seed}", f"run.dir={_text(str(run_folder.absolute()))}")
        runs.append(PlannedRun(task, column, seed, run_folder, own, texts))
    columns = tuple(dict.fromkeys(run.column for run in runs))
    subject = file.subject or ""
    return Study(
        name=name,
        source=source,
        published=file.published,
        shifts=_shifts(file),
        tasks=tuple(dict.fromkeys(run.task for run in runs)),
        columns=columns,
        seeds=tuple(dict.fromkeys(run.seed for run in runs)),
        preset=file.preset,
        subject=subject if subject in columns else list(file.agents)[-1],
        folder=folder,
        resources=file.resources,
        runs=tuple(runs),
        settings=(*_texts(file.settings, beaten), *given),
    )


def _keys(file: StudyFile, replaced: set[str]) -> dict[tuple[str, str, int], None]:
    """Task, column and seed of each run, once, in order.

    They come seed by seed, so that a study stopped half-way shows the whole table with fewer seeds.
    """
    chosen = {axis: getattr(file, axis) for axis in ("tasks", "agents", "seeds") if axis in replaced}
    found: dict[tuple[str, str, int], None] = {}
    for grid in (file, *file.more):
        for seed, task, column in itertools.product(grid.seeds, grid.tasks, grid.agents):
            key = {"tasks": task, "agents": column, "seeds": seed}
            if all(key[axis] in values for axis, values in chosen.items()):
                found[task, column, seed] = None
    return found


def _run_folder(layout: str, task: str, column: str, seed: int, source: str) -> str:
    """A run's folder within the study's, which it cannot leave and shares with no other run."""
    parts = Path(layout).parts
    if (
        not all(f"{{{name}}}" in layout for name in ("task", "agent", "seed"))
        or ".." in parts
        or "/" in parts
    ):
        raise UserError(
            f"{source}: layout: should be a path below the folder with {{task}}, {{agent}} and {{seed}}"
        )
    return layout.replace("{task}", task).replace("{agent}", column).replace("{seed}", str(seed))


def _cell_config(
    file: StudyFile,
    task: str,
    column: str,
    source: str,
    given: Iterable[str] = (),
    beaten: Collection[str] = (),
) -> tuple[Config, tuple[str, ...]]:
    """A cell's configuration, and the arguments of `smg train` for it but for seed and folder.

    Args:
        file: the study.
        task: the cell's row.
        column: the cell's column.
        source: how messages call the study.
        given: settings of the command line, `key=value`.
        beaten: keys of the file that the command line's preset overrides.
    """
    where = f"{source}: {task}/{column}"
    for axis, name in (("task", task), ("agent", column)):
        if not re.fullmatch(r"[A-Za-z0-9_+-][A-Za-z0-9._+-]*", name):
            raise UserError(f"{where}: {axis} '{name}' is no folder name: use letters, digits, . _ + and -")
    own = dict(file.all_agents()[column])
    agent = own.pop("agent", column)
    files = own.pop("config", [])
    files = [files] if isinstance(files, str) else files
    if not isinstance(agent, str) or not isinstance(files, list) or not all(map(_is_text, files)):
        raise UserError(f"{where}: agent should be a name and config a list of files")
    layers = (file.settings, file.all_tasks()[task], own)
    settings = [*(text for layer in layers for text in _texts(layer, beaten)), *given]
    for text in settings:
        key = text.partition("=")[0]
        if key.partition(".")[0] in ("agent", "task", "seed", "preset", "run"):
            raise UserError(f"{where}: {key} is not a setting: the study decides it for each run")
    try:
        config = load(agent, task, file.preset, files, settings)
    except UserError as error:
        raise UserError(f"{where}: {str(error).removeprefix(f'{COMMAND_LINE}: ')}") from error
    for shift in _shifts(file):
        if shift not in config.eval.shifts:
            known = ", ".join(config.eval.shifts)
            raise UserError(
                f"{where}: the table shows {shift}, which the run is not evaluated under ({known})"
            )
    selection = ["--agent", agent, "--task", task, "--preset", file.preset]
    for name in files:
        selection += ["--config", name]
    return config, (*selection, *settings)


def _shifts(file: StudyFile) -> tuple[str, ...]:
    """The shifts of the table, with those that its groups stand for on any of its tasks."""
    return tuple(dict.fromkeys(shift for task in file.all_tasks() for shift in expand(file.shifts, task)))


def _preset_keys(preset: str) -> Iterator[str]:
    path = CONFIGS / "presets" / f"{preset}.yaml"
    # An unknown preset is reported when the first run is checked.
    if path.is_file():
        yield from (key for key, _ in flattened(yaml_files.read_mapping(path)))


def _texts(settings: Settings, beaten: Collection[str]) -> list[str]:
    return [
        f"{key}={_written(settings, key) or _text(value)}"
        for key, value in flattened(settings)
        if key not in beaten
    ]


def _written(settings: object, key: str) -> str | None:
    """How a value that YAML takes for no text stands in the file."""
    if not isinstance(settings, dict):
        return None
    first, _, rest = key.partition(".")
    if rest and first in settings:
        return _written(settings[first], rest)
    return settings.written.get(key) if isinstance(settings, yaml_files.Mapping) else None


def _text(value: object) -> str:
    """A value in YAML on one line; text as it is, where it reads back the same."""
    if isinstance(value, str):
        try:
            if value.isprintable() and yaml_files.parse(value, "") == value:
                return value
        except UserError:
            pass
    return json.dumps(value)
