"""CUDA graphs are checked before they are trusted: simulated on a CPU, faults included."""

import warnings
from typing import Any

import pytest
import torch

from common.rl.batch import UpdateSchedule
from common.rl.cuda_graphs import GraphedUpdate, compared
from tests.common.rl.test_layouts import batch, build

AGENTS = ("sac", "soda", "sgqn", "smg")
FIRST_STEP = 1000


class Recording:
    """What a graph does, done by running the step again: fixed input tensors, the same memory of results."""

    def __init__(self, step, pool) -> None:
        self.step = step

    def __call__(self):
        return self.step()


def graphed(name: str, capture: Any = Recording, *switches: str):
    """A small agent whose updates go through graphs made by `capture`."""
    agent = build(name, "channels_last=true", "optim.fused=true", "compile=eager", *switches)
    agent.graphed_update = GraphedUpdate(
        agent.step, agent.uncompiled().step, "graphs", torch.device("cpu"), agent.state_tensors, capture
    )
    return agent


def train(agent, steps: int = 6) -> list[dict[str, float]]:
    """The metrics of some updates."""
    logged = []
    for step in range(FIRST_STEP, FIRST_STEP + steps):
        torch.manual_seed(step)
        metrics = agent.update(batch(agent, step), step)
        logged.append({name: float(value) for name, value in metrics.items()})
    return logged


def eager(name: str):
    """The same agent after the same updates without graphs, and their metrics."""
    agent = build(name, "channels_last=true", "optim.fused=true", "compile=eager")
    return agent, train(agent)


def assert_equal(one, two) -> None:
    """All weights and all that the optimisers remember are the same to the bit."""
    ours, theirs = one.state_tensors(), two.state_tensors()
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


@pytest.mark.parametrize("name", AGENTS)
def test_checked_graphs_learn_what_eager_updates_learn(name):
    expected, metrics = eager(name)
    agent = graphed(name)
    assert train(agent) == metrics
    assert_equal(agent, expected)
    # One graph per schedule, the draw of SMG's τ among them, each with its finding.
    schedules = agent.graphed_update._captured.keys()
    assert len(agent.graphed_update.findings) == len(schedules) >= 2
    assert all("the first replay equals an eager step" in line for line in agent.graphed_update.findings)


class WrongLayout(Recording):
    """Scrambles one weight after the step, as gradients in another memory layout do."""

    agent: Any = None

    def __call__(self):
        metrics = self.step()
        weight = self.agent.critic.trunk.convolutions[1].weight
        with torch.no_grad():
            weight.copy_(weight.flip(0))
        return metrics


class StaleMoments(Recording):
    """Forgets one of Adam's moments."""

    agent: Any = None

    def __call__(self):
        metrics = self.step()
        slots = self.agent.optimizers["actor"].state[self.agent.actor.mlp.linear0.weight]
        slots["exp_avg_sq"].zero_()
        return metrics


class WrongMetric(Recording):
    """Reports another loss than the step had."""

    def __call__(self):
        metrics = self.step()
        return metrics | {"loss/bellman": metrics["loss/bellman"] * 1.5}


class NotANumber(Recording):
    """Leaves a NaN in a weight."""

    agent: Any = None

    def __call__(self):
        metrics = self.step()
        with torch.no_grad():
            self.agent.actor.mlp.linear2.bias[0] = torch.nan
        return metrics


class OutOfMemory(Recording):
    """Fails while capturing, after having changed the state."""

    def __init__(self, step, pool) -> None:
        step()
        raise RuntimeError("CUDA error: operation failed due to a previous error during capture\ninvalidated")


@pytest.mark.parametrize("fault", [WrongLayout, StaleMoments, WrongMetric, NotANumber, OutOfMemory])
@pytest.mark.parametrize("name", ["sac", "smg"])
def test_a_fault_puts_the_state_back_warns_once_and_goes_on_eagerly(name, fault):
    expected, metrics = eager(name)
    agent = graphed(name, type("Faulty", (fault,), {}))
    agent.graphed_update._capture.agent = agent  # pyright: ignore[reportAttributeAccessIssue]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert train(agent) == metrics
    assert_equal(agent, expected)
    [warning] = [each for each in caught if "CUDA graphs are off" in str(each.message)]
    assert "updates run eagerly" in str(warning.message) and "\n" not in str(warning.message)
    assert len(agent.graphed_update.findings) == 1


def test_a_fault_of_a_later_schedule_ends_all_graphs():
    expected, metrics = eager("sac")

    class FailsSecond(Recording):
        made = 0

        def __init__(self, step, pool) -> None:
            FailsSecond.made += 1
            if FailsSecond.made == 2:
                raise MemoryError("no memory")
            super().__init__(step, pool)

    agent = graphed("sac", FailsSecond)
    with pytest.warns(UserWarning, match="MemoryError: no memory"):
        assert train(agent) == metrics
    assert_equal(agent, expected)
    assert not agent.graphed_update._captured


def test_loading_drops_graphs_that_would_read_old_moments():
    donor, _ = eager("sgqn")
    agent = graphed("sgqn")
    train(agent, 2)
    assert agent.graphed_update._captured
    agent.load_state_dict(donor.state_dict())
    assert not agent.graphed_update._captured
    assert train(agent) == train(donor)
    assert_equal(agent, donor)


def test_all_graphs_share_a_memory_pool(monkeypatch):
    pools = []

    class Pooled(Recording):
        def __init__(self, step, pool) -> None:
            pools.append(pool)
            super().__init__(step, pool)

    agent = graphed("smg", Pooled)
    agent.graphed_update._pool = "the pool"
    train(agent)
    assert len(pools) >= 2 and set(pools) == {"the pool"}


def test_metrics_outlive_the_next_replay():
    class Reused(Recording):
        """Gives back the same tensors at every replay, as a graph does."""

        def __call__(self):
            for name, value in self.step().items():
                self.results.setdefault(name, torch.zeros_like(value)).copy_(value)
            return self.results

        def __init__(self, step, pool) -> None:
            self.results: dict[str, torch.Tensor] = {}
            super().__init__(step, pool)

    agent = graphed("sac", Reused)
    first = agent.update(batch(agent, 1001), 1001)
    kept = {name: float(value) for name, value in first.items()}
    agent.update(batch(agent, 1003), 1003)
    assert {name: float(value) for name, value in first.items()} == kept


def test_the_comparison_by_hand():
    eager_step = {"a": torch.tensor([3.0, 4.0]), "b": torch.tensor([1.0])}
    again = {"a": torch.tensor([3.0, 4.05]), "b": torch.tensor([1.01])}  # both 0.01 off
    near = {"a": torch.tensor([3.0, 4.14]), "b": torch.tensor([1.0])}  # 0.028: below 3 × 0.01
    assert "most in a by 0.028, where two eager steps differ by 0.01" in compared(eager_step, again, near)
    far = {"a": torch.tensor([3.0, 4.0]), "b": torch.tensor([1.04])}
    with pytest.raises(Exception, match=r"most in b by 0\.04"):
        compared(eager_step, again, far)


def test_an_unused_schedule_costs_nothing():
    agent = graphed("sac")
    agent.update(batch(agent, 1001), 1001)
    assert list(agent.graphed_update._captured) == [UpdateSchedule(actor=False, targets=False)]
