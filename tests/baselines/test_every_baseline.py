import pytest
import torch

from common.config.loading import load
from common.config.registry import AGENTS
from common.rl.attribution import guided_gradient
from tests import released
from tests.baselines.batches import random_batch
from tests.synchronisation import ForbidSynchronisation

BASELINES = [name for name, path in AGENTS.items() if path.startswith("baselines.")]


def rendered(name):
    return load(name, "walker_walk", "smoke").env.frame_size


@pytest.fixture(params=BASELINES)
def name(request):
    return request.param


def test_explanations_show_what_the_policy_sees(name):
    agent = released.small(name)
    batch = random_batch(3, rendered(name))
    attribution = agent.explain(batch.obs, batch.action)["attribution"]
    seen = agent.policy_input(batch.obs)
    assert attribution.shape == seen.shape == (3, 9, 84, 84)
    assert torch.equal(attribution, guided_gradient(agent.critic, seen, batch.action))
    assert attribution.abs().sum() > 0


def test_an_update_never_waits_for_the_device(name):
    agent = released.small(name, "optim.fused=true")
    batch = random_batch(agent.batch_size(1000), rendered(name))
    inputs, plan = agent.prepare(batch, agent.schedule(1000))
    with ForbidSynchronisation():
        metrics = agent.step(inputs, plan)
    assert {f"loss/{term}" for term in agent.LOSSES} <= set(metrics)
    assert all(value.shape == () and not value.requires_grad for value in metrics.values())


def test_a_saved_agent_continues_to_the_bit(name):
    agent, other = released.small(name), released.small(name)
    batch = random_batch(agent.batch_size(1000), rendered(name))
    agent.update(batch, 1000)
    other.load_state_dict(agent.state_dict())
    for learner in (agent, other):
        torch.manual_seed(0)
        learner.update(batch, 1000)
    for (key, one), two in zip(agent.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two), key
