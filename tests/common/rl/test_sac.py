import numpy as np
import pytest
import torch

from common.rl.sac import Plan
from tests import released

CASES = {"critic_only": Plan(actor=False, targets=False), "full": Plan(actor=True, targets=True)}


def inputs(stored):
    """The fixture's batch as SAC's prepared inputs."""
    names = ("obs", "next_obs", "action", "reward", "not_done", "noise_next", "noise_obs")
    return {name: released.tensor(stored[f"batch/{name}"]) for name in names}


@pytest.fixture(scope="module")
def stored():
    return released.numbers("sac")


@pytest.mark.parametrize("case", CASES)
def test_step_moves_every_parameter_as_the_released_code_does(stored, case):
    agent = released.agent("sac", stored)
    before = released.snapshot(agent)
    agent.step(inputs(stored), CASES[case])
    released.assert_step(agent, before, stored, case)


def test_nothing_but_the_optimised_parameters_gets_a_gradient(stored):
    agent = released.agent("sac", stored)
    terms, _ = agent.actor_losses(inputs(stored))
    reached = torch.autograd.grad(
        terms["policy"], list(agent.critic.trunk.parameters()), allow_unused=True, retain_graph=True
    )
    assert reached == (None,) * len(reached)
    assert not agent.target_q(inputs(stored)).requires_grad


def test_a_time_limit_bootstraps_and_a_terminal_does_not(stored):
    agent = released.agent("sac", stored)
    values = inputs(stored)
    target = agent.target_q(values)
    ended = stored["batch/not_done"][:, 0] == 0
    assert ended.any() and not ended.all()
    np.testing.assert_array_equal(target[ended], values["reward"][ended])
    assert (target[~ended] != values["reward"][~ended]).all()


def test_actions_do_not_depend_on_the_batch_they_are_chosen_in(stored):
    agent = released.agent("sac", stored)
    obs = torch.randint(
        0, 256, (37, 9, 84, 84), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    together = agent.act(obs, sample=False)
    alone = torch.cat([agent.act(single[None], sample=False) for single in obs])
    assert torch.equal(together, alone)


def test_a_resumed_optimiser_has_the_configured_settings(stored):
    agent = released.agent("sac", stored)
    agent.step(inputs(stored), CASES["full"])
    slower = released.agent("sac", stored, "optim.critic={lr: 1e-5, beta1: 0.5}", "optim.fused=false")
    slower.load_state_dict(agent.state_dict())
    group = slower.optimizers["critic"].param_groups[0]
    assert (group["lr"], group["betas"], group["fused"]) == (1e-5, (0.5, 0.999), False)
    moments = [each.optimizers["critic"].state_dict()["state"][0] for each in (agent, slower)]
    assert torch.equal(moments[1]["exp_avg"], moments[0]["exp_avg"]) and moments[1]["step"] == 1
    slower.step(inputs(stored), CASES["full"])
    changed = agent.critic.q1.linear2.bias - slower.critic.q1.linear2.bias
    assert 0 < changed.abs() < 1e-4  # one step of the small rate


@pytest.mark.parametrize("part", ["networks", "optimizers"])
def test_a_state_with_more_or_less_than_the_agent_has_is_refused(stored, part):
    agent = released.agent("sac", stored)
    state = agent.state_dict()
    for names in ([*state[part], "other"], list(state[part])[1:]):
        changed = state | {part: {name: state[part].get(name, {}) for name in names}}
        with pytest.raises(KeyError):
            agent.load_state_dict(changed)


def test_state_dict_continues_to_the_bit(stored):
    agent, other = released.agent("sac", stored), released.agent("sac", stored)
    agent.step(inputs(stored), CASES["full"])
    other.load_state_dict(agent.state_dict())
    for learner in (agent, other):
        learner.step(inputs(stored), CASES["full"])
    for (name, one, part), (_, two, _) in zip(
        released.parameters(agent), released.parameters(other), strict=True
    ):
        assert torch.equal(one[part], two[part]), name
