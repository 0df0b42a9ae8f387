"""Runs that are passed on without their checkpoints."""

import copy
import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from common import cli
from common.config.loading import load_run_config
from common.errors import UserError
from common.rl.optim import polyak_update
from common.rl.sac import SAC, Actor
from common.run import checkpoint, weights
from common.run.build import build_agent, build_images
from common.run.device import resolve_auto
from common.run.trained import load_agent, load_run
from tests import runs

pytestmark = pytest.mark.slow  # every test needs a run

QUICK = (
    "eval.shifts=[train]",
    "env.episode_steps=32",
    "env.action_repeat=4",
    "train.steps=24",
    "train.log_every=4",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.run(tmp_path_factory.mktemp("runs") / "run", "smg", *QUICK)


@pytest.fixture
def exported(run: Path, tmp_path: Path) -> Path:
    assert cli.main(["export", str(run), str(tmp_path / "exported")]) == 0
    return tmp_path / "exported"


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_an_export_holds_the_records_and_what_was_learnt_rounded_to_half_precision(run: Path, exported: Path):
    for name in ("metrics.jsonl", "eval.jsonl", "sheets/00000024.png"):
        assert (exported / name).read_bytes() == (run / name).read_bytes()
    assert (exported / "weights.pt").stat().st_size < size(run / "checkpoint") / 8
    trained, kept = (weights.read(folder, "compare") for folder in (run, exported))
    assert trained.step == kept.step == 24
    targets = {name for name in trained.tensors if name.startswith("target.")}
    assert targets and trained.tensors.keys() - targets == kept.tensors.keys()
    for name, value in kept.tensors.items():
        torch.testing.assert_close(value.float(), trained.tensors[name], rtol=2**-11, atol=1e-7)


def test_half_precision_is_only_for_what_it_can_hold():
    numbers = torch.tensor([0.1, -3.0, 65_504.0, float("inf")])
    assert weights.halved(numbers).dtype == torch.half
    for exact in (torch.tensor(70_001), torch.tensor([True, False]), torch.tensor([0.815, 65_600.0])):
        assert weights.halved(exact) is exact


def test_an_agent_gets_back_all_that_its_own_networks_and_buffers_held(tmp_path, monkeypatch):
    """Also networks that are called targets of something, counters, and what no optimiser moves."""

    class Own(SAC):
        target_actor: Actor
        updates: torch.Tensor
        scale: torch.Tensor

        def build(self):
            super().build()
            self.target_actor = copy.deepcopy(self.actor).requires_grad_(False)
            self.register_buffer("updates", torch.tensor(0))
            self.register_buffer("scale", torch.tensor(1.0))

        def update_targets(self):
            super().update_targets()
            polyak_update(self.target_actor, self.actor, 0.5)

    monkeypatch.setattr("common.run.build.agent_class", lambda _: Own)
    config = resolve_auto(runs.smoke(tmp_path / "run", "sac", *QUICK))
    runs.run(tmp_path / "run", "sac", *QUICK, "train.steps=1")  # a folder, whose weights are written below
    agent = build_agent(config, 6, build_images(config))
    assert isinstance(agent, Own)
    agent.updates.fill_(70_001)
    agent.scale.fill_(1e6)
    torch.nn.init.constant_(agent.target_actor.mlp.linear0.weight, 0.5)
    state = {"step": torch.tensor(1), "agent": agent.state_dict()}
    monkeypatch.setattr(checkpoint, "load", lambda *_: (state, None))
    weights.export(tmp_path / "run", tmp_path / "exported")
    for folder in (tmp_path / "run", tmp_path / "exported"):
        loaded = load_agent(config, folder, "act").agent
        assert isinstance(loaded, Own)
        assert loaded.updates == 70_001 and loaded.scale == 1e6
        assert loaded.target_actor.mlp.linear0.weight.eq(0.5).all()


def test_an_export_names_no_folder_of_this_machine_and_is_otherwise_the_run(run: Path, exported: Path):
    recorded, kept = (yaml.safe_load((folder / "config.yaml").read_text()) for folder in (run, exported))
    assert recorded["run"]["dir"] == str(run)
    assert kept == recorded | {
        "run": recorded["run"] | {"dir": None},
        "data": recorded["data"] | {"root": None, "overlay": None},
    }
    recorded, kept = (json.loads((folder / "provenance.json").read_text()) for folder in (run, exported))
    assert kept == recorded | {"data": recorded["data"] | {"root": None}}
    assert kept["data"]["video_hard"]["hash"] == recorded["data"]["video_hard"]["hash"]


def test_scores_are_what_tables_are_made_of_and_no_more(run: Path, exported: Path, tmp_path: Path):
    assert cli.main(["export", str(run), str(tmp_path / "scores"), "--scores"]) == 0
    names = {"config.yaml", "provenance.json", "eval.jsonl"}
    assert {path.name for path in (tmp_path / "scores").iterdir()} == names | {"metrics.jsonl"}
    for name in names:
        assert (tmp_path / "scores" / name).read_bytes() == (exported / name).read_bytes()
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    *_, timed = (line for line in lines if "seconds" in line)
    assert json.loads((tmp_path / "scores" / "metrics.jsonl").read_text()) == {
        "step": timed["step"],
        "seconds": timed["seconds"],
    }
    with pytest.raises(UserError, match="neither a checkpoint nor weights"):
        weights.read(tmp_path / "scores", "explain")


def test_scores_need_no_checkpoint(run: Path, tmp_path: Path):
    """A run that came from another machine without its large files."""
    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoint"))
    weights.export(tmp_path / "run", tmp_path / "scores", scores_only=True)
    assert (tmp_path / "scores" / "eval.jsonl").read_bytes() == (run / "eval.jsonl").read_bytes()
    with pytest.raises(UserError, match="neither a checkpoint nor weights"):
        weights.export(tmp_path / "run", tmp_path / "whole")
    (tmp_path / "run" / "eval.jsonl").unlink()
    with pytest.raises(UserError, match="has no scores yet"):
        weights.export(tmp_path / "run", tmp_path / "other", scores_only=True)
    assert not (tmp_path / "whole").exists() and not (tmp_path / "other").exists()


def test_an_export_says_with_what_the_run_went_on(run: Path, tmp_path: Path):
    resumed = tmp_path / "resumed"
    shutil.copytree(run, resumed)
    earlier = json.loads((run / "provenance.json").read_text()) | {"git_commit": "earlier"}
    (resumed / "provenance-until-12.json").write_text(json.dumps(earlier))
    weights.export(resumed, tmp_path / "exported")
    kept = json.loads((tmp_path / "exported" / "provenance-until-12.json").read_text())
    assert (kept["git_commit"], kept["data"]["root"]) == ("earlier", None)
    (resumed / "provenance-until-12.json").write_text("[]")
    with pytest.raises(UserError, match=r"provenance-until-12\.json cannot be read"):
        weights.export(resumed, tmp_path / "other")


def test_an_exported_agent_acts_like_the_trained_one(run: Path, exported: Path):
    obs = torch.randint(0, 256, (4, 9, 84, 84), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    actions = {}
    for folder in (run, exported):
        agent, _, step = load_agent(resolve_auto(load_run_config(folder)), folder, "act")
        assert step == 24
        actions[folder] = agent.act(obs, sample=False)
    torch.testing.assert_close(actions[run], actions[exported], rtol=0, atol=0.01)
    assert not torch.equal(actions[run], actions[exported])


def test_weights_recorded_by_earlier_versions_act_to_the_bit_alike(exported: Path, tmp_path: Path):
    """They held a mapping per network, without the temperature."""
    earlier = tmp_path / "earlier"
    shutil.copytree(exported, earlier)
    state = torch.load(exported / "weights.pt", weights_only=True)
    networks: dict[str, dict[str, torch.Tensor]] = {}
    for name, value in state["agent"].items():
        if name != "log_alpha":
            network, _, rest = name.partition(".")
            networks.setdefault(network, {})[rest] = value
    torch.save({"step": state["step"], "agent": {"networks": networks}}, earlier / "weights.pt")
    obs = torch.randint(0, 256, (4, 9, 84, 84), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    agents = [load_run(folder).agent for folder in (exported, earlier)]
    seen = [agent.explain(obs, agent.act(obs, sample=False)) for agent in agents]
    assert seen[0].keys() == seen[1].keys()
    for name, value in seen[0].items():
        assert torch.equal(value, seen[1][name]), name


def test_weights_that_lack_a_network_are_refused(exported: Path):
    state = torch.load(exported / "weights.pt", weights_only=True)
    del state["agent"]["foreground.head.bias"]
    torch.save(state, exported / "weights.pt")
    with pytest.raises(UserError, match=r"foreground\.head\.bias in one of the two only"):
        load_run(exported)


def test_an_export_is_evaluated_and_explained_like_a_run(exported: Path, capsys):
    assert cli.main(["eval", str(exported), "--episodes", "2"]) == 0
    assert "smg on walker_walk after 24 agent steps" in capsys.readouterr().out
    assert cli.main(["explain", str(exported), "--frames", "2"]) == 0
    assert (exported / "explain" / "train.png").exists()


def test_what_cannot_be_exported(run: Path, exported: Path, tmp_path: Path):
    with pytest.raises(UserError, match="exported already holds a run"):
        weights.export(run, exported)
    with pytest.raises(UserError, match=r"is no run folder: it has no config\.yaml"):
        weights.export(tmp_path, tmp_path / "other")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.yaml").write_bytes((run / "config.yaml").read_bytes())
    with pytest.raises(UserError, match="begun has neither a checkpoint nor weights to export"):
        weights.export(tmp_path / "begun", tmp_path / "other")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        weights.export(run, tmp_path / "file" / "below")
    assert not (tmp_path / "other").exists()


def test_damaged_weights_are_refused(exported: Path):
    content = (exported / "weights.pt").read_bytes()
    (exported / "weights.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"weights\.pt"):
        weights.read(exported, "evaluate")
