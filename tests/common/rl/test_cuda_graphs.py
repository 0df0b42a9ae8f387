"""The update as a program: compiled parts give eager's numbers, and nothing in it waits for a device."""

import shutil

import pytest
import torch

from common.config.loading import load
from common.config.registry import agent_class
from common.errors import UserError
from common.rl import networks
from common.rl.batch import Batch
from common.rl.sac import SAC
from common.run.device import resolve_auto
from tests import released
from tests.synchronisation import ForbidSynchronisation

AGENTS = ("sac", "sgqn", "smg")
FULL, CRITIC_ONLY = 2000, 2001


def build(name, *overrides):
    small = ["amp=off", "env.image_size=24", "device=cpu", *overrides]
    config = resolve_auto(load(name, "walker_walk", "smoke", overrides=small))

    def images(count):
        return torch.rand(count, 3, 24, 24, device=config.device) * 255

    torch.manual_seed(0)
    return agent_class(name)(config, 3, images, config.device)


def batch(size=8):
    torch.manual_seed(1)
    frames = torch.randint(0, 256, (size, 12, 24, 24), dtype=torch.uint8)
    ones = torch.ones(size, 1)
    return Batch(frames[:, :9], torch.rand(size, 3) * 2 - 1, ones, frames[:, 3:], ones)


@pytest.mark.slow
@pytest.mark.parametrize("name", AGENTS)
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # Dynamo itself looks at the inputs' .grad
def test_compiled_parts_give_the_numbers_of_eager_ones(name, monkeypatch):
    # Traced and differentiated as for any back end, but run by PyTorch's own kernels: the C++ of SGQN's and
    # SMG's parts takes minutes to build.
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda part, **how: compile_(part, backend="aot_eager", **how))
    compare_compiled_with_eager(name, weights=True)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++, which Inductor compiles its C++ with")
@pytest.mark.filterwarnings("ignore:The .grad attribute", "ignore:`torch.jit")  # PyTorch's own
def test_compiled_c_plus_plus_gives_the_numbers_of_eager_parts(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # nothing compiled before, nothing kept
    monkeypatch.setattr(SAC, "COMPILED", ("critic_losses",))  # the others take as long again
    # Adam makes of the last bit of a small gradient a step of a whole learning rate.
    compare_compiled_with_eager("sac", weights=False)


def compare_compiled_with_eager(name, weights):
    eager, compiled = build(name, "compile=eager"), build(name, "compile=default")
    for step in (FULL, CRITIC_ONLY):
        compiled.load_state_dict(eager.state_dict())
        (metrics, gradients), (metrics_compiled, gradients_compiled) = (
            losses_and_gradients(agent, step) for agent in (eager, compiled)
        )
        for metric, value in metrics.items():
            torch.testing.assert_close(metrics_compiled[metric], value, rtol=1e-5, atol=1e-6, msg=metric)
        assert gradients.keys() == gradients_compiled.keys()
        for names, found in gradients.items():
            for one, two in zip(found, gradients_compiled[names], strict=True):
                assert (two - one).norm() <= 1e-4 * one.norm(), names
        for agent in (eager, compiled):
            torch.manual_seed(step)
            agent.update(batch(), step)
        pairs = zip(released.parameters(eager), released.parameters(compiled), strict=True)
        for (key, one, part), (_, two, _) in pairs if weights else ():
            torch.testing.assert_close(two[part], one[part], rtol=1e-4, atol=1e-5, msg=key)


def losses_and_gradients(agent, step):
    """The update's metrics and the gradient of each loss, all at the weights that the agent has."""
    gradients = {}

    def record(loss, *names, clip=None):
        parameters = [p for name in names for p in agent.optimizers[name].param_groups[0]["params"]]
        gradients[names] = torch.autograd.grad(loss, parameters)
        return torch.nn.utils.get_total_norm(gradients[names])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agent, "minimise", record)
        patch.setattr(agent, "proved", True)  # this update moves nothing
        torch.manual_seed(step)
        return agent.update(batch(), step), gradients


@pytest.mark.parametrize("name", AGENTS)
@pytest.mark.parametrize("step", [FULL, CRITIC_ONLY])
def test_an_update_never_waits_for_the_device(name, step):
    agent = build(name)
    agent.update(batch(), step)
    sample = batch()
    with ForbidSynchronisation():
        metrics = agent.update(sample, step)
    assert all(value.dim() == 0 and not value.requires_grad for value in metrics.values())


@pytest.mark.parametrize("name", AGENTS)
def test_shapes_of_the_inputs_depend_on_the_plan_alone(name):
    agent = build(name)
    shapes = {}
    for step in range(FULL, FULL + 120):
        sample = batch()
        torch.manual_seed(step)
        inputs, plan = agent.prepare(sample, agent.schedule(step))
        found = {key: tuple(value.shape) for key, value in inputs.items()}
        assert shapes.setdefault(plan, found) == found
    # SMG: τ is drawn per batch, so each kind of step has two programs.
    assert len(shapes) == (4 if name == "smg" else 2)


@pytest.mark.parametrize("name", AGENTS)
def test_bfloat16_stays_close(name):
    exact, rounded = build(name, "network.filters=16"), build(name, "network.filters=16", "amp=bf16")
    rounded.load_state_dict(exact.state_dict())
    losses, gradients = [], []
    for agent in (exact, rounded):
        torch.manual_seed(0)
        inputs, _ = agent.prepare(batch(64), agent.schedule(FULL))
        if name == "smg":
            inputs["composed"] = inputs["augmented"] = inputs.get("augmented", inputs["obs"].float())
        terms, _ = agent.critic_losses(inputs)
        loss = agent.weighted({"bellman": terms["bellman"]})
        losses.append(loss.item())
        parameters = list(agent.critic.trunk.parameters())
        gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)]))
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert torch.cosine_similarity(*gradients, dim=0) > 0.99


@pytest.mark.parametrize("name", AGENTS)
def test_weights_rounded_together_learn_what_weights_rounded_one_by_one_learn(name, monkeypatch):
    def trained():
        agent = build(name, "amp=bf16")
        for step in range(FULL, FULL + 20):
            torch.manual_seed(step)
            agent.update(batch(), step)
        return agent.state_tensors()

    together = trained()
    calls = []

    def one_by_one(layers, bf16):
        calls.append(bf16)
        return [tuple(weight.bfloat16() for weight in layer.weights()) for layer in layers]

    monkeypatch.setattr(networks, "rounded_weights", one_by_one)
    for key, value in trained().items():
        assert torch.equal(together[key], value), key
    assert set(calls) == {True}


@pytest.mark.parametrize("mode", ["graphs", "compiled_graphs"])
def test_graphs_without_a_gpu_are_refused(mode):
    with pytest.raises(UserError, match=f"compile={mode} needs a CUDA device"):
        build("sac", f"compile={mode}")
