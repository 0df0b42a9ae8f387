"""Study files: expansion, precedence, and what is refused before any run."""

from pathlib import Path

import pytest

from common.config.loading import CONFIGS
from common.config.schema import Config
from common.errors import UserError
from common.study.definition import Study, as_written, load_study
from common.study.folders import differences
from tests.common.study.written_runs import STUDY, study

PACKAGED = sorted((CONFIGS / "studies").glob("*.yaml"))


def error(tmp_path: Path, text: str, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        study(tmp_path, *overrides, text=text)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_task_agent_and_seed_is_one_run_in_a_folder_of_its_own(tmp_path: Path) -> None:
    runs = study(tmp_path).runs
    expected = {
        tmp_path / "runs" / task / agent / f"seed{seed}"
        for task in ("walker_walk", "finger_spin")
        for agent in ("sac", "drq", "smg")
        for seed in (0, 1)
    }
    assert len(runs) == 12
    assert {run.folder for run in runs} == expected
    for run in runs:
        assert run.folder.parts[-3:] == (run.config.task, run.config.agent, f"seed{run.config.seed}")
        assert run.arguments[-2:] == (f"seed={run.seed}", f"run.dir={run.folder}")


def test_arguments_train_what_was_checked(tmp_path: Path) -> None:
    from common import cli
    from common.config.loading import load

    text = STUDY + "settings: {train: {batch: 4}, eval: {shifts: [train, video_hard]}}\n"
    run = study(tmp_path, text=text).runs[-1]
    parsed = cli._parser().parse_args(["train", *run.arguments])
    assert load(parsed.agent, parsed.task, parsed.preset, parsed.config, parsed.overrides) == run.config


def test_settings_of_task_beat_the_studys_and_settings_of_agent_beat_both(tmp_path: Path) -> None:
    text = """
    shifts: [train]
    seeds: [0]
    preset: smoke
    settings: {train: {batch: 4}, sac: {discount: 0.9, temperature: 0.2}}
    tasks: {walker_walk: {train: {batch: 5}, sac: {discount: 0.8}}, finger_spin: }
    agents: {sac: {}, slow: {agent: drq, sac: {discount: 0.7}}}
    """
    found = {
        (run.task, run.column): run.config for run in study(tmp_path, "sac.temperature=0.3", text=text).runs
    }
    assert {cell: (c.train.batch, c.sac.discount) for cell, c in found.items()} == {
        ("walker_walk", "sac"): (5, 0.8),
        ("walker_walk", "slow"): (5, 0.7),
        ("finger_spin", "sac"): (4, 0.9),
        ("finger_spin", "slow"): (4, 0.7),
    }
    assert found["walker_walk", "slow"].agent == "drq"
    assert all(config.sac.temperature == 0.3 for config in found.values())


def test_a_preset_from_the_command_line_beats_the_files_settings(tmp_path: Path) -> None:
    text = STUDY.replace("smoke", "paper") + "settings: {train: {batch: 64}, env: {model: smg}}\n"
    assert study(tmp_path, text=text).runs[0].config.train.batch == 64
    small = study(tmp_path, "preset=smoke", text=text).runs[0].config
    assert (small.preset, small.train.batch, small.train.steps, small.env.model) == ("smoke", 8, 60, "smg")


def test_selections_from_the_command_line_keep_the_files_settings(tmp_path: Path) -> None:
    text = STUDY.replace("[sac, drq, smg]", "{sac: {}, low: {agent: smg, smg: {rho: 0.02}}}")
    chosen = study(tmp_path, "agents=[low, sgqn]", "tasks=cheetah_run", "seeds=7", text=text)
    assert [(run.task, run.column, run.seed) for run in chosen.runs] == [
        ("cheetah_run", "low", 7),
        ("cheetah_run", "sgqn", 7),
    ]
    assert chosen.runs[0].config.settings.rho == 0.02
    assert chosen.subject == "sgqn"


def test_one_setting_of_a_cell_from_the_command_line(tmp_path: Path) -> None:
    planned = study(tmp_path, "agents.smg.losses.background=0", "tasks.finger_spin.env.frames=2")
    configs = {(run.task, run.column): run.config for run in planned.runs}
    assert [configs["walker_walk", name].agent for name in planned.columns] == ["sac", "drq", "smg"]
    assert configs["walker_walk", "smg"].losses["background"] == 0
    assert configs["walker_walk", "smg"].env.frames == 3 and configs["finger_spin", "smg"].env.frames == 2
    assert as_written(planned)["finger_spin", "smg"].losses["background"] == 2


def test_a_selection_without_the_subject_compares_with_its_last_column(tmp_path: Path) -> None:
    text = STUDY + "subject: drq\n"
    assert study(tmp_path, text=text).subject == "drq"
    assert study(tmp_path, "agents=[sac,smg]", text=text).subject == "smg"


def test_a_file_with_a_name_twice_is_a_mistake_also_under_a_selection(tmp_path: Path) -> None:
    text = STUDY.replace("[sac, drq, smg]", "[sac, sac]")
    assert "sac is listed twice" in error(tmp_path, text, "agents=[sac]")


MORE = """
more:
  - {tasks: [walker_walk], agents: [smg, sac], seeds: [2, 0]}
  - tasks: {cheetah_run: {train: {batch: 5}}}
    agents: {smg: , wide: {agent: smg, smg: {rho: 0.2}}}
    seeds: 1
"""


def names(planned: Study) -> list[str]:
    return [run.name for run in planned.runs]


def test_runs_beyond_the_grid_come_after_it_and_none_comes_twice(tmp_path: Path) -> None:
    planned = study(tmp_path, text=STUDY + MORE)
    assert names(planned)[:12] == names(study(tmp_path))
    assert names(planned)[12:] == [
        "walker_walk/smg/seed2",
        "walker_walk/sac/seed2",
        "cheetah_run/smg/seed1",
        "cheetah_run/wide/seed1",
    ]
    assert planned.tasks == ("walker_walk", "finger_spin", "cheetah_run")
    assert planned.columns == ("sac", "drq", "smg", "wide")
    assert planned.subject == "smg"
    assert planned.seeds_of("walker_walk", "smg") == (0, 1, 2)
    assert planned.seeds_of("cheetah_run", "drq") == ()
    batches = {run.task: run.config.train.batch for run in planned.runs}
    assert batches == {"walker_walk": 8, "finger_spin": 8, "cheetah_run": 5}
    assert planned.runs[-1].config.settings.rho == 0.2


@pytest.mark.parametrize(
    ("overrides", "kept"),
    [
        (["tasks=[walker_walk]", "agents=[smg]"], [f"walker_walk/smg/seed{seed}" for seed in (0, 1, 2)]),
        (["seeds=[2]", "agents=[sac]", "tasks=[walker_walk]"], ["walker_walk/sac/seed2"]),
        (["tasks=[cheetah_run]", "agents=[wide]"], [f"cheetah_run/wide/seed{seed}" for seed in (0, 1)]),
        (["more=[]", "agents=[sac]", "seeds=[0]"], ["walker_walk/sac/seed0", "finger_spin/sac/seed0"]),
    ],
)
def test_a_selection_also_selects_among_the_runs_beyond_the_grid(
    tmp_path: Path, overrides: list[str], kept: list[str]
) -> None:
    assert names(study(tmp_path, *overrides, text=STUDY + MORE)) == kept


def test_what_stands_beyond_the_grid_keeps_its_settings_and_can_be_given_others(tmp_path: Path) -> None:
    overrides = ["tasks=[cheetah_run]", "agents=[wide]", "agents.wide.smg.rho=0.3"]
    planned = study(tmp_path, *overrides, text=STUDY + MORE)
    assert {(run.config.train.batch, run.config.settings.rho) for run in planned.runs} == {(5, 0.3)}
    changed = study(tmp_path, "tasks.cheetah_run.train.batch=6", text=STUDY + MORE)
    assert changed.tasks == ("walker_walk", "finger_spin", "cheetah_run")
    assert names(changed) == names(study(tmp_path, text=STUDY + MORE))
    assert {run.config.train.batch for run in changed.runs if run.task == "cheetah_run"} == {6}
    assert as_written(changed)["cheetah_run", "wide"].train.batch == 5


def test_an_ablation_file_is_a_column(tmp_path: Path) -> None:
    text = STUDY.replace(
        "[sac, drq, smg]", "{bare: {agent: smg, config: configs/ablations/smg_no_background.yaml}}"
    )
    run = study(tmp_path, text=text).runs[0]
    assert run.config.losses["background"] == 0
    assert run.arguments[6:8] == ("--config", "configs/ablations/smg_no_background.yaml")


def test_values_survive_the_command_line(tmp_path: Path) -> None:
    augmentation = "settings: {augmentation: {name: ColorJiggle, brightness: 0.5}, run: }\n".replace(
        ", run: ", ""
    )
    text = STUDY.replace("[sac, drq, smg]", "[svea]") + augmentation
    run = study(tmp_path, text=text).runs[0]
    assert run.config.augmentation == {"name": "ColorJiggle", "brightness": 0.5}
    assert 'augmentation={"name": "ColorJiggle", "brightness": 0.5}' in run.arguments


def test_names_are_what_was_written_in_files_and_on_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "names.yaml"
    file.write_text("""
    {shifts: [train], seeds: [0], preset: smoke, tasks: [walker_walk], folder: 007,
     settings: {wandb: {group: 1e3}},
     agents: {010: {agent: sac, wandb: {name: 0x1}}, 1e2: {agent: drq}}}
    """)
    planned = load_study(file)
    assert (planned.folder, planned.columns) == (Path("007"), ("010", "1e2"))
    assert [run.folder.parent.name for run in planned.runs] == ["010", "1e2"]
    assert [(run.config.wandb.group, run.config.wandb.name) for run in planned.runs] == [
        ("1e3", "0x1"),
        ("1e3", None),
    ]
    assert "wandb.group=1e3" in planned.runs[0].arguments
    typed = load_study(file, ["agents=010", "folder=1_0", "agents.010.wandb.entity=007", "wandb.name=1.50"])
    assert (typed.folder, typed.columns) == (Path("1_0"), ("010",))
    assert (typed.runs[0].config.wandb.entity, typed.runs[0].config.wandb.name) == ("007", "1.50")
    assert [run.column for run in load_study(file, ["agents=[1e2]"]).runs] == ["1e2"]


@pytest.mark.parametrize("file", PACKAGED, ids=lambda path: path.stem)
def test_packaged_studies_are_valid(file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    found = load_study(file.stem)
    assert len({run.folder for run in found.runs}) == len(found.runs)
    assert found.runs == tuple(run for run in found.runs if not run.folder.is_absolute())


def test_packaged_studies_that_share_a_run_agree_on_it() -> None:
    found: dict[Path, list[Config]] = {}
    for file in PACKAGED:
        for run in load_study(file.stem).runs:
            found.setdefault(run.folder, []).append(run.config)
    shared = {folder for folder, configs in found.items() if len(configs) > 1}
    assert Path("studies/laptop_video_hard/walker_stand-smg-seed0") in shared
    assert Path("studies/smg_video_hard_dmcgb/cheetah_run/smg/seed3") in shared
    for folder in shared:
        assert all(list(differences(found[folder][0], other)) == [] for other in found[folder]), folder


def test_smgs_main_table_in_small() -> None:
    found = load_study("laptop_video_hard")
    seeds = {task: {column: found.seeds_of(task, column) for column in found.columns} for task in found.tasks}
    agents = ("sac", "drq", "soda", "svea", "srm", "sgqn", "smg")
    assert seeds["walker_walk"] == dict.fromkeys(agents, (0, 1))
    assert seeds["walker_stand"] == seeds["walker_walk"] | dict.fromkeys(
        ("drq", "svea", "sgqn", "smg"), (0, 1, 2)
    )
    for task in ("finger_spin", "cartpole_swingup"):
        assert {column for column in agents if seeds[task][column] == (0,)} == {"drq", "sgqn", "smg"}
    assert len(found.runs) == 14 + 14 + 4 + 6
    assert {(run.config.eval.episodes, run.config.eval.clips) for run in found.runs} == {(10, (25, 49))}


@pytest.mark.parametrize(
    ("name", "tasks", "agents", "seeds", "batch", "latent", "steps"),
    [
        ("smg_video_hard", 5, 7, 4, 64, 256, {250_000, 500_000}),
        ("smg_peg_in_box", 1, 7, 4, 64, 256, {250_000}),
        ("sgqn_table1", 5, 6, 5, 128, 100, {500_000}),
        ("sgqn_table6", 2, 4, 5, 128, 100, {250_000}),
    ],
)
def test_the_papers_settings(
    name: str, tasks: int, agents: int, seeds: int, batch: int, latent: int, steps: set[int]
) -> None:
    found = load_study(name)
    assert (len(found.tasks), len(found.columns), len(found.seeds)) == (tasks, agents, seeds)
    for run in found.runs:
        assert (run.config.train.batch, run.config.network.latent) == (batch, latent)
    assert {run.config.train.steps for run in found.runs} == steps


def test_action_repeats_of_sgqns_tables() -> None:
    repeats = {
        name: {run.task: run.config.env.action_repeat for run in load_study(name).runs}
        for name in ("sgqn_table1", "sgqn_table5")
    }
    assert set(repeats["sgqn_table1"].values()) == {4}
    assert (repeats["sgqn_table5"]["cartpole_swingup"], repeats["sgqn_table5"]["finger_spin"]) == (8, 2)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("drq", "drk"), ["walker_walk/drk", "unknown agent 'drk'", "drq"]),
        (("walker_walk", "walker_wlk"), ["walker_wlk/sac", "unknown task", "walker_walk"]),
        (("preset: smoke", "preset: smoky"), ["unknown preset 'smoky'", "smoke"]),
        (("seeds:", "seed:"), ["unknown key 'seed'", "seeds"]),
        (("seeds: [0, 1]", "seeds: [0, 0]"), ["seeds", "0 is listed twice", "share a folder"]),
        (("[sac, drq, smg]", "[sac, sac]"), ["agents", "sac is listed twice"]),
        (("seeds: [0, 1]", "seeds: []"), ["seeds"]),
        (("seeds: [0, 1]\n", ""), ["seeds: missing"]),
        (("smg_video_hard", "smg_video_hrad"), ["unknown published table", "smg_video_hard"]),
        (("[video_hard]", "[test1]"), ["the table shows test1"]),
        (("[sac, drq, smg]", "{../sac: {agent: sac}}"), ["'../sac' is no folder name"]),
        (("[sac, drq, smg]", "{sac: 3}"), ["agents.sac"]),
        (("[sac, drq, smg]", "[{sac: 3}, {sac: 3}]"), ["agents"]),
        (
            ("seeds: [0, 1]", "seeds: [0, 1]\nmore: [{tasks: [a], agent: [b], seeds: 0}]"),
            ["unknown key 'more.0.agent'", "agents"],
        ),
        (("seeds: [0, 1]", "seeds: [0, 1]\nmore: [{tasks: [a], seeds: 0}]"), ["more.0.agents: missing"]),
        (
            (
                "seeds: [0, 1]",
                "seeds: 1\nmore: [{tasks: {walker_walk: {shift: 1}}, agents: a, seeds: 0}]",
            ),
            ["more: give walker_walk its settings where it is named first"],
        ),
        (("preset: smoke", "preset: smoke\nsubject: smgg"), ["subject", "did you mean 'smg'?"]),
        (("[sac, drq, smg]", "{sac: {run: {dir: here}}}"), ["run.dir is not a setting"]),
        (
            ("[sac, drq, smg]", "{sac: {trian: {batch: 3}}}"),
            ["walker_walk/sac", "unknown key 'trian", "train"],
        ),
        (
            ("[sac, drq, smg]", "{sac: {train: {batch: -3}}}"),
            ["walker_walk/sac", "train.batch", "at least 1"],
        ),
    ],
)
def test_mistakes_are_told_before_the_first_run(
    tmp_path: Path, change: tuple[str, str], told: list[str]
) -> None:
    assert change[0] in STUDY
    message = error(tmp_path, STUDY.replace(*change))
    assert all(part in message for part in ["small.yaml", *told]), message
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("train.stepz=3", "unknown key 'train.stepz'; did you mean 'train.steps'?"),
        ("seeds", "not of the form key=value"),
        ("tasks=[walker_walk, walker_walk]", "walker_walk is listed twice"),
        ("resources.cpu=2", "unknown key 'resources.cpu'; did you mean 'cpus'?"),
        ("layout='{task}/{agent}'", "layout"),
        ("layout='../{task}/{agent}/{seed}'", "layout"),
        ("seed=3", "seed is not a setting"),
        ("subject=smgg", "did you mean 'smg'?"),
        ("seeds.0=1", "seeds is one value"),
        ("preset.x=1", "preset is one value"),
        ("agents.smg.losses.backgruond=0", "did you mean 'background'?"),
        ("agents.smg.losses=0", "losses"),
    ],
)
def test_mistaken_overrides(tmp_path: Path, override: str, told: str) -> None:
    assert told in error(tmp_path, STUDY, override)


def test_an_unknown_study_suggests_the_nearest() -> None:
    with pytest.raises(UserError, match=r"smg_vido_hard: no such study; did you mean 'smg_video_hard'\?"):
        load_study("smg_vido_hard")
