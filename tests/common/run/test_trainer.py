from collections import Counter
from typing import ClassVar

import pytest
import torch

from common.errors import UserError
from common.rl.sac import SAC
from common.run.device import for_trained, resolve_auto
from common.run.train import train
from common.run.trainer import Trainer
from smg.agent import SMG
from tests import runs

QUICK = ("train.steps=45", "eval.every=45", "eval.shifts=[train]", "checkpoint.every=1h")


class CountingSMG(SMG):
    """SMG whose updates are counted by kind instead of computed."""

    counts: ClassVar[Counter[str]] = Counter()

    def update(self, batch, step, examine=None):
        plan = self.schedule(step)
        done = {"critic": True, "actor": plan.actor, "targets": plan.targets, "models": plan.auxiliary}
        done["mask_ratio"] = plan.auxiliary and plan.mask_ratio
        self.counts.update(name for name, happens in done.items() if happens)
        return {"loss/bellman": torch.zeros(())}


@pytest.mark.slow
def test_a_run_of_1300_steps_makes_the_updates_that_the_schedule_implies(tmp_path, monkeypatch):
    CountingSMG.counts.clear()
    monkeypatch.setattr("common.run.build.agent_class", lambda _: CountingSMG)
    monkeypatch.setattr("common.run.trainer.time_updates", lambda *_: None)  # whose updates are not the run's
    schedule = ["train.steps=1300", "train.random_steps=1000", "train.burst_updates=1000"]
    schedule += ["smg.mask_ratio_from_step=1001", "eval.every=1300", "checkpoint.every=1h"]
    small = ["env.image_size=24", "network.strides=[2]", "eval.shifts=[train]"]
    runs.run(tmp_path / "run", "smg", *schedule, *small, task="finger_spin")  # renders faster than walker
    # Steps 0–999: none. Step 1,000: 1,000 updates of every kind. Steps 1,001–1,299: 299, of which the
    # 149 at even steps run everything, and only they see mask_ratio.
    assert CountingSMG.counts == {
        "critic": 1000 + 299,
        "actor": 1000 + 149,
        "targets": 1000 + 149,
        "models": 1000 + 149,
        "mask_ratio": 149,
    }


@pytest.mark.slow
def test_updates_come_at_the_steps_that_their_period_divides(tmp_path, monkeypatch):
    learnt = []

    class Noting(SAC):
        def update(self, batch, step, examine=None):
            learnt.append((step, self.schedule(step).actor, examine is not None))
            return {"loss/bellman": torch.zeros(())}

    monkeypatch.setattr("common.run.build.agent_class", lambda _: Noting)
    monkeypatch.setattr("common.run.trainer.time_updates", lambda *_: None)
    schedule = ["train.steps=32", "train.random_steps=20", "train.burst_updates=0", "train.update_every=3"]
    small = ["env.image_size=24", "network.strides=[2]", "eval.shifts=[train]", "eval.every=32"]
    runs.run(tmp_path / "run", "sac", *schedule, *small, task="finger_spin")
    # The actor learns at even ones of them; the last before a line of metrics, of step 30, is examined.
    assert learnt == [(21, False, False), (24, True, False), (27, False, True), (30, True, False)]


@pytest.mark.slow
def test_numbers_do_not_depend_on_where_the_environment_steps_and_repeat_with_the_seed(tmp_path):
    beside = runs.run(tmp_path / "beside", "smg", *QUICK, "env.ahead=1")
    after = runs.run(tmp_path / "after", "smg", *QUICK, "env.ahead=0")
    other = runs.run(tmp_path / "other", "smg", *QUICK, "env.ahead=0", "seed=1")
    assert runs.metrics(beside) == runs.metrics(after)
    assert runs.evaluations(beside) == runs.evaluations(after)
    assert runs.metrics(after) != runs.metrics(other)


@pytest.mark.slow
def test_wandb_holds_what_the_run_folder_holds(tmp_path):
    folder = tmp_path / "run"
    assert train(runs.smoke(folder, "sac", *QUICK, "wandb.mode=offline")) == 0
    [file] = folder.glob("wandb/offline-run-*/run-*.wandb")
    history = runs.wandb_history(file)
    logged = runs.metrics(folder)
    assert len(history) == len(logged) + 1  # and the evaluation's means
    for line in logged:
        assert any(line.items() <= row.items() for row in history), line
    means = {f"eval/{record['shift']}": record["return"] for record in runs.evaluations(folder)}
    assert any(means.items() <= row.items() for row in history)


def test_a_start_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(UserError, match="GB"):
        train(runs.smoke(tmp_path / "run", "sac", "replay.capacity=2000000000"))
    with pytest.raises(UserError, match="overlay"):
        train(runs.smoke(tmp_path / "run", "smg", f"data.overlay={tmp_path / 'absent'}"))
    assert not (tmp_path / "run").exists()


def test_auto_is_decided_and_recorded(tmp_path):
    config = resolve_auto(runs.smoke(tmp_path, "sac", "device=auto"))
    assert "auto" not in (
        config.device,
        config.compile,
        config.amp,
        config.channels_last,
        config.threads,
        config.optim.fused,
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_missing_gpu_is_named(tmp_path):
    with pytest.raises(UserError, match="no CUDA device"):
        resolve_auto(runs.smoke(tmp_path).model_copy(update={"device": "cuda"}))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_what_a_gpu_trained_is_looked_at_without_one(tmp_path, capsys):
    config = runs.smoke(tmp_path, "sac", "device=cuda:1", "compile=graphs")
    assert (for_trained(config).device, for_trained(config).compile) == ("cpu", "eager")
    assert "cpu instead of cuda:1" in capsys.readouterr().err
    with pytest.raises(UserError, match="use device=cpu compile=eager"):
        resolve_auto(config)


@pytest.mark.slow
def test_numbers_do_not_depend_on_when_the_policys_answer_is_waited_for(tmp_path, monkeypatch):
    at_once = runs.run(tmp_path / "at_once", "smg", *QUICK)
    begin, order = Trainer.__init__, []

    def answering_later(self, *arguments, **named):
        begin(self, *arguments, **named)
        self.policy_answers_later = True
        send, update = self.env.send, self.agent.update
        self.env.send = lambda action: (order.append("send"), send(action))[1]
        self.agent.update = lambda *arguments: (order.append("update"), update(*arguments))[1]

    monkeypatch.setattr(Trainer, "__init__", answering_later)
    later = runs.run(tmp_path / "later", "smg", *QUICK)
    assert runs.metrics(later) == runs.metrics(at_once)
    assert runs.evaluations(later) == runs.evaluations(at_once)
    assert order[-4:] == ["update", "send", "update", "send"]
