"""The finished runs of a study, and whether they may stand in one table."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from common.config.shifts import ROBOT_TASKS
from common.errors import UserError
from common.run.data_sources import data_sources, recorded
from common.run.records import diverged_among
from common.run.run_folder import AGENT_CODE, replay_emptied
from common.run.shifts import hardly_shown, recorded_shares
from common.study.definition import PlannedRun, Study, as_written
from common.study.folders import FoundRun, State, differences, read

IN_TURN = ", then "
"""Between what was so in earlier sessions of a run and what was in later ones."""


@dataclass(frozen=True)
class Results:
    """What the folders of all runs of a study say, and what to know when reading their numbers."""

    study: Study
    found_runs: tuple[FoundRun, ...]
    notes: tuple[str, ...] = ()

    @property
    def done(self) -> list[FoundRun]:
        """The finished runs: only these enter tables."""
        return [found for found in self.found_runs if found.state is State.DONE]

    @property
    def left_out(self) -> list[FoundRun]:
        """Runs that have begun and are not finished, or are damaged."""
        return [found for found in self.found_runs if found.state not in (State.DONE, State.MISSING)]

    def done_in(self, task: str, column: str) -> list[FoundRun]:
        """The finished runs of a cell, by seed."""
        return [found for found in self.done if found.run.task == task and found.run.column == column]

    def found_in(self, task: str, column: str) -> list[FoundRun]:
        """A cell's runs in whatever state, by seed."""
        return [found for found in self.found_runs if (found.run.task, found.run.column) == (task, column)]


def collect(study: Study, mix: bool = False) -> Results:
    """Read all run folders of a study.

    Args:
        study: the study.
        mix: allow runs in one table whose numbers do not measure the same.

    Raises:
        UserError: finished runs differ in what their numbers mean, and `mix` was not asked for.
    """
    results = Results(study, tuple(map(read, study.runs)))
    reasons = mixtures(results)
    if reasons and not mix:
        raise UserError(
            f"{study.source}: these runs do not belong in one table: {'; '.join(reasons)}. "
            "Leave some out with tasks=, agents= or seeds=, or put them together with --mix"
        )
    notes = [f"Runs that differ are mixed here: {reason}." for reason in reasons]
    notes = [
        *_conditions_note(results),
        *notes,
        *_departures(results),
        *_commits(results),
        *_agent_code(results),
    ]
    notes += [*_emptied(results), *_diverged(results)]
    return Results(study, results.found_runs, (*notes, *_hardly_shown(results)))


def changes(found: FoundRun) -> list[str]:
    """What a resume changed of a run, or may have, each in one clause. A run may be prolonged.

    What the data of readable sessions were is among their `conditions`.
    """
    assert found.config is not None
    clauses = []
    if not all(found.earlier):
        clauses.append(f"what data an earlier session of {found.run.name} had cannot be read")
    for when, before in found.earlier_settings.items():
        if isinstance(before, str):
            clauses.append(f"settings {when} of {found.run.name} cannot be read ({before})")
            continue
        clauses += [
            f"{key}: {old} {when} of {found.run.name}, then {new}"
            for key, old, new in differences(before, found.config)
            if not key.startswith(("train.log_every", "eval.", "checkpoint."))
        ]
    return clauses


def conditions(found: FoundRun, shifts: Iterable[str]) -> dict[str, str]:
    """What must be the same in all runs of a table, and in all sessions of each, to compare their returns."""
    config = found.config
    assert config is not None
    values = {
        "preset": config.preset,
        "episodes": f"{config.eval.episodes} per seed",
        "model variant": config.env.model,
        "shadow map": f"of {config.env.shadow_size} texels" if config.env.shadow_size else "the model's own",
        _camera(config.task): str(config.env.camera),
    }
    told: dict[str, list[str]] = {}
    told_of = [session for session in found.earlier if "data" in session]
    for session in (*told_of, found.provenance):
        for name, text in data_sources(config, session, shifts).items():
            told.setdefault(name, []).append(text)
    values |= {name: IN_TURN.join(dict.fromkeys(texts)) for name, texts in told.items()}
    if "backgrounds of video_hard" in told:
        clips = config.eval.clips
        values["clips shown"] = "all" if clips is None else f"{clips[0]} to {clips[1]}"
    return values


def _camera(task: str) -> str:
    return f"camera of {task}"


def mixtures(results: Results) -> list[str]:
    """Why the finished runs should not stand in one table, each in one clause."""
    values: dict[str, dict[str, list[str]]] = {}
    for found in results.done:
        for name, value in conditions(found, results.study.shifts).items():
            values.setdefault(name, {}).setdefault(value, []).append(found.run.name)
    reasons = []
    for name, groups in values.items():
        if len(groups) > 1 or any(IN_TURN in value for value in groups):
            parts = [f"{value} in {_examples(runs)}" for value, runs in groups.items()]
            reasons.append(f"{name}: {', but '.join(parts)}")
    reasons += _unplanned_lengths(results)
    reasons += [clause for found in results.done for clause in changes(found)]
    if reasons:
        return reasons
    for task in results.study.tasks:
        for column in results.study.columns:
            cell = results.done_in(task, column)
            for found in cell[1:]:
                assert cell[0].config is not None and found.config is not None
                for key, one, two in differences(cell[0].config, found.config):
                    reasons.append(f"{key}: {one} in {cell[0].run.name}, but {two} in {found.run.name}")
    return reasons


def _examples(runs: list[str]) -> str:
    """`walker_walk/smg/seed0`, or `3 runs such as` that."""
    return runs[0] if len(runs) == 1 else f"{len(runs)} runs such as {runs[0]}"


def _unplanned_lengths(results: Results) -> list[str]:
    """Which runs are longer or shorter than the study plans, where not all runs are equally long."""
    lengths: set[int] = set()
    unplanned: dict[str, list[FoundRun]] = {}
    for found in results.done:
        assert found.config is not None
        steps, planned = found.config.train.steps, found.run.config.train.steps
        lengths.add(steps)
        if steps != planned:
            unplanned.setdefault(f"{steps} instead of {planned}", []).append(found)
    if not unplanned or len(lengths) == 1:
        return []
    return [f"train.steps: unequal, {_whose(unplanned, results)}"]


def _whose(groups: Mapping[str, list[FoundRun]], results: Results) -> str:
    """`x in every run of drq, y in walker_walk/smg/seed0`: texts and the finished runs that they hold for."""
    done = [found.run for found in results.done]
    parts = []
    for text, found_runs in groups.items():
        chosen = [found.run for found in found_runs]
        names = dict.fromkeys(_largest_whole(run, chosen, done) for run in chosen)
        parts.append(f"{text} in {'all runs' if len(chosen) == len(done) else ' and '.join(names)}")
    return ", ".join(parts)


def _largest_whole(run: PlannedRun, chosen: Collection[PlannedRun], done: Iterable[PlannedRun]) -> str:
    """A chosen run's agent, or else its cell, if all finished runs of that are chosen; or else its name."""
    agent = [other for other in done if other.column == run.column]
    cell = [other for other in agent if other.task == run.task]
    for name, runs in ((run.column, agent), (f"{run.task}/{run.column}", cell)):
        if len(runs) > 1 and all(other in chosen for other in runs):
            return f"every run of {name}"
    return run.name


def _conditions_note(results: Results) -> list[str]:
    """The conditions that all runs share, in one sentence."""
    values: dict[str, set[str]] = {}
    for found in results.done:
        for name, value in conditions(found, results.study.shifts).items():
            values.setdefault(name, set()).add(value)
    cameras = set(map(_camera, results.study.tasks))
    shared = [
        f"{name} {next(iter(different))}"
        for name, different in values.items()
        if len(different) == 1 and name not in cameras
    ]
    notes = [f"All runs: {'; '.join(shared)}."] if shared else []
    if any(found.run.task in ROBOT_TASKS for found in results.done):
        notes.append(
            "Robotic tasks: task, reward and looks are the published ones, arm and meshes are not; "
            "raw returns are not directly comparable."
        )
    return notes


def _hardly_shown(results: Results) -> list[str]:
    """Where a shift changes so little of the picture that it is hardly one."""
    least: dict[str, dict[str, float]] = {}
    for found in results.done:
        known = least.setdefault(found.run.task, {})
        for shift, share in recorded_shares(found.provenance).items():
            if shift in results.study.shifts and shift != "train":
                known[shift] = min(share, known.get(shift, share))
    return [f"{note}." for task, shares in least.items() if (note := hardly_shown(task, shares))]


def _departures(results: Results) -> list[str]:
    """Where runs were made with other settings than the study's file gives."""
    written = as_written(results.study)
    departures: dict[str, dict[str, list[FoundRun]]] = {}
    for found in results.done:
        assert found.config is not None
        planned = written.get((found.run.task, found.run.column), found.run.config)
        for key, wanted, actual in differences(planned, found.config):
            departures.setdefault(key, {}).setdefault(f"{actual} instead of {wanted}", []).append(found)
    if not departures:
        return []
    shown = [f"{key} ({_whose(groups, results)})" for key, groups in departures.items()]
    more = f" and {len(shown) - 6} more keys" if len(shown) > 6 else ""
    return [f"Not as the study is written: {', '.join(shown[:6])}{more}."]


def _commits(results: Results) -> list[str]:
    """Which code the runs are of, unless all are of one commit with nothing changed."""
    groups: dict[str, list[FoundRun]] = {}
    for found in results.done:
        commits = dict.fromkeys(map(_commit, found.sessions))
        groups.setdefault(" and ".join(commits), []).append(found)
    usual = max(groups, key=lambda commits: len(groups[commits]), default="")
    others = {commits: runs for commits, runs in groups.items() if commits != usual}
    if not others and " " not in usual:  # one commit, and not dirty
        return []
    where = f"{_whose(others, results)}, {usual} elsewhere" if others else _whose(groups, results)
    return [f"The runs are not of one clean commit: {where}."]


def _commit(provenance: Mapping[str, Any]) -> str:
    """A session's commit in short, with `(dirty)` if files differed from it."""
    commit = str(provenance.get("git_commit") or "unknown")
    return commit.removesuffix("-dirty")[:10] + (" (dirty)" if commit.endswith("-dirty") else "")


def _agent_code(results: Results) -> list[str]:
    """Which agents' own code, outside this package, was not the same in all of their runs and sessions."""
    notes = []
    for column in results.study.columns:
        versions: dict[str, list[str]] = {}
        for found in results.done:
            if found.run.column == column:
                texts = dict.fromkeys(_code(session) for session in found.sessions)
                versions.setdefault(IN_TURN.join(texts), []).append(found.run.name)
        if len(versions) > 1 or any(IN_TURN in version for version in versions):
            parts = [f"{version} in {_examples(runs)}" for version, runs in versions.items()]
            notes.append(f"The code of {column} is not the same in all its runs: {', but '.join(parts)}.")
    return notes


def _code(provenance: Mapping[str, Any]) -> str:
    """The files and hashes of a session's agent that is not of this package."""
    files = recorded(provenance, AGENT_CODE)
    return " and ".join(f"{name} {str(digest)[:10]}" for name, digest in files.items()) or "unknown"


def _emptied(results: Results) -> list[str]:
    """Which runs went on without the steps that their replay had held, and when."""
    told = {
        found.run.name: [text for session in found.sessions for text in replay_emptied(session)]
        for found in results.done
    }
    return [
        f"Resumed without its replay: {name}, {', '.join(texts)}." for name, texts in told.items() if texts
    ]


def _diverged(results: Results) -> list[str]:
    """Which final evaluations hold episodes that the simulation itself ended."""
    notes = []
    for found in results.done:
        counted = [record for record in found.final_episodes if record["shift"] in results.study.shifts]
        if diverged := diverged_among(counted):
            notes.append(
                f"The simulation diverged in {diverged} of {len(counted)} final episodes of "
                f"{found.run.name}, whose returns end there."
            )
    return notes
