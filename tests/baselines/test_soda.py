import numpy as np
import pytest
import torch
from torch import nn

from baselines.soda import NormalisedMLP, latent_consistency
from common.config.loading import load
from common.rl.augment import crop, overlay
from common.rl.batch import UpdateSchedule
from tests import released
from tests.baselines.batches import places, random_batch

# Batch normalisation takes any constant away again, so the gradient of what only adds one is rounding noise.
# (The units that conv9's bias adds to are on, or off, for the whole batch.)
ADDED = ("projection.linear0.bias", "projection.linear1.bias", "trunk.conv9.bias", "trunk.conv10.bias")
WITHOUT_GRADIENT = (
    *("trunk.conv9.bias", "trunk.conv10.bias", "soda.predictor.linear0.bias"),
    *(f"{copy}.{name}" for copy in ("soda", "soda_target") for name in ADDED),
)
AUXILIARY = UpdateSchedule(actor=False, targets=False, auxiliary=True)


@pytest.fixture(scope="module")
def stored():
    return released.numbers("soda")


def inputs(stored):
    obs, images = (released.tensor(stored[name]) for name in ("obs100", "images"))
    plain, augmented = (crop(obs, top, left, 84) for top, left in released.tensor(stored["crops"]))
    return {"plain": plain, "softly_augmented": overlay(augmented, images)}


def slow_copies(agent):
    """Each slow copy's parameter and that which it follows."""
    for copy, source in (
        (agent.target_trunk, agent.critic.trunk),
        (agent.target_projection, agent.projection),
    ):
        yield from zip(copy.parameters(), source.parameters(), strict=True)


def test_auxiliary_loss_is_that_of_the_released_code(stored):
    terms, _ = released.agent("soda", stored).auxiliary_losses(inputs(stored), AUXILIARY)
    np.testing.assert_allclose(terms["latent_consistency"].item(), stored["loss/soda"], rtol=1e-5)


def test_auxiliary_step_moves_every_parameter_as_the_released_code_does(stored):
    agent = released.agent("soda", stored)
    before = released.snapshot(agent)
    agent.update_auxiliary(inputs(stored), AUXILIARY)
    released.assert_step(agent, before, stored, "auxiliary", skip=WITHOUT_GRADIENT)


def test_slow_copies_follow_at_their_rate(stored):
    agent = released.agent("soda", stored)
    before = [slow.clone() for slow, _ in slow_copies(agent)]
    agent.update_slow_copies()
    for (slow, fast), old in zip(slow_copies(agent), before, strict=True):
        torch.testing.assert_close(slow, 0.995 * old + 0.005 * fast)


def test_slow_copies_start_as_copies_and_receive_no_gradient():
    for slow, fast in slow_copies(released.small("soda")):
        assert torch.equal(slow, fast) and not slow.requires_grad


def test_the_published_settings():
    config = load("soda", "walker_walk", "paper")
    assert config.settings.model_dump() == {"batch": 256, "tau": 0.005, "auxiliary_every": 2}
    assert (config.optim.auxiliary.lr, config.optim.auxiliary.beta1, config.shift) == (3e-4, 0.9, 0)


def test_the_auxiliary_update_has_a_batch_and_crops_of_its_own():
    torch.manual_seed(0)
    agent = released.small("soda", "soda.batch=5")
    assert agent.schedule(1000).auxiliary and not agent.schedule(1001).auxiliary
    assert (agent.batch_size(1000), agent.batch_size(1001)) == (4 + 5, 4)

    images = random_batch(5, 84).obs[:, :3]
    agent.augmentation.transforms[0].images = lambda count: images[:count]
    batch = random_batch(9, 100)
    values, _ = agent.prepare(batch, AUXILIARY)
    assert len(places(values["obs"], batch.obs[:4])) == len(values["action"]) == 4
    target_places = places(values["plain"], batch.obs[4:])
    # Half of every augmented pixel is the image's.
    online = 2 * values["softly_augmented"] - images.float().repeat(1, 3, 1, 1)
    assert target_places != places(online.round().to(torch.uint8), batch.obs[4:])


def test_without_weight_there_is_no_auxiliary_update_and_no_second_batch():
    agent = released.small("soda", "losses.latent_consistency=0")
    assert not agent.schedule(1000).auxiliary
    assert agent.batch_size(1000) == 4


def test_the_auxiliary_update_leaves_the_critics_targets(stored):
    agent = released.agent("soda", stored)
    before = [parameter.clone() for parameter in agent.target.parameters()]
    agent.update_auxiliary(inputs(stored), AUXILIARY)
    assert all(map(torch.equal, before, agent.target.parameters()))


def test_latent_consistency_by_hand():
    predicted = torch.tensor([[3.0, 4.0], [0.0, 2.0]])  # normalised: (0.6, 0.8), (0, 1)
    target = torch.tensor([[5.0, 0.0], [0.0, 7.0]])  # normalised: (1, 0), (0, 1)
    expected = ((0.6 - 1) ** 2 + 0.8**2) / 4
    assert latent_consistency(predicted, target).item() == pytest.approx(expected)


def test_networks_normalise_by_the_batch_alone_even_when_evaluated():
    network = NormalisedMLP(6, 3)
    reference = nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 3)).train()
    with torch.no_grad():
        for theirs, ours in zip(reference.parameters(), network.parameters(), strict=True):
            theirs.copy_(ours)
    batch = torch.randn(7, 6, generator=torch.Generator().manual_seed(0))
    for mode in (True, False):
        torch.testing.assert_close(network.train(mode)(batch), reference(batch))
