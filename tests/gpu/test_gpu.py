"""What only a CUDA device can show. All of it skips without one."""

import gc
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from common.config.loading import load
from common.config.registry import AGENTS, agent_class
from common.rl.augment import build_augmentation
from common.rl.batch import Batch
from common.run.device import resolve_auto
from common.run.train import train
from tests import runs
from tests.baselines.batches import random_batch
from tests.common.rl.test_graphed_update import assert_equal

pytestmark = pytest.mark.gpu
UPDATES, FIRST_STEP = 20, 1000
RUN = ("device=cuda", "compile=graphs", "env.image_size=24", "network.strides=[2]", "eval.shifts=[train]")


@pytest.fixture(autouse=True)
def deterministic():
    """cuDNN's deterministic algorithms, the same in a graph and out of it; no graphs outlive their test."""
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, benchmark=False):
        yield
    gc.collect()


def build(name: str, compile: str) -> Any:
    """An agent at the papers' size as users get it on a GPU, but for the batch."""
    sizes = ["device=cuda", f"compile={compile}", "amp=bf16", "train.batch=32"]
    config = resolve_auto(load(name, "walker_walk", "paper", overrides=sizes))
    torch.manual_seed(0)
    images = torch.randint(0, 256, (512, 3, 84, 84), dtype=torch.uint8, device="cuda")
    return agent_class(name)(config, 6, lambda count: images[:count], "cuda")


def update(agent: Any, step: int) -> dict[str, float]:
    """One update with a batch and draws that only the step decides."""
    drawn = random_batch(agent.batch_size(step), agent.config.env.frame_size)
    action = torch.rand(len(drawn.obs), 6, generator=torch.Generator().manual_seed(step)) * 2 - 1
    values = vars(drawn) | {"action": action, "obs": drawn.obs.roll(step, -1)}
    torch.manual_seed(step)
    metrics = agent.update(Batch(**{name: value.cuda() for name, value in values.items()}), step)
    return {name: float(value) for name, value in metrics.items()}


@pytest.mark.parametrize("name", AGENTS)
def test_graphs_learn_what_eager_updates_learn(name):
    eager, graphs = build(name, "eager"), build(name, "graphs")
    graphs.load_state_dict(eager.state_dict())
    for step in range(FIRST_STEP, FIRST_STEP + UPDATES):
        found, expected = update(graphs, step), update(eager, step)
        assert found.keys() == expected.keys()
        assert all(found[key] == pytest.approx(expected[key], rel=0.05, abs=1e-3) for key in found), step
    assert graphs.graphed_update.graphs, graphs.graphed_update.findings
    before, theirs = build(name, "eager").state_tensors(), eager.state_tensors()
    for key, value in graphs.state_tensors().items():
        change = theirs[key].double() - before[key].double() if key in before else theirs[key].double()
        distance = (value.double() - theirs[key].double()).norm()
        assert distance <= 0.05 * change.norm() + 1e-6, key


@pytest.mark.parametrize("name", ["sac", "rad", "smg"])
def test_a_captured_policy_draws_what_an_eager_one_draws(name):
    eager, graphs = build(name, "eager"), build(name, "graphs")
    graphs.load_state_dict(eager.state_dict())
    size = eager.config.env.frame_size
    obs = random_batch(5, size).obs.cuda()
    for step, one in enumerate(obs.split(1)):
        drawn = []
        for agent in (eager, graphs):
            torch.manual_seed(step)
            drawn.append(agent.act(one, sample=True))
            with torch.no_grad():  # as an update does, in place
                for weight in agent.actor.parameters():
                    weight.mul_(1.01)
        torch.testing.assert_close(drawn[1], drawn[0], rtol=0, atol=1e-5)
    assert graphs.graphed_policy.graphs and len(graphs.graphed_policy._captured) == 1


@pytest.mark.parametrize("name", ["sac", "sgqn", "smg"])
def test_a_loaded_state_goes_on_as_the_agent_that_was_saved(name):
    agent = build(name, "graphs")
    for step in range(FIRST_STEP, FIRST_STEP + 4):
        update(agent, step)
    other = build(name, "graphs")
    update(other, FIRST_STEP)  # its graphs must not outlive the loading
    other.load_state_dict(agent.state_dict())
    for step in range(FIRST_STEP + 4, FIRST_STEP + 8):
        assert update(agent, step) == update(other, step)
    assert_equal(agent, other)


def test_a_failed_capture_leaves_nothing_behind():
    agent = build("sac", "graphs")
    capturable = agent.graphed_update.step

    def waiting(inputs, schedule):
        metrics = capturable(inputs, schedule)
        metrics["loss/bellman"].item()  # which no capture allows
        return metrics

    agent.graphed_update.step = agent.graphed_update.reference = waiting
    stream = torch.cuda.current_stream()
    with pytest.warns(UserWarning, match="CUDA graphs are off, updates run eagerly"):
        update(agent, FIRST_STEP)
    random = torch.cuda.get_rng_state()
    eager = build("sac", "eager")
    update(eager, FIRST_STEP)
    assert torch.cuda.current_stream() == stream
    assert torch.equal(random, torch.cuda.get_rng_state())
    assert hasattr(torch._C, "_cuda_endAllocateToPool")  # pyright: ignore[reportPrivateUsage]
    for step in range(FIRST_STEP + 1, FIRST_STEP + 4):
        assert update(agent, step) == pytest.approx(update(eager, step), rel=0.05, abs=1e-3)


def test_draws_of_an_augmentation_arrive_whole():
    """Kornia gives some as one row that is seen as one for every sample, an affine map's centre for one."""
    augmentation = build_augmentation({"name": "RandomAffine", "degrees": 10}, None, 84)
    torch.manual_seed(0)
    there = augmentation.draw(8, 84, 84, torch.device("cuda"))
    torch.manual_seed(0)
    for name, value in augmentation.draw(8, 84, 84, torch.device("cpu")).items():
        assert torch.equal(there[name].cpu(), value), name


@pytest.mark.filterwarnings("ignore::common.gl.SoftwareRenderingWarning")
@pytest.mark.parametrize("storage", ["cuda", "cpu"])
@pytest.mark.parametrize("name", ["smg", "sgqn"])
def test_a_stopped_run_goes_on_where_it_was(name, storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    steps = ["train.steps=45", "eval.every=45"]
    config = runs.smoke(tmp_path / "run", name, *RUN, *steps, f"replay.device={storage}")
    agent = agent_class(name)
    real = agent.update

    def stopping(self, batch, step, examine=None):
        if step == 30:
            signal.raise_signal(signal.SIGTERM)
        return real(self, batch, step, examine)

    with monkeypatch.context() as patch:
        patch.setattr(agent, "update", stopping)
        assert train(config) != 0
    assert train(config) == 0
    assert [line["step"] for line in runs.evaluations(tmp_path / "run")][-1] == 45
    steps = [line["step"] for line in runs.metrics(tmp_path / "run") if "loss/bellman" in line]
    assert steps == sorted(set(steps)) and steps[-1] == 40
