import numpy as np
import pytest
import torch
from torch.nn.utils import parameters_to_vector

from common.errors import UserError
from common.rl.batch import UpdateSchedule
from common.rl.sac import SAC
from sgqn.agent import SGQN
from tests import released

CASES = {
    "critic_only": UpdateSchedule(actor=False, targets=False),
    "full": UpdateSchedule(actor=True, targets=True),
}


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


def test_a_resumed_optimiser_has_the_configured_settings(stored):
    agent = released.agent("sac", stored)
    agent.step(inputs(stored), CASES["full"])
    slower = released.agent("sac", stored, "optim.critic={lr: 1e-5, beta1: 0.5}", "optim.fused=false")
    slower.load_state_dict(agent.state_dict())
    group = slower.optimizers["critic"].param_groups[0]
    assert (group["lr"], group["betas"], group["fused"]) == (1e-5, (0.5, 0.999), False)
    for name, optimizer in agent.optimizers.items():
        states = [each.state_dict()["state"] for each in (optimizer, slower.optimizers[name])]
        assert states[0].keys() == states[1].keys() and len(states[0]) > 0
        for index, slots in states[0].items():
            assert all(torch.equal(value, states[1][index][slot]) for slot, value in slots.items())
    slower.step(inputs(stored), CASES["full"])
    changed = agent.critic.q1.linear2.bias - slower.critic.q1.linear2.bias
    assert 0 < changed.abs() < 1e-4  # one step of the small rate


@pytest.mark.parametrize("lacking", ["critic.q1.linear0.bias", "log_alpha", "_extra_state"])
def test_a_state_with_more_or_less_than_the_agent_has_is_refused(stored, lacking):
    agent = released.agent("sac", stored)
    state = dict(agent.state_dict())
    with pytest.raises(RuntimeError, match="other"):
        agent.load_state_dict(state | {"other.weight": torch.zeros(1)})
    with pytest.raises(KeyError, match="critic, actor, temperature, other"):
        agent.load_state_dict(state | {"_extra_state": state["_extra_state"] | {"other": {}}})
    del state[lacking]
    with pytest.raises(RuntimeError, match=lacking):
        agent.load_state_dict(state)


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


class Timid(SAC):
    """SAC whose actor also pays for the size of its weights."""

    LOSSES = ("bellman", "size")
    computed = True

    def actor_losses(self, inputs):
        terms, metrics = super().actor_losses(inputs)
        if self.computed:
            terms["size"] = parameters_to_vector(self.actor.parameters()).square().sum()
        return terms, metrics


class Idle(SGQN):
    """SGQN that forgets its auxiliary loss."""

    def auxiliary_losses(self, inputs, schedule):
        return {}, {}


def turned(stored, kind, weight):
    """The released code's SAC as another class, with a weight for that class's further loss."""
    agent = released.agent("sac", stored)
    agent.__class__ = kind
    agent.weights[kind.LOSSES[-1]] = weight
    return agent


def test_a_further_loss_of_the_actor_counts_by_its_weight_and_moves_the_actor_alone(stored):
    agent, plain = turned(stored, Timid, 0.25), released.agent("sac", stored)
    gradients = {}

    def seen(optimizer, *_):
        held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        gradients[optimizer] = [parameter.grad.clone() for parameter in held]

    weights = [weight.detach().clone() for weight in agent.actor.parameters()]
    for each in (agent, plain):
        each.optimizers["actor"].register_step_pre_hook(seen)
        each.step(inputs(stored), CASES["full"])
    # d/dw of 0.25 Σw² is w/2, beside what SAC's own losses give.
    pairs = zip(gradients[agent.optimizers["actor"]], gradients[plain.optimizers["actor"]], strict=True)
    for (found, expected), weight in zip(pairs, weights, strict=True):
        torch.testing.assert_close(found, expected + weight / 2)
    for (name, found), expected in zip(agent.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(found, expected) != name.startswith("actor."), name


def test_a_loss_without_a_weight_is_refused_in_the_actor_too(stored):
    agent = turned(stored, Timid, 1.0)
    del agent.weights["size"]
    with pytest.raises(UserError, match="Timid computes the loss 'size', which its LOSSES lacks"):
        agent.step(inputs(stored), CASES["full"])


def test_a_weight_for_what_nothing_computes_is_refused(stored):
    agent = turned(stored, Timid, 0.25)
    agent.computed = False
    with pytest.raises(
        UserError, match=r"Timid: losses.size is 0.25, and no method computes the loss 'size'"
    ):
        agent.step(inputs(stored), CASES["full"])
    agent.weights["size"] = 0.0
    agent.step(inputs(stored), CASES["full"])


def test_a_weight_for_an_auxiliary_loss_that_nothing_computes_is_refused():
    agent = released.agent("sgqn", released.numbers("sgqn"))
    agent.__class__ = Idle
    with pytest.raises(
        UserError, match=r"Idle: losses.self_supervised is 1, and no method computes the loss"
    ):
        agent.update_auxiliary({}, UpdateSchedule(actor=False, targets=False, auxiliary=True))
