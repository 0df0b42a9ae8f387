"""Merging, typing and refusal of configurations. Expected values are read off the papers' facts by hand."""

import os
import pickle
import re
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from common.config import loading as configuration
from common.config.loading import CONFIGS, load, load_run_config, packaged_names, to_yaml
from common.config.registry import AGENTS, agent_class, registered_lineage
from common.config.schema import Config
from common.config.yaml_files import dump, parse, read_mapping
from common.errors import UserError


def smoke(
    *overrides: str, agent: str = "smg", task: str = "walker_walk", files: tuple[object, ...] = ()
) -> Config:
    return load(agent, task, "smoke", [Path(str(file)) for file in files], overrides)


def refusal(*overrides: str, **arguments: object) -> str:
    with pytest.raises(UserError) as error:
        smoke(*overrides, **arguments)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
    return str(error.value)


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


# Merging


def test_paper_preset_holds_the_published_settings() -> None:
    smg = load("smg", "walker_walk", "paper")
    assert smg.train.batch == 64
    assert smg.network.latent == 256
    assert smg.network.strides == (2, *[1] * 10)
    assert smg.optim.auxiliary.lr == 1e-3
    assert smg.optim.auxiliary.clip == 100
    assert smg.losses == {
        "bellman": 1,
        "q_consistency": 0.5,
        "reconstruction": 1,
        "mask_ratio": 1,
        "background": 2,
        "empowerment": 1,
        "foreground_consistency": 0.1,
    }
    assert smg.settings.rho == 0.06
    assert smg.settings.attribution_probability == 0.25
    assert smg.settings.mask_ratio_from_step == 1001
    assert (smg.train.steps, smg.replay.capacity) == (500_000, 500_000)

    sgqn = load("sgqn", "cartpole_swingup", "paper")
    assert sgqn.train.batch == 128
    assert sgqn.network.latent == 100
    assert sgqn.optim.auxiliary.lr == 3e-4
    assert sgqn.optim.auxiliary.clip is None
    assert sgqn.losses == {"bellman": 1, "consistency": 0.5, "self_supervised": 1}
    assert sgqn.settings.quantile == 0.98
    assert sgqn.env.action_repeat == 8

    sac = load("sac", "finger_spin", "paper")
    assert sac.settings is None
    assert (sac.shift, sac.augmentation, sac.env.action_repeat) == (0, None, 2)


def test_a_task_file_may_speak_to_one_agent_alone() -> None:
    assert load("smg", "walker_stand", "paper").train.steps == 250_000
    assert load("sgqn", "walker_stand", "paper").train.steps == 500_000


def test_later_sources_win(tmp_path: Path) -> None:
    first = write(tmp_path / "first.yaml", "train: {steps: 70, log_every: 7}\nseed: 3\n")
    second = write(tmp_path / "second.yaml", "train:\n  steps: 80\n")
    config = smoke("seed=5", "seed=6", files=(first, second))
    assert (config.train.steps, config.train.log_every, config.train.batch, config.seed) == (80, 7, 8, 6)


def test_an_augmentation_is_replaced_whole(tmp_path: Path) -> None:
    file = write(tmp_path / "a.yaml", "augmentation: {name: ColorJiggle, brightness: 0.3}\n")
    config = smoke("augmentation={name: RandomErasing, p: 1}", files=(file,))
    assert config.augmentation == {"name": "RandomErasing", "p": 1}


def test_numbers_as_people_write_them(tmp_path: Path) -> None:
    file = write(tmp_path / "n.yaml", "optim: {actor: {lr: 1e-4}, critic: {lr: 2E-4}}\ntrain: {steps: 5e2}\n")
    config = smoke("optim.auxiliary.lr=1e-05", "train.log_every=1_000", files=(file,))
    assert config.optim.actor.lr == 0.0001
    assert config.optim.critic.lr == 0.0002
    assert config.optim.auxiliary.lr == 0.00001
    assert config.train.log_every == 1000
    assert config.train.steps == 500
    assert isinstance(config.train.steps, int)


def test_words_that_yaml_1_1_reads_as_booleans_stay_words() -> None:
    assert smoke("amp=off").amp == "off"
    assert smoke("wandb.group=no").wandb.group == "no"


TEXTS = {  # what is typed: the name that is meant
    "7": "7", "007": "007", "+5": "+5", "1_000": "1_000", "0x10": "0x10", "0o17": "0o17", "1e3": "1e3",
    "7e9999": "7e9999", "1.50": "1.50", "1.": "1.", "on": "on", "yes": "yes", "true": "true", "True": "True",
    "FALSE": "FALSE", "Null": "Null", "NULL": "NULL", "nulls": "nulls", "2024-01-01": "2024-01-01",
    "12:30": "12:30", "a#b": "a#b", "a b": "a b", "é": "é", "'null'": "null", '"007"': "007",
    "'a #b'": "a #b", "!!str 7": "7", "9" * 5000: "9" * 5000, "null": None, "~": None, "": None,
}  # fmt: skip


@pytest.mark.parametrize("written", TEXTS, ids=lambda text: text[:12])
def test_a_key_of_text_has_the_text_that_was_written(written: str, tmp_path: Path) -> None:
    file = write(tmp_path / "text.yaml", f"run:\n  name: {written}\nwandb: {{group: {written}}}\n")
    for config in (smoke(files=(file,)), smoke(f"run.name={written}", f"wandb.group={written}")):
        assert (config.run.name, config.wandb.group) == (TEXTS[written], TEXTS[written])
        write(tmp_path / "config.yaml", to_yaml(config))
        assert load_run_config(tmp_path) == config


def test_null_is_text_where_nothing_is_not_allowed(tmp_path: Path) -> None:
    assert [smoke(f"wandb.project={text}").wandb.project for text in ("null", "~", "1e3")] == [
        "null",
        "~",
        "1e3",
    ]
    assert "wandb.project: should be text, got None" in refusal("wandb.project=")
    assert "wandb.project: should be text, got None" in refusal(
        files=(write(tmp_path / "a.yaml", "wandb:\n  project:\n"),)
    )


def test_a_later_source_brings_its_own_text(tmp_path: Path) -> None:
    first = write(tmp_path / "first.yaml", "run: {name: 007, dir: 1e3}\n")
    second = write(tmp_path / "second.yaml", "run: {name: abc}\n")
    assert (smoke(files=(first, second)).run.name, smoke(files=(second, first)).run.name) == ("abc", "007")
    config = smoke("run.name=0x1", "run.name='010'", "run.dir=null", files=(first,))
    assert (config.run.name, config.run.dir) == ("010", None)


def test_numbers_and_truth_values_stay_what_they_are() -> None:
    config = smoke("seed=007", "tf32=True", "channels_last=FALSE", "data.overlay_bank=1e2")
    assert (config.seed, config.tf32, config.channels_last, config.data.overlay_bank) == (7, True, False, 100)


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("a #b", """YAML reads 'a' of 'a #b'; if all of it is meant, write '"a #b"'"""),
        ("007 # agent", "YAML reads '007' of"),
        ("#1", "YAML reads '' of '#1'"),
        ("'a' #b", "of \"'a' #b\""),
        ("--- a", "YAML reads 'a' of '--- a'"),
        ("---", "YAML reads '' of '---'"),
        ("a\nb", "YAML reads 'a b' of"),
        ("&x a", "put quotes around text with &x"),
        ("*x", "aliases (*name) are not supported"),
        ("a: b", "should be text, got {'a': 'b'}, as YAML reads it; put quotes around text"),
        ("- a", "should be text, got ['a'], as YAML reads it"),
        ("[a]", "should be text, got ['a'], as YAML reads it"),
        ("@a", "cannot start any token"),
        ("!x a", "tag !x is not supported"),
        ("! a", "YAML reads 'a' of '! a'"),
        (".5", "without path separators or a leading dot, got '.5'"),
    ],
)
def test_what_yaml_would_change_is_said(typed: str, told: str) -> None:
    message = refusal(f"run.name={typed}")
    assert message.startswith("command line: run.name") and told in message


def test_a_comment_on_the_command_line_is_said_for_every_key() -> None:
    assert "train.steps: YAML reads '70' of '70 # few'" in refusal("train.steps=70 # few")


def test_capacity_auto_holds_the_run_and_at_least_a_batch() -> None:
    assert smoke("train.steps=900").replay.capacity == 900
    assert smoke("train.steps=5").replay.capacity == 8
    assert smoke("replay.capacity=33").replay.capacity == 33


@pytest.mark.parametrize("name", packaged_names("ablations"))
def test_an_ablation_file_equals_its_override(name: str) -> None:
    agent, _, term = name.partition("_no_")
    path = Path("configs", "ablations", f"{name}.yaml")
    by_file = smoke(agent=agent, files=(path,))
    assert by_file == smoke(f"losses.{term}=0", agent=agent)
    assert by_file.losses == smoke(agent=agent).losses | {term: 0}


def test_there_is_an_ablation_for_every_term_but_bellman() -> None:
    terms = [
        (agent, term) for agent in ("sgqn", "smg") for term in agent_class(agent).LOSSES if term != "bellman"
    ]
    assert packaged_names("ablations") == sorted(f"{agent}_no_{term}" for agent, term in terms)


def test_packaged_files_are_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert smoke(files=("configs/ablations/smg_no_background.yaml",)).losses["background"] == 0
    (tmp_path / "configs" / "ablations").mkdir(parents=True)
    write(tmp_path / "configs/ablations/smg_no_background.yaml", "losses: {empowerment: 0}")
    assert smoke(files=("configs/ablations/smg_no_background.yaml",)).losses["background"] == 2


def test_the_preset_follows_the_hardware_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(configuration.torch.cuda, "is_available", lambda: False)
    assert load("sac", "walker_walk", announce=said.append).preset == "laptop"
    assert load("sac", "walker_walk", overrides=["device=cuda"], announce=said.append).preset == "paper"
    monkeypatch.setattr(configuration.torch.cuda, "is_available", lambda: True)
    assert load("sac", "walker_walk", announce=said.append).preset == "paper"
    assert load("sac", "walker_walk", overrides=["device=cpu"], announce=said.append).preset == "laptop"
    small, large = "laptop, for training on the CPU", "paper, for training on a GPU"
    assert said == [f"preset: {choice} (choose with --preset)" for choice in (small, large, large, small)]
    load("sac", "walker_walk", "smoke", announce=said.append)
    load("sac", "walker_walk", overrides=["preset=smoke"], announce=said.append)
    assert len(said) == 4


def test_run_folder_names_what_is_switched_off() -> None:
    assert smoke("seed=4").run_folder() == Path("runs/walker_walk/smg/seed4")
    ablated = smoke("losses.background=0", "losses.empowerment=0", "run.name=try")
    assert ablated.run_folder() == Path("runs/walker_walk/smg-no_background-no_empowerment/try")
    assert smoke("run.dir=a b/ü").run_folder() == Path("a b/ü")
    assert smoke("run.dir=~/x").run_folder() == Path.home() / "x"


def test_checkpoint_intervals() -> None:
    def interval(text: str) -> tuple[int | None, int | None]:
        checkpoint = smoke(f"checkpoint.every={text}").checkpoint
        return checkpoint.seconds, checkpoint.steps

    assert interval("20s") == (20, None)
    assert interval("10min") == (600, None)
    assert interval("2h") == (7200, None)
    assert interval("500") == (None, 500)


def test_shifts_by_group_and_by_name() -> None:
    everything = ("train", "color_easy", "color_hard", "video_easy", "video_hard")
    assert smoke().eval.shifts == everything
    assert smoke("eval.shifts=video_hard").eval.shifts == ("video_hard",)
    assert smoke("eval.shifts=[video_hard, all]").eval.shifts == ("video_hard", *everything[:-1])


def test_overlay_folder_from_key_or_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SMG_OVERLAY", raising=False)
    assert smoke().data.overlay_folder() is None
    monkeypatch.setenv("SMG_OVERLAY", "/elsewhere")
    assert smoke().data.overlay_folder() == Path("/elsewhere")
    assert smoke(f"data.overlay={tmp_path}").data.overlay_folder() == tmp_path


# Packaged files


def test_every_key_is_in_default_yaml_with_a_comment() -> None:
    text = (CONFIGS / "default.yaml").read_text()

    def keys(section: object) -> set[str]:
        if not isinstance(section, dict):
            return set()
        return section.keys() | {f"{k}.{sub}" for k, value in section.items() for sub in keys(value)}

    chosen = {"agent", "task", "preset", "settings"}
    declared = keys(Config.model_json_schema()["properties"]) - chosen
    assert read_mapping(CONFIGS / "default.yaml").keys() == {key for key in declared if "." not in key} & (
        Config.model_fields.keys() - chosen
    )
    for line in text.splitlines():
        assert not re.match(r"\s*[\w]+:\s*[^#\s]", line) or "#" in line, line


def test_packaged_files_hold_no_key_that_would_be_ignored() -> None:
    for agent in AGENTS:
        lineage = registered_lineage(agent_class(agent))
        assert lineage[-1] == agent
        losses = [read_mapping(CONFIGS / "agents" / f"{name}.yaml").get("losses", {}) for name in lineage]
        assert set().union(*losses) == set(agent_class(agent).LOSSES)
    for kind in ("agents", "tasks", "presets", "ablations"):
        for name in packaged_names(kind):
            top = set(read_mapping(CONFIGS / kind / f"{name}.yaml"))
            for_one = {"agents"} if kind in ("tasks", "presets") else set()
            assert top <= {*Config.model_fields, *AGENTS} | for_one


def test_a_variants_settings_are_those_of_what_it_varies_and_then_its_own() -> None:
    class Both(agent_class("smg_drift"), agent_class("smg_lite")):
        pass

    assert registered_lineage(Both) == ["smg", "smg_lite", "smg_drift"]
    assert registered_lineage(agent_class("smg")) == ["smg"]
    assert registered_lineage(agent_class("sada")) == ["sada"]  # SVEA and DrQ have no section to share
    smg, drift = (load(name, "walker_stand", "paper") for name in ("smg", "smg_drift"))
    assert drift.settings.model_dump() == smg.settings.model_dump() | {"drift": 6}
    assert drift.model_copy(update={"agent": "smg", "settings": smg.settings}) == smg
    laptop = load("smg_drift", "walker_stand", "laptop")
    assert (laptop.shift, laptop.settings.drift, laptop.settings.rho) == (2, 3, 0.068)


def test_what_a_preset_says_for_one_agent_holds_for_it_alone() -> None:
    assert load("rad", "walker_walk", "laptop").env.render_size == 58
    assert load("drq", "walker_walk", "laptop").env.render_size is None
    assert load("rad", "walker_walk", "paper").env.render_size == 100


@pytest.mark.parametrize("preset", packaged_names("presets"))
@pytest.mark.parametrize("agent", AGENTS)
def test_of_two_updates_one_is_auxiliary_in_every_preset_as_in_the_papers(agent: str, preset: str) -> None:
    config = load(agent, "walker_walk", preset)
    if hasattr(config.settings, "auxiliary_every"):
        assert config.settings.auxiliary_every == 2 * config.train.update_every


@pytest.mark.parametrize("preset", packaged_names("presets"))
@pytest.mark.parametrize("task", packaged_names("tasks"))
@pytest.mark.parametrize("agent", AGENTS)
def test_every_combination_is_valid(agent: str, task: str, preset: str) -> None:
    config = load(agent, task, preset)
    assert (config.agent, config.task, config.preset) == (agent, task, preset)


# The resolved file


RECORDED = sorted(path.parent for path in (CONFIGS.parent / "results").glob("*/*/config.yaml"))


@pytest.mark.parametrize("folder", RECORDED, ids=lambda folder: folder.name)
def test_the_runs_in_results_are_read_by_the_code_of_today(folder: Path) -> None:
    config = load_run_config(folder)
    assert folder.name.startswith(f"{config.task}-") and folder.name.endswith(f"-seed{config.seed}")


def test_there_are_runs_in_results() -> None:
    assert RECORDED


@pytest.mark.parametrize("agent", AGENTS)
def test_a_resolved_configuration_reads_back_equal(agent: str, tmp_path: Path) -> None:
    config = smoke("optim.actor.lr=1e-5", "wandb.group='1e-4'", "run.name=é\u2028off", agent=agent)
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert load_run_config(tmp_path) == config
    assert load(files=[tmp_path / "config.yaml"]) == config
    assert pickle.loads(pickle.dumps(config)) == config
    # Anyone's YAML reader understands it.
    plain = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert plain["optim"]["actor"]["lr"] == 1e-5
    assert plain["wandb"]["group"] == "1e-4"
    assert plain["agent"] == agent


def test_a_configuration_is_frozen() -> None:
    config = smoke()
    with pytest.raises(ValidationError):
        config.seed = 3
    with pytest.raises(ValidationError):
        config.train.steps = 3


def test_a_run_configuration_can_be_redirected(tmp_path: Path) -> None:
    text = to_yaml(smoke()).replace("overlay: null", "overlay: /no/longer/there")
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(
        UserError, match=r"config\.yaml: data\.overlay: the folder /no/longer/there does not exist"
    ):
        load_run_config(tmp_path)
    assert load_run_config(tmp_path, [f"data.overlay={tmp_path}"]).data.overlay == str(tmp_path)


def test_a_run_stays_what_it_was_trained_as(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(to_yaml(smoke()))
    for change in ("agent=sac", "agent=some.module:Agent", "task=finger_spin", "preset=paper"):
        with pytest.raises(UserError, match="a run keeps the"):
            load_run_config(tmp_path, [change])


def test_a_truncated_run_configuration_is_refused(tmp_path: Path) -> None:
    text = to_yaml(smoke())
    (tmp_path / "config.yaml").write_text(text[: text.index("wandb:")])
    with pytest.raises(UserError, match=r"missing"):
        load_run_config(tmp_path)
    with pytest.raises(UserError, match="not a run folder"):
        load_run_config(tmp_path / "other")


# Agents given by import path

AGENT = """
from typing import ClassVar
from common.config.schema import Positive, Section
from smg.agent import SMG, Reads

class Settings(Section):
    width: Positive

class Wide:
    AUGMENTS = False
    LOSSES = ("bellman", "extra")
    SECTION = "wide"
    Settings = Settings

class Variant(SMG):
    READS = SMG.READS | {"new_term": Reads(foreground=("obs",))}
    LOSSES = (*(term for term in SMG.LOSSES if term != "background"), "new_term")
    new_term_loss = SMG.mask_ratio_loss

class Apart(SMG):
    SECTION = "wide"
    Settings = Settings

class Without(SMG):
    Settings = Settings

class NotAnAgent:
    pass

class Plain:
    LOSSES = ("bellman",)
    SECTION = None
    Settings = None
    AUGMENTS = False
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    write(tmp_path / "home_made.py", AGENT)
    monkeypatch.delitem(sys.modules, "home_made", raising=False)
    return "home_made"


def test_an_agent_of_ones_own_brings_its_yaml(module: str, tmp_path: Path) -> None:
    write(tmp_path / "home_made.yaml", "losses: {extra: 0.5}\nwide: {width: 3}\n")
    config = smoke(agent=f"{module}:Wide")
    assert config.losses == {"bellman": 1, "extra": 0.5}
    assert config.settings is not None
    assert config.settings.model_dump() == {"width": 3}
    assert config.run_folder() == Path("runs/walker_walk/home_made.Wide/seed0")
    assert "wide.width" in refusal("wide.width=0", agent=f"{module}:Wide")
    assert "did you mean 'wide.width'?" in refusal("wide.widht=1", agent=f"{module}:Wide")


def test_a_variant_starts_from_the_yaml_of_the_agent_it_extends(module: str) -> None:
    config = smoke("losses.new_term=2", agent=f"{module}:Variant")
    assert config.losses["new_term"] == 2
    assert "background" not in config.losses
    assert config.losses["foreground_consistency"] == 0.1
    assert config.settings.rho == 0.06
    assert "losses.new_term" in refusal(agent=f"{module}:Variant")
    assert "no such term" in refusal("losses.new_term=2", "losses.background=1", agent=f"{module}:Variant")


def test_a_variant_of_ones_own_agent_starts_from_that_ones_yaml(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "home_made.yaml", "shift: 0\nlosses: {new_term: 2}\nsmg: {rho: 0.2}\n")
    write(tmp_path / "further.py", f"from {module} import Variant\nclass Further(Variant): pass\n")
    monkeypatch.delitem(sys.modules, "further", raising=False)
    config = smoke(agent="further:Further")
    assert (config.shift, config.losses["new_term"], config.settings.rho) == (0, 2, 0.2)
    write(tmp_path / "further.yaml", "smg: {rho: 0.3}\n")
    config = smoke("losses.new_term=4", agent="further:Further")
    assert (config.shift, config.losses["new_term"], config.settings.rho) == (0, 4, 0.3)
    assert config.losses["foreground_consistency"] == 0.1  # SMG's own


@pytest.mark.parametrize("preset", ["paper", "laptop", "smoke"])
def test_ones_own_yaml_stands_above_tasks_and_presets_and_below_the_command_line(
    module: str, tmp_path: Path, preset: str
) -> None:
    own = "shift: 0\nsmg: {rho: 0.2}\ntrain: {batch: 9}\nnetwork: {latent: 77}\nlosses: {new_term: 2}\n"
    write(tmp_path / "home_made.yaml", own)
    overrides = ["device=cpu", "network.hidden=5", "train.batch=10"]
    config = load(f"{module}:Variant", "walker_walk", preset, overrides=overrides)
    assert (config.shift, config.settings.rho, config.network.latent) == (0, 0.2, 77)
    assert (config.losses["new_term"], config.network.hidden, config.train.batch) == (2, 5, 10)


def test_an_augmentation_that_nothing_would_apply_is_refused(module: str) -> None:
    for agent in ("sac", "drq", "rad", "srm"):
        assert f"augmentation: agent {agent} applies no τ" in refusal("augmentation=overlay", agent=agent)
    for agent in set(AGENTS) - {"sac", "drq", "rad", "srm"}:
        assert smoke("augmentation=random_convolution", agent=agent).augmentation == "random_convolution"
    problem = refusal("augmentation=overlay", "losses.bellman=1", agent=f"{module}:Plain")
    assert "AUGMENTS = True" in problem


def test_a_run_recorded_when_an_augmentation_was_taken_and_not_applied_is_still_read(tmp_path: Path) -> None:
    recorded = to_yaml(smoke(agent="drq")).replace("augmentation: null", "augmentation: overlay")
    write(tmp_path / "config.yaml", recorded)
    assert "augmentation: overlay" in recorded and load_run_config(tmp_path).augmentation is None
    with pytest.raises(UserError, match="applies no τ"):
        load_run_config(tmp_path, ["augmentation=overlay"])


def test_the_recorded_augmentation_of_an_agent_of_ones_own_is_never_dropped(
    module: str, tmp_path: Path
) -> None:
    recorded = to_yaml(smoke("losses.bellman=1", agent=f"{module}:Plain"))
    write(tmp_path / "config.yaml", recorded.replace("augmentation: null", "augmentation: overlay"))
    with pytest.raises(UserError, match="AUGMENTS = True"):
        load_run_config(tmp_path, allow_code=True)


def test_import_paths_that_lead_nowhere(module: str) -> None:
    assert "no module named 'home_maid'" in refusal(agent="home_maid:Wide")
    assert "did you mean 'Wide'?" in refusal(agent=f"{module}:Wild")
    assert "declares no LOSSES" in refusal(agent=f"{module}:NotAnAgent")
    for name in ("Apart", "Without"):
        problem = refusal(agent=f"{module}:{name}")
        assert "extends SMG" in problem and "let Settings extend smg.agent.Settings" in problem
    assert "package.module:Class" in refusal(agent="../evil:Wide")


def test_a_run_folder_imports_no_code_unasked(module: str, tmp_path: Path) -> None:
    write(tmp_path / "home_made.yaml", "losses: {extra: 0.5}\nwide: {width: 3}\n")
    config = smoke(agent=f"{module}:Wide")
    write(tmp_path / "config.yaml", to_yaml(config))
    write(tmp_path / "home_made.py", "raise SystemExit('executed')")
    del sys.modules[module]
    with pytest.raises(UserError, match="--allow-code"):
        load_run_config(tmp_path)
    write(tmp_path / "home_made.py", AGENT + "\n")
    assert load_run_config(tmp_path, allow_code=True).losses == config.losses


# Refusals


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trian.steps=3", "command line: unknown key 'trian'; did you mean 'train'?"),
        ("train.stepz=3", "command line: unknown key 'train.stepz'; did you mean 'train.steps'?"),
        ("smg.roh=0.1", "command line: unknown key 'smg.roh'; did you mean 'smg.rho'?"),
        ("steps=3", "command line: unknown key 'steps'; did you mean 'train.steps'?"),
        ("qqq=3", "command line: unknown key 'qqq'; 'smg config' prints every key"),
        ("settings.rho=0.1", "command line: unknown key 'settings'"),
        (
            "losses.backgroun=1",
            "losses.backgroun: agent smg computes no such term; did you mean 'background'?",
        ),
        ("losses.background=-1", "losses.background: should be at least 0, got -1"),
        ("train.steps=many", "train.steps: should be an integer, got 'many'"),
        ("train.steps=1.5", "train.steps: should be an integer, got 1.5"),
        ("train.steps=0", "train.steps: should be at least 1, got 0"),
        ("train.random_steps=21", "train.random_steps: should be a multiple of sac.actor_every=2"),
        ("smg.auxiliary_every=3", "train.random_steps: should be a multiple of auxiliary_every=3"),
        ("train.steps=", "train.steps: should be an integer, got None"),
        ("seed=true", "seed: should be an integer, got True"),
        ("seed={x: 1}", "seed: should be an integer, got {'x': 1}"),
        ("seed=4294967296", "seed: should be below 2147483648"),
        ("train=3", "train: should be a mapping, got 3"),
        ("losses=3", "losses: should be a mapping, got 3"),
        ("smg=3", "smg: should be a mapping, got 3"),
        ("optim.actor.lr=fast", "optim.actor.lr: should be a number, got 'fast'"),
        ("optim.actor.lr=0", "optim.actor.lr: should be above 0, got 0"),
        ("optim.actor.lr=1e999", "optim.actor.lr: should be a number, got '1e999'"),
        ("optim.actor.beta1=1", "optim.actor.beta1: should be below 1, got 1"),
        ("tf32=yes", "tf32: should be true or false, got 'yes'"),
        ("channels_last=maybe", "channels_last: should be 'auto' or true or false, got 'maybe'"),
        (
            "compile=graph",
            "compile: should be 'auto', 'eager', 'default', 'graphs' or 'compiled_graphs', got 'graph'",
        ),
        ("device=gpu", "device: should be auto, cpu, cuda or cuda:<index>, got 'gpu'"),
        ("smg.rho=1", "smg.rho: should be 'auto' or a number between 0 and 1, both excluded, got 1"),
        ("smg.rho=0", "smg.rho: should be 'auto' or a number between 0 and 1"),
        ("smg.rho=big", "smg.rho: should be 'auto' or a number between 0 and 1"),
        ("sgqn.quantile=0.9", "section 'sgqn' is agent sgqn's, but this run's agent is smg"),
        ("env.image_size=8", "env.image_size: 8 pixels are too few for the encoder's 3 layers"),
        ("env.image_size=86", "env.image_size: should be a multiple of 4"),
        ("env.ahead=2", "env.ahead: should be at most 1, got 2"),
        ("env.action_repeat=200", "env.action_repeat: longer than an episode of 80 simulator steps"),
        ("network.strides=2", "network.strides: should be a list, got 2"),
        ("network.strides=[]", "network.strides: should be a longer list, got []"),
        ("network.strides=[2, 0]", "network.strides.1: should be at least 1, got 0"),
        ("network.decoder_filters=[1, 2]", "network.decoder_filters: should be a longer list, got [1, 2]"),
        ("network.log_std=[2, -10]", "network.log_std: should be [low, high] with low < high"),
        (
            "eval.shifts=[train, vide_hard]",
            "eval.shifts: walker_walk has no shift 'vide_hard'; did you mean 'video_hard'?",
        ),
        ("eval.shifts=[geometrical]", "walker_walk has no shift 'geometrical'; did you mean 'geometric'?"),
        (
            "eval.shifts=[x]",
            "choose from train, color_easy, color_hard, video_easy, video_hard, color_video_easy",
        ),
        ("eval.shifts=[]", "eval.shifts: should be a longer list, got []"),
        ("eval.shifts=[[train]]", "eval.shifts.0: should be text, got ['train']"),
        ("eval.clips=[3, 1]", "eval.clips: should be [first, last] with first <= last"),
        ("augmentation=3", "augmentation: should be null, a name"),
        ("augmentation=[overlay, null]", "augmentation: should be null, a name"),
        ("checkpoint.every=20 s", "checkpoint.every: should be a duration such as 20s"),
        ("checkpoint.every=0min", "checkpoint.every: should be a duration such as 20s"),
        ("run.name=../x", "run.name: should be a plain folder name"),
        ("data.root=/no/such/folder", "data.root: the folder /no/such/folder does not exist"),
        ("agent=sqgn", "command line: unknown agent 'sqgn'; did you mean 'sgqn'?"),
        ("task=walker_wlak", "command line: unknown task 'walker_wlak'; did you mean 'walker_walk'?"),
        ("preset=big", "command line: unknown preset 'big'; choose from laptop, paper, smoke"),
        ("preset=../default", "command line: unknown preset '../default'"),
        ("agent=[1]", "command line: agent: should be a name, got [1]"),
        ("agent=007", "command line: unknown agent '007'"),
        ("seed", "command line: 'seed' is not of the form key.sub=value"),
        ("train..steps=1", "command line: 'train..steps=1' is not of the form key.sub=value"),
        ("seed=[1", "command line: seed, line 1: not valid YAML"),
    ],
)
def test_an_impossible_value_is_named_with_its_remedy(override: str, message: str) -> None:
    assert message in refusal(override)


def test_a_batch_larger_than_the_replay() -> None:
    message = refusal("replay.capacity=20", "train.batch=64")
    assert message == "command line: train.batch: 64 is larger than the replay (20); lower it"


def test_messages_stay_on_one_line_whatever_they_quote() -> None:
    assert refusal("seed\nmore") == "command line: 'seed more' is not of the form key.sub=value"


def test_nothing_given() -> None:
    listed = r"no agent given: choose one with --agent \(sac, .*sgqn, smg, .*smg_frames\)"
    with pytest.raises(UserError, match=listed):
        load()
    with pytest.raises(UserError, match="no task given"):
        load("sac")


def test_the_quantile_of_sgqn() -> None:
    assert "sgqn.quantile: should be 'auto' or a number" in refusal("sgqn.quantile=1.5", agent="sgqn")
    assert smoke("sgqn.quantile=auto", agent="sgqn").settings.quantile == "auto"


def test_a_problem_is_traced_to_the_file_it_came_from(tmp_path: Path) -> None:
    right = write(tmp_path / "right.yaml", "train: {batch: 9}\n")
    wrong = write(tmp_path / "wrong.yaml", "train:\n  batch: nine\n")
    assert refusal("train.steps=70", files=(right, wrong)).startswith(f"{wrong}: train.batch: should be")
    assert refusal("train.batch=x", files=(right,)).startswith("command line: train.batch: should be")
    # A value assigned whole hides what an earlier file said about its parts.
    message = refusal("losses=1", "losses={empowerment: x}", agent="sac", files=(right,))
    assert message.startswith("command line: losses.empowerment")


def test_any_task_of_the_suite_runs_with_the_defaults() -> None:
    assert smoke(task="hopper_hop").task == "hopper_hop"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty; a configuration file holds at least one 'key: value'; without any, write {}"),
        (b"# only a comment\n", "empty"),
        (b"\xff\xfe\x00\x01", "not UTF-8 text"),
        (b"seed: \x00", "unacceptable character"),
        (b"- 1\n- 2\n", "expected 'key: value' lines, found a list"),
        (b"seed: 1\nseed: 2\n", "line 2: not valid YAML: key 'seed' appears twice"),
        (b"a: &x [1]\nb: *x\n", "line 2: not valid YAML: aliases (*name) are not supported"),
        (b"a: &x\n  b: *x\n", "aliases (*name) are not supported"),
        (
            b"seed: !!python/object/apply:os.system ['true']\n",
            "tag tag:yaml.org,2002:python/object/apply:os.system",
        ),
        (b"seed: [1\n", "not valid YAML"),
        (b"a: " + b"[" * 3000, "nested too deeply"),
        (b"a: " + b"[" * 25 + b"]" * 25, "nested too deeply"),
        (b'a: "\\UFFFFFFFF"', "not valid YAML"),
        (b"seed: " + b"9" * 5000, "seed: should be an integer, got '999"),
        (b"# " + b"x" * 300_000, "larger than 256 KiB"),
        (b"--- 1\n--- 2\n", "another document"),
        (b"[a]: 1\n", "a key must be a name"),
    ],
)
def test_hostile_files(content: bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "with space ü.yaml"
    file.write_bytes(content)
    text = refusal(files=(file,))
    assert text.startswith(str(file))
    assert message in text


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert "no such file" in refusal(files=(tmp_path / "absent.yaml",))
    assert "not a file" in refusal(files=(tmp_path,))
    os.mkfifo(tmp_path / "pipe")
    assert "not a file" in refusal(files=(tmp_path / "pipe",))
    assert "cannot be read" in refusal(files=(tmp_path / ("x" * 300),))


def test_yaml_text_is_read_back_equal() -> None:
    values = {
        "a": "1e-4",
        "b": "off",
        "c": 1e-5,
        "d": "1_0",
        "e": None,
        "f": [],
        "g": "\u2028",
        "h": 1e22,
        "": ".5",
    }
    assert parse(dump(values), "text") == values
