"""Every baseline trains from the first step to the last evaluation."""

import pytest

from common.config.registry import AGENTS, agent_class
from tests import runs

pytestmark = pytest.mark.slow

BASELINES = [name for name, path in AGENTS.items() if path.startswith("baselines.")]
SHORT = (
    "train.steps=11",
    "train.random_steps=10",
    "train.burst_updates=2",
    "train.log_every=11",
    "eval.every=11",
    "eval.shifts=[train]",
    "env.episode_steps=24",
    "checkpoint.every=1h",
    "data.overlay=null",
)


@pytest.mark.parametrize("agent", BASELINES)
def test_trains(agent, tmp_path, monkeypatch):
    monkeypatch.delenv("SMG_OVERLAY", raising=False)
    folder = runs.run(tmp_path / "run", agent, *SHORT)
    [last] = [line for line in runs.metrics(folder) if line["step"] == 11 and "policy/entropy" in line]
    terms = {*agent_class(agent).LOSSES, "policy", "temperature"}
    assert {name for name in last if name.startswith("loss/")} == {f"loss/{term}" for term in terms}
    [episode] = runs.evaluations(folder)
    assert (episode["step"], episode["shift"], episode["length"]) == (11, "train", 6)
