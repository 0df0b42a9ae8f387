from typing import Any

import numpy as np
import pytest
import torch

from baselines.sada import SADA
from common.config.loading import load
from common.rl.batch import UpdateSchedule
from common.rl.networks import Trunk
from tests import released
from tests.baselines.batches import random_batch, shown_to

CRITIC_ONLY = UpdateSchedule(actor=False, targets=False)
FULL = UpdateSchedule(actor=True, targets=True)
RELEASED = ["configs/agents/sada_released.yaml"]


@pytest.fixture
def agent():
    torch.manual_seed(0)
    return released.small("sada")


@pytest.fixture
def inputs(agent):
    return agent.prepare(random_batch(4, 84), FULL)[0]


def built(config) -> Any:
    return SADA(config, 3, lambda count: torch.zeros(count, 3, 84, 84))


def numpy(values):
    return [value.detach().double().numpy() for value in values]


def test_the_critics_loss_is_the_mean_over_heads_of_half_of_each_views_error(agent, inputs):
    target = agent.target_q(inputs).double().numpy()
    clean, strong = (numpy(agent.critic(inputs[view], inputs["action"])) for view in ("obs", "augmented"))
    of_heads = [
        0.5 * (np.mean((clean[head] - target) ** 2) + np.mean((strong[head] - target) ** 2))
        for head in (0, 1)
    ]
    terms, _ = agent.critic_losses(inputs)
    assert agent.weighted(terms).item() == pytest.approx(np.mean(of_heads), rel=1e-5)


def test_the_target_sees_neither_augmentation_of_the_next_observation(agent, inputs):
    with shown_to(agent.target.trunk) as shown:
        agent.step(inputs, FULL)
    [views] = shown
    assert torch.equal(views, inputs["next_obs"].float())


def test_the_policy_learns_from_both_views_and_is_valued_at_the_plain_one(agent, inputs):
    terms, metrics = agent.actor_losses(inputs)
    alpha, policy, temperature, entropy = 0.1, [], [], []
    with torch.no_grad():
        for view, noise in (("obs", "noise_obs"), ("augmented", "noise_augmented")):
            mean, log_std = agent.actor(agent.critic.trunk(inputs[view]))
            drawn = mean + log_std.exp() * inputs[noise]
            action = torch.tanh(drawn)
            gaussian = torch.distributions.Normal(mean, log_std.exp()).log_prob(drawn)
            log_pi = (gaussian - (1 - action**2 + 1e-6).log()).sum(1)
            q = torch.cat(agent.critic(inputs["obs"], action), 1).min(1).values
            policy += (alpha * log_pi - q).tolist()
            temperature += (alpha * (-log_pi + agent.action_size)).tolist()
            entropy += (-log_pi).tolist()
    assert len(policy) == 8
    assert terms["policy"].item() == pytest.approx(np.mean(policy), rel=1e-4)
    assert terms["temperature"].item() == pytest.approx(np.mean(temperature), rel=1e-4)
    assert metrics["policy/entropy"].item() == pytest.approx(np.mean(entropy), rel=1e-4)


def test_the_augmented_half_has_noise_of_its_own(inputs):
    assert inputs["noise_augmented"].shape == inputs["noise_obs"].shape
    assert not torch.equal(inputs["noise_augmented"], inputs["noise_obs"])


def test_without_the_critics_augmented_loss_the_policy_still_sees_what_it_learns_from():
    agent = released.small("sada", "losses.augmented_bellman=0")
    assert "augmented" not in agent.prepare(random_batch(4, 84), CRITIC_ONLY)[0]
    inputs, schedule = agent.prepare(random_batch(4, 84), FULL)
    metrics = agent.step(inputs, schedule)
    assert "loss/augmented_bellman" not in metrics and "loss/policy" in metrics


# The settings of its own


def test_the_released_settings():
    config = load("sada", "walker_walk", "paper", files=RELEASED)
    assert (config.train.batch, config.train.random_steps, config.train.update_every) == (256, 2000, 2)
    assert (config.network.strides, config.network.latent) == ((2, 1, 1, 1), 50)
    rates = {getattr(config.optim, name).lr for name in ("actor", "critic", "temperature")}
    assert rates == {5e-4}


def test_the_released_encoder_centres_pixels_and_ends_in_a_relu():
    config = load("sada", "walker_walk", "smoke", files=RELEASED, overrides=["device=cpu", *released.SIZES])
    agent = built(config)
    obs = random_batch(2, 84).obs
    convolutions = list(agent.critic.trunk.convolutions)
    expected = obs.double() / 255 - 0.5
    for convolution in convolutions:
        weight, bias = convolution.weight.double(), convolution.bias.double()
        stride = convolution.stride
        expected = torch.relu(torch.nn.functional.conv2d(expected, weight, bias, stride))
    found = agent.critic.trunk(obs)
    np.testing.assert_allclose(found.detach(), expected.flatten(1).detach(), atol=1e-5)
    assert (found == 0).any() and type(released.small("sada").critic.trunk) is Trunk


def test_without_a_target_encoder_the_target_is_encoded_by_the_critic():
    agent = released.small("sada", "sac.encoder_tau=1")
    for step in (1000, 1002):
        agent.update(random_batch(4, 84), step)
    for part in ("trunk", "projection"):
        pairs = zip(
            getattr(agent.critic, part).parameters(), getattr(agent.target, part).parameters(), strict=True
        )
        assert all(torch.equal(own, followed) for own, followed in pairs)
    heads = zip(agent.critic.q1.parameters(), agent.target.q1.parameters(), strict=True)
    assert not all(torch.equal(own, followed) for own, followed in heads)


def test_as_released_the_targets_projection_follows_slowly_with_its_heads():
    config = load("sada", "walker_walk", "smoke", files=RELEASED, overrides=["device=cpu", *released.SIZES])
    agent = built(config)
    before = {name: value.clone() for name, value in agent.target.state_dict().items()}
    agent.update(random_batch(config.train.batch, 84), 1000)
    for name, own in agent.critic.state_dict().items():
        rate = 1.0 if name.startswith("trunk.") else 0.01
        expected = before[name].double() + rate * (own.double() - before[name].double())
        torch.testing.assert_close(agent.target.state_dict()[name].double(), expected, atol=1e-8, rtol=1e-6)
        assert not torch.equal(own, before[name]) or "bias" in name, name
