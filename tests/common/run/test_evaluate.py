import json

import numpy as np
import pytest
import torch

from common import cli
from common.config.loading import load, load_run_config, to_yaml
from common.envs.backgrounds import data_summary
from common.run import reevaluate
from common.run.evaluate import Evaluator, mean_actions, summary_table
from common.run.reevaluate import report, settings_learnt_with
from common.run.train import final_report
from tests import released, runs
from tests.common.study.written_runs import study, write_run

ARGUMENTS = {"task": "walker_walk", "action_repeat": 8, "episode_steps": 64, "seed": 3}


class LinearPolicy:
    """A policy that looks at the pixels: each action is a sum of pixels, so any difference in them shows."""

    device = torch.device("cpu")

    def __init__(self):
        self.weights = torch.randn(9 * 84 * 84, 6, generator=torch.Generator().manual_seed(0)) / 1e4

    def act(self, obs, sample):
        assert not sample
        return torch.tanh(torch.stack([single.flatten().float() @ self.weights for single in obs]))


@pytest.fixture(scope="module")
def one_by_one():
    evaluator = Evaluator(ARGUMENTS, ("train", "video_hard", "color_hard"), episodes=3, envs=1, processes=0)
    yield evaluator.run(LinearPolicy(), number=2)
    evaluator.close()


@pytest.mark.slow
@pytest.mark.parametrize(("envs", "processes"), [(9, 2), (5, 0)])
def test_returns_do_not_depend_on_how_many_environments_step_together(one_by_one, envs, processes):
    evaluator = Evaluator(
        ARGUMENTS, ("train", "video_hard", "color_hard"), episodes=3, envs=envs, processes=processes
    )
    together = evaluator.run(LinearPolicy(), number=2)
    evaluator.close()

    def key(record):
        return record["shift"], record["episode"]

    assert sorted(together, key=key) == sorted(one_by_one, key=key)


@pytest.mark.slow
def test_every_shift_plays_the_same_episodes_and_each_evaluation_others(one_by_one):
    assert [record["length"] for record in one_by_one] == [8] * 9
    evaluator = Evaluator(ARGUMENTS, ("train",), episodes=3, envs=3, processes=0)
    returns = {number: [r["return"] for r in evaluator.run(LinearPolicy(), number)] for number in (2, 3)}
    evaluator.close()
    assert returns[2] == [r["return"] for r in one_by_one if r["shift"] == "train"]
    assert returns[2] != returns[3]


def evaluated(**returns):
    return [{"shift": shift, "return": value} for shift, values in returns.items() for value in values]


def row(table, shift):
    [line] = [line for line in table.splitlines() if line.split()[:1] == [shift]]
    return " ".join(line.split()[1:])


def test_table_shows_mean_spread_and_the_papers_number():
    table = summary_table(
        evaluated(train=[3.0, 5.0], video_hard=[700.0, 800.0]), load("smg", "walker_walk", "paper"), []
    )
    assert row(table, "train") == "4.0 ± 1.4 -"
    assert row(table, "video_hard") == "750.0 ± 70.7 814 ± 51 (SMG poster)"
    assert table.endswith("ours: mean ± sd over 2 episodes of one seed; paper: mean ± sd over seeds")


def test_table_shows_no_score_of_another_protocol_and_says_why():
    table = summary_table(
        evaluated(train=[3.0, 5.0], video_easy=[1.0, 1.0]), load("sgqn", "finger_spin", "paper"), []
    )
    assert row(table, "train") == "4.0 ± 1.4 -"
    assert row(table, "video_easy") == "1.0 ± 0.0 956 ± 26 (SGQN table 5)"
    assert "no paper beside train: SGQN table 2 is of action repeat 4 (here 2)" in table
    laptop = summary_table(
        evaluated(train=[1.0], video_easy=[1.0]), load("sgqn", "walker_walk", "laptop"), []
    )
    assert (
        "no paper beside train: SGQN table 2 is of 500,000 agent steps (here 15,000), batch 128 (here 64) "
        in laptop
    )
    assert "paper: mean" not in laptop


def test_table_says_how_many_episodes_the_simulation_ended():
    records = evaluated(train=[900.0, 3.0], video_hard=[800.0, 700.0])
    config = load("smg", "walker_walk", "paper")
    assert "diverged" not in summary_table(records, config, [])
    records[1]["diverged"] = True
    assert summary_table(records, config, []).endswith(
        "the simulation diverged in 1 of 4 episodes, whose returns end there"
    )


def test_one_episode_has_no_deviation():
    table = summary_table(evaluated(train=[3.0], video_hard=[4.0]), load("smg", "walker_walk", "paper"), [])
    assert row(table, "train") == "3.0 -"
    assert row(table, "video_hard") == "4.0 814 ± 51 (SMG poster)"
    assert "ours: one episode of one seed" in table
    columns = {
        line.index(word) for line, word in zip(table.splitlines(), ("paper", "-", "814"), strict=False)
    }
    assert len(columns) == 1


def test_table_has_means_over_complete_kinds_of_shifts_apart():
    config = load("smg", "walker_walk", "paper")
    names = ("color_easy", "color_hard", "video_easy", "video_hard", "color_video_easy", "color_video_hard")
    photometric = {name: [100.0 * number, 300.0] for number, name in enumerate(names)}
    table = summary_table(evaluated(train=[3.0, 5.0], rotate_easy=[7.0, 9.0], **photometric), config, [])
    assert row(table, "color_video_hard") == "400.0 ± 141.4 -"
    # (0 + 100 + 200 + 300 + 400 + 500) / 6 = 250 with 300
    assert "\nmean over the 6 photometric shifts: 275.0\n" in table
    assert "geometric" not in table
    [head, *rows] = table.splitlines()[:9]
    assert {line.rindex(word) for line, word in zip(rows[:2], "--", strict=True)} == {head.index("paper")}


def test_table_shows_no_score_beside_other_data():
    config = load("smg", "walker_walk", "paper")
    provenance = {"data": {"source": "procedural"}, "overlay": {"source": "procedural"}}
    table = summary_table(evaluated(video_hard=[1.0, 2.0]), config, [provenance])
    assert row(table, "video_hard").endswith(" -")
    assert table.endswith(
        "no paper beside video_hard: SMG poster is of photographs as overlay images (here procedural), "
        "the benchmark's backgrounds (here procedural)"
    )


def test_a_report_counts_what_earlier_sessions_learnt_from(tmp_path):
    run = study(tmp_path, "preset=paper").runs[-1]
    write_run(run, {"video_hard": [800.0] * run.config.eval.episodes}, steps=[run.config.train.steps])
    assert "(SMG poster)" in final_report(run.config, run.folder)
    earlier = {"overlay": {"source": "procedural"}}
    (run.folder / "provenance-until-7.json").write_text(json.dumps(earlier))
    told = final_report(run.config, run.folder)
    assert "SMG poster is of photographs as overlay images (here procedural)" in told
    assert "(SMG poster)" not in told


def paper_run(folder, *overrides):
    """A run that meets all conditions of SMG's poster, but for overrides."""
    run = study(folder, "preset=paper", *overrides).runs[-1]
    write_run(run, {"video_hard": [800.0] * run.config.eval.episodes}, steps=[run.config.train.steps])
    return run


@pytest.mark.parametrize(
    ("before", "unmet"),
    [
        (["losses.background=0"], "losses.background 2 (here 0 until step 7)"),
        (["optim.critic.lr=1e-4", "smg.rho=0.3"], "optim.critic.lr 0.001 (here 0.0001 until step 7)"),
        (["train.steps=9"], None),  # prolonged
        (["eval.clips=[0,4]", "eval.episodes=2", "checkpoint.every=7"], None),
        ("agent: sgqn\n", "settings that are known (here unreadable until step 7)"),
    ],
)
def test_a_report_counts_what_a_run_was_configured_with_before(before, unmet, tmp_path):
    run = paper_run(tmp_path)
    assert "(SMG poster)" in final_report(run.config, run.folder)
    if not isinstance(before, str):
        before = to_yaml(load("smg", run.config.task, "paper", overrides=before))
    (run.folder / "config-until-7.yaml").write_text(before)
    told = final_report(run.config, run.folder)
    assert ("(SMG poster)" in told) == (unmet is None)
    assert unmet is None or f"SMG poster is of {unmet}" in told


def test_no_score_stands_beside_a_run_that_lost_its_replay(tmp_path):
    run = paper_run(tmp_path)
    write_run(run, steps=[run.config.train.steps], provenance={"replay_emptied": ["at step 400"]})
    told = final_report(run.config, run.folder)
    assert "(SMG poster)" not in told
    assert "SMG poster is of replay kept throughout (here emptied at step 400)" in told


def test_what_an_evaluation_is_told_does_not_change_what_was_trained(tmp_path):
    run = paper_run(tmp_path)
    steps, records = run.config.train.steps, evaluated(video_hard=[800.0])

    def told(*overrides):
        config = load_run_config(run.folder, overrides)
        return report(records, config, steps, [], None, settings_learnt_with(run.folder, config))

    assert "(SMG poster)" in told() and "(SMG poster)" in told("eval.episodes=7", "device=cpu")
    train = run.config.train.model_copy(update={"batch": 128})
    (run.folder / "config.yaml").write_text(to_yaml(run.config.model_copy(update={"train": train})))
    assert "SMG poster is of batch 64 (here 128)\n" in told() + "\n"
    assert "SMG poster is of batch 64 (here 128 in training)\n" in told("train.batch=64") + "\n"


def test_a_score_stands_only_beside_weights_that_learnt_as_long():
    config = load("smg", "walker_walk", "paper")
    early = report(evaluated(video_hard=[220.0]), config, 20_000, [], None, {})
    assert early.startswith("\nsmg on walker_walk after 20000 agent steps\nshift")
    assert row(early, "video_hard") == "220.0 -"
    assert "SMG poster is of 500,000 agent steps (here 20,000)" in early
    late = report(evaluated(video_hard=[220.0]), config, 500_000, [], None, {})
    assert row(late, "video_hard") == "220.0 814 ± 51 (SMG poster)"


def test_table_ends_with_what_else_to_know():
    table = summary_table(evaluated(video_easy=[1.0]), load("smg", "walker_walk", "smoke"), [], "Beware.")
    assert table.endswith("\nBeware.")


def test_actions_do_not_depend_on_the_batch_they_are_chosen_in():
    agent = released.agent("sac", released.numbers("sac"))
    obs = np.random.default_rng(0).integers(0, 256, (21, 9, 84, 84), dtype=np.uint8)
    together = mean_actions(agent, obs)
    alone = np.concatenate([mean_actions(agent, single[None]) for single in obs])
    assert together.shape == (21, 3) and np.array_equal(together, alone)
    np.testing.assert_allclose(together, agent.act(torch.from_numpy(obs), sample=False).numpy(), atol=1e-6)


@pytest.mark.slow
def test_an_evaluation_is_of_the_clips_of_now_and_the_images_of_then(tmp_path, monkeypatch):
    folder = runs.run(tmp_path / "run", "sac", "eval.shifts=[train]", "train.steps=12", "eval.episodes=1")
    path = folder / "provenance.json"
    provenance = json.loads(path.read_text())
    then = {"data": {"source": "elsewhere"}, "overlay": {"source": "files", "images": 7}}
    path.write_text(json.dumps(provenance | then))
    found = []
    monkeypatch.setattr(reevaluate, "report", lambda *arguments: found.append(arguments[3]) or "")
    assert cli.main(["eval", str(folder), "--shifts", "video_hard"]) == 0
    [[session]] = found
    assert session["data"] == data_summary(None)
    assert session["overlay"] == then["overlay"]
