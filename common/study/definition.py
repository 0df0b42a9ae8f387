"""What makes up a study: a YAML file of tasks × agents × seeds, expanded into runs that are checked at once.

    published: smg_video_hard            # the printed table to stand beside, or null
    shifts: [video_hard]                 # whose returns the table shows
    seeds: [0, 1, 2, 3]
    preset: paper
    settings: {train: {batch: 64}}       # of every run; keys of configs/default.yaml
    tasks:                               # rows; a list, or a mapping to settings of that task alone
      cartpole_swingup: {env: {action_repeat: 8}}
    agents:                              # columns; likewise. `agent` and `config` (files, as in smg train
      sac: {}                            #   --config) may stand among the settings
      no_background: {agent: smg, losses: {background: 0}}
    subject: smg                         # the column that the others are compared with; by default the last
    folder: studies/smg_video_hard       # where the runs are
    layout: "{task}/{agent}/seed{seed}"  # a run's folder in it; the agent is the column
    resources: {gpus: 0.25, cpus: 4, memory: 24}    # of one run on a cluster: shares of GPUs, cores, GB

A run's settings are the study's, then its task's, then its column's, then those of the command line. A
preset named on the command line also beats what the file says for the keys which that preset sets, so
that `preset=smoke` makes any study small.
"""

import copy
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from common.config.loading import COMMAND_LINE, CONFIGS, load, yaml_files
from common.config.registry import is_import_path
from common.config.schema import Config, Folder, Section, Seed
from common.errors import UserError, did_you_mean
from common.run import published

Settings = dict[str, Any]


def _named_settings(value: Any) -> Any:
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


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _distinct(value: Any) -> Any:
    values = value if isinstance(value, list) else [value]
    for item in values:
        if values.count(item) > 1:
            raise ValueError(f"{item} is listed twice, so two runs would share a folder")
    return tuple(values)


Named = Annotated[dict[str, Settings], BeforeValidator(_named_settings), Field(min_length=1)]


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


class StudyFile(Section):
    """The file's keys; see the module's example."""

    published: str | None = None
    shifts: Annotated[tuple[str, ...], BeforeValidator(_distinct), Field(min_length=1)]
    seeds: Annotated[tuple[Seed, ...], BeforeValidator(_distinct), Field(min_length=1)]
    preset: str = "paper"
    settings: Settings = Field(default_factory=dict)
    tasks: Named
    agents: Named
    subject: str | None = None
    folder: Folder | None = None
    layout: str = "{task}/{agent}/seed{seed}"
    resources: Resources = Resources()


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


def load_study(path: str | Path, overrides: Iterable[str] = ()) -> Study:
    """Read a study and check every run of it.

    Args:
        path: a YAML file, or the name of one in configs/studies/.
        overrides: `key=value` texts. A study's own keys (`tasks=[walker_walk]`, `agents=[sac,smg]`,
            `seeds=[0]`, `shifts`, `preset`, `folder`, `resources.cpus` …) replace the file's; tasks and
            agents that the file lists keep their settings. All others are settings of every run.

    Raises:
        UserError: the file is not a study, or a run of it could not start; the message names the cell.
    """
    source, stem = _find(path)
    values = yaml_files.read_mapping(source, str(path))
    written = copy.deepcopy(values)
    settings: list[str] = []
    preset_given = False
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UserError(f"{COMMAND_LINE}: '{text}' is not of the form key=value")
        section, _, rest = key.partition(".")
        if section == "settings" or section not in StudyFile.model_fields:
            settings.append(text)
            continue
        given = yaml_files.typed(key.rpartition(".")[2], value, f"{COMMAND_LINE}: {key}")
        if section in ("tasks", "agents"):
            listed = _named_settings_or_error(values.get(section, {}), f"{path}: {section}")
            names = given.written.get(section, given.get(section))
            values[section] = _assigned(listed, rest, given, key) if rest else _selection(names, listed)
        elif rest and section == "resources":
            values[section] = _assigned(values.get(section) or {}, rest, given, key)
        elif rest:
            raise UserError(f"{COMMAND_LINE}: {key}: {section} is one value; write {section}=…")
        else:
            yaml_files.take(values, section, given)
        preset_given |= section == "preset"
    file = _validated(values, str(path))
    original = file if values == written else _validated(written, str(path))
    # A selection may leave the subject out; then the last column stands for it.
    columns = [*file.agents, *original.agents]
    if file.subject is not None and file.subject not in columns:
        raise UserError(f"{path}: subject: {did_you_mean(file.subject, columns)}")
    study = _expand(file, str(path), stem, settings, preset_given)
    if not settings and values == written:
        return study
    return replace(study, original=original)


def as_written(study: Study) -> dict[tuple[str, str], Config]:
    """Task and column → configuration as the file has it, for the cells of a study with overrides."""
    original = study.original
    if original is None:
        return {}
    common = _texts(original.settings, set())
    return {
        (task, column): _cell(original, task, column, common, set(), [], study.source)[0]
        for task in study.tasks
        for column in study.columns
        if task in original.tasks and column in original.agents
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


def _selection(chosen: Any, listed: Any) -> Any:
    """Names from the command line, with the settings that the file has for them."""
    named = _named_settings_or_error(chosen)
    if not isinstance(listed, dict) or not isinstance(named, dict):
        return named
    return {name: settings or listed.get(name, {}) for name, settings in named.items()}


def _named_settings_or_error(value: Any, source: str = COMMAND_LINE) -> Any:
    try:
        return _named_settings(value)
    except ValueError as error:
        raise UserError(f"{source}: {error}") from error


def _assigned(values: Any, dotted: str, given: yaml_files.Mapping, key: str) -> Settings:
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


def _validated(values: Settings, source: str) -> StudyFile:
    try:
        return StudyFile.model_validate(values)
    except ValidationError as error:
        # A misspelt key also leaves the right one missing.
        first = min(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
        key = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            last = str(first["loc"][-1])
            known = Resources.model_fields if len(first["loc"]) > 1 else StudyFile.model_fields
            raise UserError(f"{source}: unknown key '{key}'; {did_you_mean(last, known)}") from error
        if first["type"] == "missing":
            raise UserError(f"{source}: {key}: missing; give it a value") from error
        message = first["msg"].removeprefix("Value error, ")
        raise UserError(f"{source}: {key}: {message[:1].lower()}{message[1:]}") from error


def _expand(file: StudyFile, source: str, name: str, given: list[str], preset_given: bool) -> Study:
    if file.published is not None and file.published not in published.TABLES:
        raise UserError(
            f"{source}: unknown published table '{file.published}'; "
            f"{did_you_mean(file.published, published.TABLES)}"
        )
    subject = file.subject or list(file.agents)[-1]
    if subject not in file.agents:
        subject = list(file.agents)[-1]
    folder = Path(file.folder or Path("studies", name))
    beaten = set(_preset_keys(file.preset)) if preset_given else set()
    common = _texts(file.settings, beaten)
    cells = {
        (task, column): _cell(file, task, column, common, beaten, given, source)
        for task in file.tasks
        for column in file.agents
    }
    runs = []
    owners: dict[Path, str] = {}
    # Seed by seed, so that a study stopped half-way shows the whole table with fewer seeds.
    for seed in file.seeds:
        for (task, column), (config, arguments) in cells.items():
            place = folder / _place(file.layout, task, column, seed, source)
            own_name = f"{task}/{column}/seed{seed}"
            if owners.setdefault(place, own_name) != own_name:
                raise UserError(
                    f"{source}: layout: {owners[place]} and {own_name} would share the folder {place}: put a "
                    "/ between the placeholders"
                )
            own = config.model_copy(
                update={"seed": seed, "run": config.run.model_copy(update={"dir": str(place)})}
            )
            # Nodes and shells may stand elsewhere; the folder must not move with them.
            texts = (*arguments, f"seed={seed}", f"run.dir={_text(str(place.absolute()))}")
            runs.append(PlannedRun(task, column, seed, place, own, texts))
    return Study(
        name=name,
        source=source,
        published=file.published,
        shifts=file.shifts,
        tasks=tuple(file.tasks),
        columns=tuple(file.agents),
        seeds=file.seeds,
        preset=file.preset,
        subject=subject,
        folder=folder,
        resources=file.resources,
        runs=tuple(runs),
        settings=(*common, *given),
    )


def _place(layout: str, task: str, column: str, seed: int, source: str) -> str:
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


def _cell(
    file: StudyFile,
    task: str,
    column: str,
    common: list[str],
    beaten: set[str],
    given: list[str],
    source: str,
) -> tuple[Config, tuple[str, ...]]:
    """A cell's configuration, and the arguments of `smg train` for it but for seed and folder."""
    where = f"{source}: {task}/{column}"
    for kind, name in (("task", task), ("agent", column)):
        if not re.fullmatch(r"[A-Za-z0-9_+-][A-Za-z0-9._+-]*", name):
            raise UserError(f"{where}: {kind} '{name}' is no folder name: use letters, digits, . _ + and -")
    own = dict(file.agents[column])
    agent = own.pop("agent", column)
    files = own.pop("config", [])
    files = [files] if isinstance(files, str) else files
    if not isinstance(agent, str) or not isinstance(files, list) or not all(map(_is_text, files)):
        raise UserError(f"{where}: agent should be a name and config a list of files")
    settings = [*common, *_texts(file.tasks[task], beaten), *_texts(own, beaten), *given]
    for text in settings:
        key = text.partition("=")[0]
        if key.partition(".")[0] in ("agent", "task", "seed", "preset", "run"):
            raise UserError(f"{where}: {key} is not a setting: the study decides it for each run")
    try:
        config = load(agent, task, file.preset, files, settings)
    except UserError as error:
        raise UserError(f"{where}: {str(error).removeprefix(f'{COMMAND_LINE}: ')}") from error
    for shift in file.shifts:
        if shift not in config.eval.shifts:
            known = ", ".join(config.eval.shifts)
            raise UserError(
                f"{where}: the table shows {shift}, which the run is not evaluated under ({known})"
            )
    selection = ["--agent", agent, "--task", task, "--preset", file.preset]
    for name in files:
        selection += ["--config", name]
    return config, (*selection, *settings)


def _preset_keys(preset: str) -> Iterator[str]:
    path = CONFIGS / "presets" / f"{preset}.yaml"
    # An unknown preset is reported when the first run is checked.
    if path.is_file():
        yield from (key for key, _ in flattened(yaml_files.read_mapping(path)))


def _texts(settings: Settings, beaten: set[str]) -> list[str]:
    return [
        f"{key}={_written(settings, key) or _text(value)}"
        for key, value in flattened(settings)
        if key not in beaten
    ]


def _written(settings: Settings, key: str) -> str | None:
    """How a value that YAML takes for no text stands in the file."""
    first, _, rest = key.partition(".")
    if rest and isinstance(settings.get(first), dict):
        return _written(settings[first], rest)
    return settings.written.get(key) if isinstance(settings, yaml_files.Mapping) else None


def flattened(settings: Settings, at: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings as (dotted key, value); an augmentation is one value, whatever its form."""
    for key, value in settings.items():
        dotted = f"{at}{key}"
        if isinstance(value, dict) and value and dotted != "augmentation":
            yield from flattened(value, f"{dotted}.")
        else:
            yield dotted, value


def _text(value: Any) -> str:
    """A value in YAML on one line; text as it is, where it reads back the same."""
    if isinstance(value, str):
        try:
            if value.isprintable() and yaml_files.parse(value, "") == value:
                return value
        except UserError:
            pass
    return json.dumps(value)
