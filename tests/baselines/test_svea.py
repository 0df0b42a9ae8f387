import numpy as np
import pytest
import torch

from common.rl.augment import overlay, random_convolution
from common.rl.batch import UpdateSchedule
from tests import released
from tests.baselines.batches import places, random_batch, shown_to

FULL = UpdateSchedule(actor=True, targets=True)


@pytest.fixture(scope="module")
def stored():
    return released.numbers("svea")


def inputs(stored, case="overlay"):
    names = ("obs", "next_obs", "action", "reward", "not_done", "noise_next", "noise_obs")
    values = {name: released.tensor(stored[f"batch/{name}"]) for name in names}
    if case == "overlay":
        augmented = overlay(values["obs"], released.tensor(stored["batch/images_1"]))
    else:
        augmented = random_convolution(values["obs"], released.tensor(stored["conv_weights"]))
    return values | {"augmented": augmented}


@pytest.mark.parametrize("case", ["convolution", "overlay"])
def test_step_moves_every_parameter_as_the_released_code_does(stored, case):
    agent = released.agent("svea", stored)
    before = released.snapshot(agent)
    agent.step(inputs(stored, case), FULL)
    released.assert_step(agent, before, stored, f"full_{case}")


def test_the_target_is_sacs_and_serves_both_views(stored):
    agent, sac = released.agent("svea", stored), released.agent("sac", stored)
    values = inputs(stored)
    target = sac.target_q(values)
    terms, _ = agent.critic_losses(values)
    for term, view in (("bellman", "obs"), ("augmented_bellman", "augmented")):
        q = sac.critic(values[view], values["action"])
        expected = sum(np.mean((head.detach().numpy() - target.numpy()) ** 2) for head in q)
        np.testing.assert_allclose(terms[term].item(), expected, rtol=1e-5)


def test_only_the_critics_loss_sees_the_augmentation(stored):
    values = inputs(stored)
    agent = released.agent("svea", stored)
    with shown_to(agent.critic.trunk) as shown, shown_to(agent.target.trunk) as shown_to_target:
        agent.step(values, FULL)
    obs, next_obs = values["obs"].float(), values["next_obs"].float()
    assert [len(views) for views in shown] == [4, 8, 4]
    for views, expected in zip(shown, (next_obs, torch.cat([obs, values["augmented"]]), obs), strict=True):
        assert torch.equal(views, expected)
    [views] = shown_to_target
    assert torch.equal(views, next_obs)


def test_next_obs_is_shifted_but_not_augmented():
    torch.manual_seed(0)
    agent = released.small("svea")
    images = random_batch(6, 84).obs[:, :3]
    agent.augmentation.transforms[0].images = lambda count: images[:count]
    batch = random_batch(6, 84)
    values, _ = agent.prepare(batch, FULL)
    shifts = places(values["obs"], batch.obs, border=4)
    next_shifts = places(values["next_obs"], batch.next_obs, border=4)
    assert shifts != next_shifts and (4, 4) not in next_shifts
    expected = 0.5 * values["obs"].float() + 0.5 * images.float().repeat(1, 3, 1, 1)
    torch.testing.assert_close(values["augmented"], expected)


def test_without_weight_nothing_is_augmented_and_half_of_sac_remains(stored):
    agent = released.agent("svea", stored, "losses.augmented_bellman=0")
    assert "augmented" not in agent.prepare(random_batch(4, 84), FULL)[0]
    values = inputs(stored)
    terms, _ = agent.critic_losses(values)
    assert list(terms) == ["bellman"]
    full, _ = released.agent("svea", stored).critic_losses(values)
    torch.testing.assert_close(terms["bellman"], full["bellman"])
    assert agent.weighted(terms).item() == pytest.approx(0.5 * full["bellman"].item())


def test_svea_and_soda_together_make_both_updates():
    torch.manual_seed(0)
    agent = released.small("svea_soda", "soda.batch=5")
    plan = agent.schedule(1000)
    assert plan.auxiliary and agent.batch_size(1000) == 9
    batch = random_batch(9, 100)
    values, _ = agent.prepare(batch, plan)
    assert len(places(values["obs"], batch.obs[:4])) == 4
    torch.testing.assert_close(values["augmented"], 0.5 * values["obs"].float())  # the images are black
    metrics = agent.step(values, plan)
    terms = ("bellman", "augmented_bellman", "latent_consistency", "policy", "temperature")
    assert {name for name in metrics if name.startswith("loss/")} == {f"loss/{term}" for term in terms}
