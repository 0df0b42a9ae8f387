"""Memory formats, fused kernels, compilers and restarts change how an agent computes, not what it learns."""

import io
import itertools
import shutil

import pytest
import torch
from torch import nn

from common.config.loading import load
from common.config.registry import AGENTS, agent_class
from common.rl.batch import Batch
from common.rl.optim import laid_out_as, load_optimizer_state
from common.run.device import resolve_auto
from tests.baselines.batches import random_batch

pytestmark = pytest.mark.slow

UPDATES, SAVED_AFTER = 20, 9
FIRST_STEP = 1000
SIZE, ACTIONS = 24, 3
TINY = (
    f"env.image_size={SIZE}",
    "network.strides=[2,1,1]",
    "network.decoder_filters=[4,8,4]",
    "train.batch=4",
    "amp=off",
    "device=cpu",
    "smg.mask_ratio_from_step=1001",
    "soda.batch=4",
)
PLAIN = ("channels_last=false", "optim.fused=false", "compile=eager")


def build(name: str, *switches: str):
    """A small agent in float64, whose first weights and images are the same whatever the switches."""
    foreign = {"smg.", "soda.", "sgqn."} - {f"{agent_class(name).SECTION}."}
    small = [text for text in TINY if not text.startswith(tuple(foreign))]
    small += ["env.render_size=30"] * agent_class(name).CROPS
    config = resolve_auto(load(name, "walker_walk", "smoke", overrides=[*small, *switches]))
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    images = torch.randint(0, 256, (16, 3, SIZE, SIZE), generator=generator, dtype=torch.uint8)
    return agent_class(name)(config, ACTIONS, lambda count: images[:count]).double()


def batch(agent, step: int) -> Batch:
    """Another batch at every step, in float64."""
    drawn = random_batch(agent.batch_size(step), agent.config.env.frame_size)
    turned = {name: getattr(drawn, name).roll(step, -1) for name in ("obs", "next_obs", "action")}
    return Batch(
        obs=turned["obs"],
        action=turned["action"].double(),
        reward=drawn.reward.double(),
        next_obs=turned["next_obs"],
        not_done=drawn.not_done.double(),
    )


def trained(name: str, *switches: str, restarted: bool) -> dict[str, torch.Tensor]:
    """By how much some updates move every weight, on the way perhaps saved and loaded into a new agent."""
    agent = build(name, *switches)
    before = {key: value.detach().clone() for key, value in agent.named_parameters()}
    for step in range(FIRST_STEP, FIRST_STEP + UPDATES):
        if restarted and step == FIRST_STEP + SAVED_AFTER:
            agent = reloaded(agent, build(name, *switches))
        torch.manual_seed(step)
        agent.update(batch(agent, step), step)
    return {key: value.detach() - before[key] for key, value in agent.named_parameters()}


def by_turns(build):
    """`build` whose agents are contiguous and channels_last by turns."""
    turns = itertools.cycle(("false", "true"))
    return lambda name, *switches: build(name, f"channels_last={next(turns)}", *switches)


def reloaded(agent, fresh):
    """The fresh agent with what the other has learnt, by way of bytes."""
    file = io.BytesIO()
    torch.save(dict(agent.state_dict()), file)
    file.seek(0)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    return fresh


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Every whole weight has moved as expected: |Δ − Δ*| / |Δ*| is below 1e-6.

    SODA's batch normalisation cancels a bias, which therefore hardly moves, and only by rounding.
    """
    assert found.keys() == expected.keys()
    for name, change in expected.items():
        distance = (found[name] - change).norm()
        assert distance <= 1e-6 * change.norm() + 1e-10, f"{name} is off by {distance / change.norm():.2g}"


@pytest.fixture(scope="module")
def plain():
    """Name → how the weights move on the plain path: contiguous, unfused, eager, unbroken; trained once."""
    known: dict[str, dict[str, torch.Tensor]] = {}

    def weights(name: str) -> dict[str, torch.Tensor]:
        if name not in known:
            known[name] = trained(name, *PLAIN, restarted=False)
        return known[name]

    return weights


@pytest.mark.parametrize(("channels_last", "fused"), list(itertools.product(("true", "false"), repeat=2)))
@pytest.mark.parametrize("name", AGENTS)
def test_switches_and_a_restart_change_no_weight(name, channels_last, fused, plain):
    switches = (f"channels_last={channels_last}", f"optim.fused={fused}", "compile=eager")
    assert_same(trained(name, *switches, restarted=True), plain(name))


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # Dynamo itself looks at the inputs' .grad
@pytest.mark.parametrize("name", AGENTS)
def test_compiled_parts_and_a_restart_change_no_weight(name, plain, monkeypatch):
    # Traced and differentiated as for any back end, but run by PyTorch's own kernels: C++ takes minutes.
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda part, **how: compile_(part, backend="aot_eager", **how))
    switches = ("channels_last=true", "optim.fused=true", "compile=default")
    assert_same(trained(name, *switches, restarted=True), plain(name))


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++, which Inductor compiles its C++ with")
@pytest.mark.filterwarnings("ignore:The .grad attribute", "ignore:`torch.jit")  # PyTorch's own
def test_inductor_changes_no_weight_of_smg(plain, monkeypatch, tmp_path):
    # A minute or two of compiling, so for one agent: the one with the most parts.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # nothing compiled before, nothing kept
    switches = ("channels_last=true", "optim.fused=true", "compile=default")
    assert_same(trained("smg", *switches, restarted=True), plain("smg"))


@pytest.mark.parametrize("name", ["sgqn", "smg"])
def test_a_run_goes_on_in_another_memory_format(name, plain, monkeypatch):
    monkeypatch.setitem(globals(), "build", by_turns(build))
    assert_same(trained(name, "optim.fused=true", "compile=eager", restarted=True), plain(name))


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD, torch.optim.Adagrad])
@pytest.mark.parametrize("options", [{"fused": True}, {"foreach": True}, {"foreach": False}])
def test_any_optimiser_moves_the_right_weights_whatever_the_gradients_layout(kind, options):
    torch.manual_seed(0)
    values, gradient = torch.randn(4, 3, 2, 2), torch.randn(4, 3, 2, 2)
    steps = []
    for layout in (torch.contiguous_format, torch.channels_last):
        weight = nn.Parameter(values.clone(memory_format=layout))
        weight.grad = gradient.clone(memory_format=torch.contiguous_format)
        kind([weight], lr=0.1, **options).step()
        steps.append(weight.detach().contiguous())
    torch.testing.assert_close(*steps, rtol=0, atol=0)


def test_loaded_moments_take_their_weights_layout():
    torch.manual_seed(0)
    contiguous = nn.Parameter(torch.randn(4, 3, 2, 2))
    last = nn.Parameter(contiguous.detach().clone(memory_format=torch.channels_last))
    gradient = torch.randn(4, 3, 2, 2)
    optimizers = [torch.optim.Adam([weight], lr=0.1, fused=True) for weight in (contiguous, last)]
    contiguous.grad = gradient
    optimizers[0].step()
    load_optimizer_state(optimizers[1], optimizers[0].state_dict())
    with torch.no_grad():
        last.copy_(contiguous)
    contiguous.grad, last.grad = gradient.flip(0), gradient.flip(0)
    for optimizer in optimizers:
        optimizer.step()
    torch.testing.assert_close(last.detach().contiguous(), contiguous.detach(), rtol=0, atol=0)


def test_values_that_lie_right_are_not_copied():
    weight = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    values = torch.randn_like(weight)
    assert laid_out_as(weight, values) is values
    other = values.contiguous()
    moved = laid_out_as(weight, other)
    assert moved.stride() == weight.stride() and torch.equal(moved, other)
