"""CUDA graphs are checked before they are trusted: simulated on a CPU, faults included."""

import gc
import warnings
import weakref
from typing import Any

import pytest
import torch
from torch.autograd.graph import get_gradient_edge

from common.rl import cuda_graphs
from common.rl.batch import UpdateSchedule
from common.rl.cuda_graphs import NUDGE, GraphedProgram, compared, no_collection, nudged
from tests.common.rl.test_layouts import batch, build

AGENTS = ("sac", "soda", "sgqn", "smg")
FIRST_STEP = 1000


class Recording:
    """What a graph does, done by running the step again: fixed input tensors, the same memory of results."""

    def __init__(self, step, shared) -> None:
        self.step = step

    def __call__(self):
        return self.step()


def graphed(name: str, capture: Any = Recording, compiled: bool = False):
    """A small agent whose updates and choices of actions go through graphs made by `capture`."""
    mode = "default" if compiled else "eager"
    agent = build(name, "channels_last=true", "optim.fused=true", f"compile={mode}")
    agent.graphed_update = GraphedProgram(
        agent.step,
        agent.uncompiled().step,
        "compiled_graphs" if compiled else "graphs",
        torch.device("cpu"),
        agent.state_tensors,
        capture=capture,
    )
    agent.graphed_policy = GraphedProgram(
        agent.choose,
        agent.choose,
        "graphs",
        torch.device("cpu"),
        dict,
        "choices of actions",
        agent.graphed_update.findings,
        capture,
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


@pytest.mark.parametrize("name", AGENTS)
def test_no_gradient_node_outlives_a_step_that_is_compared(name):
    """One that did would belong to another stream than the capture, which breaks captures on a GPU."""
    agent = graphed(name)
    learns = [weight for weight in agent.parameters() if weight.requires_grad]
    step, steps = agent.graphed_update.step, []

    def marking(inputs, schedule):
        nodes: list[Any] = [get_gradient_edge(weight).node for weight in learns]
        steps.append(sum("of an earlier step" in node.metadata for node in nodes))
        for node in nodes:
            node.metadata["of an earlier step"] = True
        del nodes, node
        return step(inputs, schedule)

    agent.graphed_update.step = agent.graphed_update.reference = marking
    train(agent, 1)
    assert steps == [0] * 4  # two eager steps, a warm-up and the capture


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

    def __init__(self, step, shared) -> None:
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

        def __init__(self, step, shared) -> None:
            FailsSecond.made += 1
            if FailsSecond.made == 2:
                raise MemoryError("no memory")
            super().__init__(step, shared)

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


def test_all_graphs_of_a_program_share_a_memory_pool_and_a_stream():
    seen = []

    class Pooled(Recording):
        def __init__(self, step, shared) -> None:
            seen.append(shared)
            super().__init__(step, shared)

    agent = graphed("smg", Pooled)
    agent.graphed_update._shared = "pool and stream"
    train(agent)
    assert len(seen) >= 2 and set(seen) == {"pool and stream"}


def test_no_garbage_is_collected_during_a_capture():
    class Ring:
        def __init__(self) -> None:
            self.itself = self

    def made() -> weakref.ref[Ring]:
        return weakref.ref(Ring())

    before = made()
    with pytest.raises(ZeroDivisionError), no_collection():
        assert before() is None  # what holds an old graph is gone before it begins
        during = made()
        _ = [Ring() for _ in range(3 * gc.get_threshold()[0])]
        assert during() is not None
        _ = 1 / 0
    assert gc.isenabled()


def test_metrics_outlive_the_next_replay():
    class Reused(Recording):
        """Gives back the same tensors at every replay, as a graph does."""

        def __call__(self):
            for name, value in self.step().items():
                self.results.setdefault(name, torch.zeros_like(value)).copy_(value)
            return self.results

        def __init__(self, step, shared) -> None:
            self.results: dict[str, torch.Tensor] = {}
            super().__init__(step, shared)

    agent = graphed("sac", Reused)
    first = agent.update(batch(agent, 1001), 1001)
    kept = {name: float(value) for name, value in first.items()}
    agent.update(batch(agent, 1003), 1003)
    assert {name: float(value) for name, value in first.items()} == kept


def test_the_comparison_by_hand():
    eager_step = {"a": torch.tensor([3.0, 4.0]), "b": torch.tensor([1.0])}
    again = {"a": torch.tensor([3.0, 4.05]), "b": torch.tensor([1.01])}  # both 0.01 off
    near = {"a": torch.tensor([3.0, 4.14]), "b": torch.tensor([1.0])}  # 0.028: below 3 × 0.01
    assert "most in a by 0.028, where two eager steps differ by 0.01" in compared(eager_step, [again], near)
    far = {"a": torch.tensor([3.0, 4.0]), "b": torch.tensor([1.04])}
    with pytest.raises(Exception, match=r"most in b by 0\.04"):
        compared(eager_step, [again], far)
    further = {"a": torch.tensor([3.0, 4.0]), "b": torch.tensor([1.02])}
    assert "two eager steps differ by 0.02" in compared(eager_step, [again, further], far)


def test_an_unused_schedule_costs_nothing():
    agent = graphed("sac")
    agent.update(batch(agent, 1001), 1001)
    assert list(agent.graphed_update._captured) == [UpdateSchedule(actor=False, targets=False)]


# Compiled parts


def compiled_as(monkeypatch: pytest.MonkeyPatch, kernel: Any) -> list[str]:
    """Let torch.compile make `kernel(part)` of each part; returns the names of the parts that then run."""
    ran: list[str] = []

    def compile_(part, dynamic):
        assert dynamic is False
        made = kernel(part)

        def run(*arguments):
            ran.append(part.__name__)
            return made(*arguments)

        return run

    monkeypatch.setattr(torch, "compile", compile_)
    return ran


@pytest.mark.parametrize("name", ["sac", "sgqn", "smg"])
def test_graphs_hold_the_compiled_parts(name, monkeypatch):
    expected, metrics = eager(name)
    ran = compiled_as(monkeypatch, lambda part: part)
    agent = graphed(name, compiled=True)
    assert train(agent) == metrics
    assert_equal(agent, expected)
    assert set(ran) == set(agent.COMPILED)
    assert agent.graphed_update.compiled
    ran.clear()
    train(agent, 2)  # replays alone: each part once in the steps that have it, nothing captured anew
    assert ran.count("critic_losses") == 2 and ran.count("actor_losses") == 1


def no_compiler(part):
    def run(*arguments):
        raise RuntimeError("no compiler\nfound")

    return run


def wrong_kernel(part):
    def run(*arguments):
        result = part(*arguments)
        return result * 1.5 if part.__name__ == "target_q" else result

    return run


@pytest.mark.parametrize("kernel", [no_compiler, wrong_kernel])
@pytest.mark.parametrize("name", ["sac", "smg"])
def test_without_a_good_compiler_graphs_hold_eager_kernels(name, kernel, monkeypatch):
    expected, metrics = eager(name)
    ran = compiled_as(monkeypatch, kernel)
    agent = graphed(name, compiled=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert train(agent) == metrics
    assert_equal(agent, expected)
    [warning] = [each for each in caught if "are off" in str(each.message)]
    assert "compiled parts are off, CUDA graphs hold eager kernels" in str(warning.message)
    graphs = agent.graphed_update
    assert graphs.graphs and not graphs.compiled
    off, *checked = graphs.findings
    assert "compiled parts are off" in off and len(checked) == len(graphs._captured) >= 2
    assert all("the first replay equals an eager step" in line for line in checked)
    ran.clear()
    train(agent, 2)
    assert not ran


def test_a_fault_of_compiled_graphs_and_of_graphs_ends_both(monkeypatch):
    expected, metrics = eager("sac")
    compiled_as(monkeypatch, lambda part: part)
    agent = graphed("sac", OutOfMemory, compiled=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert train(agent) == metrics
    assert_equal(agent, expected)
    told = [str(each.message) for each in caught if "are off" in str(each.message)]
    assert ["compiled parts" in line for line in told] == [True, False]
    assert not agent.graphed_update.graphs


@pytest.mark.parametrize("compiled", [True, False])
def test_compiled_parts_are_given_the_room_of_other_roundings(compiled, monkeypatch):
    noises = []
    real = cuda_graphs.compared

    def noting(eager_step, others, graph):
        noises.append([float(cuda_graphs.distances(eager_step, other).detach().max()) for other in others])
        return real(eager_step, others, graph)

    monkeypatch.setattr(cuda_graphs, "compared", noting)
    compiled_as(monkeypatch, lambda part: part)
    expected, metrics = eager("sac")
    agent = graphed("sac", compiled=compiled)
    assert train(agent) == metrics
    assert_equal(agent, expected)
    assert [len(noise) for noise in noises] == [1 + compiled] * len(noises)
    assert all(0 < each < 1e-3 for noise in noises for each in noise)


def test_a_nudged_state_is_off_by_roundings():
    state = {"weights": torch.linspace(-3, 3, 1000), "count": torch.arange(3)}
    before = torch.get_rng_state()
    moved = nudged(state)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(moved["count"], state["count"])
    off = (moved["weights"].double() / state["weights"].double() - 1).abs() * 2**23  # in roundings of float32
    assert NUDGE / 3 < off.mean() < NUDGE * 2 / 3  # uniform: a half
    assert NUDGE - 1 < off.max() < NUDGE + 1


# Choosing actions


def choices(agent, count: int = 4) -> list[list[float]]:
    """Actions drawn for other observations each, with an update between them."""
    drawn = []
    for step in range(FIRST_STEP, FIRST_STEP + count):
        torch.manual_seed(step)
        drawn.append(agent.act(batch(agent, step).obs[:1], sample=True)[0].tolist())
        agent.update(batch(agent, step), step)
    return drawn


@pytest.mark.parametrize("name", ["sac", "rad", "smg"])
def test_graphs_choose_the_actions_that_eager_policies_choose(name):
    agent = graphed(name)
    expected = choices(build(name, "channels_last=true", "optim.fused=true", "compile=eager"))
    assert choices(agent) == expected
    assert len({tuple(action) for action in expected}) == 4
    frame = agent.config.env.frame_size
    assert list(agent.graphed_policy._captured) == [f"act on one of (9, {frame}, {frame})"]
    [finding] = [line for line in agent.graphed_update.findings if line.startswith("act on one")]
    assert "the first replay equals an eager step: over 1 tensors" in finding


def test_a_chosen_action_outlives_the_next_choice():
    class Reused(Recording):
        """Gives back the same tensor at every replay, as a graph does."""

        result = None

        def __call__(self):
            found = self.step()["action"]
            self.result = found if self.result is None else self.result.copy_(found)
            return {"action": self.result}

    agent = graphed("sac", Reused)
    first = agent.act(batch(agent, 1).obs[:1], sample=True)
    kept = first.tolist()
    agent.act(batch(agent, 2).obs[:1], sample=True)
    assert first.tolist() == kept


def test_modes_and_several_observations_are_not_captured():
    agent = graphed("sac")
    agent.act(batch(agent, 1).obs[:1], sample=False)
    agent.act(batch(agent, 1).obs[:2], sample=True)
    assert not agent.graphed_policy._captured


class WrongAction(Recording):
    """Is off by a hundredth."""

    def __call__(self):
        return {"action": self.step()["action"] + 0.01}


@pytest.mark.parametrize("fault", [WrongAction, OutOfMemory])
def test_a_fault_in_choosing_leaves_eager_choices_and_captured_updates(fault):
    agent = graphed("sac")
    agent.graphed_policy._capture = fault
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = choices(agent)
    assert found == choices(build("sac", "channels_last=true", "optim.fused=true", "compile=eager"))
    [warning] = [each for each in caught if "are off" in str(each.message)]
    assert "CUDA graphs are off, choices of actions run eagerly" in str(warning.message)
    assert not agent.graphed_policy.graphs and agent.graphed_update._captured
