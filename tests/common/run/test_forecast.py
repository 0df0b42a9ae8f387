"""How long a run will take."""

import gc
import random
import time
import weakref
from typing import Any

import numpy as np
import pytest
import torch

from common.rl.sac import SAC
from common.run import console as console_module
from common.run.console import Console, duration
from common.run.device import resolve_auto
from common.run.forecast import Forecast, UpdateSeconds, Work, time_updates, work_left
from common.run.progress import Progress
from tests import runs

SETTINGS = (
    "train.steps=1000",
    "train.random_steps=100",
    "train.burst_updates=80",
    "eval.every=300",
    "eval.episodes=4",
    "eval.shifts=[train,color_hard]",
    "eval.envs=5",
    "env.episode_steps=1000",
    "env.action_repeat=4",
)


@pytest.fixture
def config(tmp_path):
    return resolve_auto(runs.smoke(tmp_path, "sac", *SETTINGS))


@pytest.mark.parametrize(
    ("progress", "work"),
    [
        (Progress(), Work(random=100, burst=80, step=900, evaluation=4)),  # at 300, 600, 900 and the end
        (Progress(step=40), Work(60, 80, 900, 4)),
        (Progress(step=100, updates=30), Work(0, 50, 900, 4)),
        (Progress(step=301, burst_done=True), Work(0, 0, 699, 4)),  # its evaluation is still to come
        (Progress(step=600, burst_done=True, evaluated=600), Work(0, 0, 400, 2)),
        (Progress(step=1000, burst_done=True, evaluated=900), Work(0, 0, 0, 1)),
        (Progress(step=1000, burst_done=True, evaluated=1000), Work(0, 0, 0, 0)),
    ],
)
def test_what_is_left_is_counted(config, progress: Progress, work: Work):
    assert work_left(config, progress) == work


def test_steps_that_refill_a_replay_are_as_quick_as_random_ones(config):
    refilling = Progress(step=500, burst_done=True, evaluated=300, learn_from=600)
    assert work_left(config, refilling) == Work(random=100, burst=0, step=400, evaluation=3)
    to_the_end = Progress(step=950, burst_done=True, evaluated=900, learn_from=1050)
    assert work_left(config, to_the_end) == Work(random=50, burst=0, step=0, evaluation=1)


def test_a_run_that_ends_within_its_random_steps_has_nothing_else(config):
    short = config.model_copy(update={"train": config.train.model_copy(update={"steps": 60})})
    assert work_left(short, Progress()) == Work(random=60, burst=0, step=0, evaluation=1)


def test_before_they_come_parts_cost_what_an_update_and_a_random_step_take(config):
    forecast = Forecast(config, {}, UpdateSeconds(full=3.0, mean=2.0, act=0.5))
    work = Work(random=100, burst=80, step=900, evaluation=4)
    assert forecast.left(work) is None  # what a random step takes is not known yet
    for _ in range(10):
        forecast.took("random", 0.25)
    # In this process an environment steps after the update. 8 episodes of 250 steps, at most 5 at once.
    evaluation = 2 * 250 * (5 * 0.25 + 0.5)
    assert forecast.left(work) == pytest.approx(
        {
            "random steps": 100 * 0.25,
            "burst of updates": 80 * 3.0,
            "900 steps": 900 * (2.0 + 0.25 + 0.5),
            "4 evaluations": 4 * evaluation,
        }
    )


def test_what_is_measured_takes_the_place_of_estimates_and_of_earlier_sessions(config):
    forecast = Forecast(config, {"random": 9.0, "step": 9.0}, UpdateSeconds(3.0, 2.0, 0.5))
    work = Work(random=0, burst=0, step=10, evaluation=1)
    assert forecast.left(work)["10 steps"] == pytest.approx(90)  # type: ignore[index]
    for _ in range(4):
        forecast.took("step", 60.0)  # these may have compiled something
    assert forecast.left(work)["10 steps"] == pytest.approx(90)  # type: ignore[index]
    for seconds in (1.0, 3.0):
        forecast.took("step", seconds)
    forecast.took("evaluation", 70.0)
    assert forecast.left(work) == pytest.approx(
        {"random steps": 0, "burst of updates": 0, "10 steps": 20, "1 evaluation": 70}
    )
    assert forecast.seconds == pytest.approx({"random": 9.0, "step": 2.0, "evaluation": 70.0})


def test_the_latest_count_most(config):
    forecast = Forecast(config, {}, None)
    for seconds in [*[1.0] * 2000, *[2.0] * 600]:
        forecast.took("step", seconds)
    # Each of the 600 moves the mean by a 200th of the way.
    assert forecast.seconds["step"] == pytest.approx(2 - (1 - 1 / 200) ** 600)


@pytest.mark.parametrize("agent", ["sac", "smg"])
def test_timing_updates_moves_no_random_generator(agent: str, tmp_path):
    config = resolve_auto(runs.smoke(tmp_path, agent, "env.image_size=24", "network.strides=[2]"))
    torch.manual_seed(5)

    def states() -> list[Any]:
        return [torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()]  # type: ignore[union-attr]

    before = states()
    found = time_updates(config, 6)
    assert found is not None and 0 < found.mean <= 2 * found.full and found.act > 0
    assert states() == before


def test_only_steps_with_an_update_are_timed(tmp_path, monkeypatch):
    steps = set()
    monkeypatch.setattr(SAC, "update", lambda self, batch, step, examine=None: steps.add(step))
    small = ("env.image_size=24", "network.strides=[2]", "train.random_steps=20", "train.update_every=4")
    found = time_updates(resolve_auto(runs.smoke(tmp_path, "sac", *small)), action_size=3)
    assert steps == {20} and found is not None
    assert found.mean == pytest.approx(found.full / 4)  # in mean over the steps between


def test_updates_in_which_a_graph_is_captured_do_not_count(tmp_path, monkeypatch):
    """A graph is made for SMG's drawn augmentation too, so the turn of one may come late."""
    update = SAC.update

    def capturing(self, batch, step):
        findings = self.graphed_update.findings
        self.updates = getattr(self, "updates", 0) + 1
        if self.updates in (1, 2, 5):
            findings.append("the first replay equals an eager step")
            time.sleep(2)
        return update(self, batch, step)

    monkeypatch.setattr(SAC, "update", capturing)
    timed = time_updates(resolve_auto(runs.smoke(tmp_path, "sac", "compile=eager")), 6)
    assert timed is not None and timed.full < 0.3 and timed.mean < 0.3


def test_the_first_choice_of_actions_does_not_count(tmp_path, monkeypatch):
    act, calls = SAC.act, []

    def slow_at_first(self, obs, sample):
        calls.append(len(obs))
        time.sleep(1 if len(calls) == 1 else 0)
        return act(self, obs, sample)

    monkeypatch.setattr(SAC, "act", slow_at_first)
    timed = time_updates(resolve_auto(runs.smoke(tmp_path, "sac")), 6)
    assert timed is not None and timed.act < 0.5


@pytest.mark.parametrize("memory", [True, False])
def test_the_agent_that_was_timed_is_gone(memory, tmp_path, monkeypatch):
    """And with it the memory of its weights and graphs, which the run's own may need."""
    update, agents = SAC.update, []

    def noted(self, batch, step):
        agents.append(weakref.ref(self))
        if not memory:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return update(self, batch, step)

    monkeypatch.setattr(SAC, "update", noted)
    gc.disable()
    try:
        assert (time_updates(resolve_auto(runs.smoke(tmp_path, "sac")), 6) is not None) == memory
        assert agents and all(agent() is None for agent in agents)
    finally:
        gc.enable()


def test_no_memory_for_a_second_agent_is_no_error(tmp_path, monkeypatch):
    def full(*_: Any) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("common.run.forecast.build_agent", full)
    assert time_updates(resolve_auto(runs.smoke(tmp_path)), 6) is None


def test_the_expected_time_is_said_once_and_counts_down_in_the_bar(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(console_module.time, "monotonic", lambda: now[0])
    console = Console()
    console.start(0, 1000)
    assert "<?" in str(console._bar)
    console.expect(None)
    parts = {"random steps": 20.0, "burst of updates": 0.0, "900 steps": 2580.0, "4 evaluations": 300.0}
    console.expect(parts)
    now[0] += 60
    assert "<47:20" in str(console._bar)  # 2900 s less a minute
    console.expect({"4 evaluations": 30.0})
    assert "<00:30" in str(console._bar)
    console.close()
    said = [line for line in capsys.readouterr().err.splitlines() if "to go" in line]
    assert [line.rpartition("\r")[2].strip() for line in said] == [
        "about 48 min to go: random steps 20 s, 900 steps 43 min, 4 evaluations 5 min"
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (99, "99 s"),
        (100, "2 min"),
        (3540, "59 min"),
        (3900, "1 h 05 min"),
        (200_000, "2 d 7 h"),
    ],
)
def test_durations_read_well(seconds: float, text: str):
    assert duration(seconds) == text
