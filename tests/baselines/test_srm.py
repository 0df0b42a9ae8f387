import numpy as np
import pytest
import torch

from baselines import srm
from common.rl.augment import spectrum_mask
from common.rl.batch import UpdateSchedule
from tests import released
from tests.baselines.batches import places, random_batch, shown_to

FULL = UpdateSchedule(actor=True, targets=True)


@pytest.fixture
def bands(monkeypatch):
    """The bands that are erased, in order; the batch stays as it is."""
    drawn = []

    def record(obs, low, high):
        drawn.append((low, high))
        return obs

    monkeypatch.setattr(srm, "spectrum_mask", record)
    return drawn


def test_half_of_the_batches_lose_a_band_of_rounded_limits(bands):
    torch.manual_seed(0)
    agent = released.small("srm")
    for _ in range(2000):
        agent.erase(torch.zeros(1, 9, 2, 2))
    assert abs(len(bands) - 1000) < 4 * np.sqrt(2000 / 4)
    lows = np.array([low for low, _ in bands])
    widths = np.array([high - low for low, high in bands])
    # Rounding a uniform number gives the two ends half of what the others get.
    hundredths = {round(100 * low) for low in lows}
    assert hundredths == set(range(51)) and {round(100 * width) for width in widths} == set(range(6))
    np.testing.assert_allclose(100 * lows, np.round(100 * lows), atol=1e-9)
    np.testing.assert_allclose(100 * widths, np.round(100 * widths), atol=1e-9)
    counts = np.bincount(np.round(100 * widths).astype(int), minlength=6) / len(widths)
    np.testing.assert_allclose(counts, [0.1, 0.2, 0.2, 0.2, 0.2, 0.1], atol=0.05)


@pytest.mark.parametrize(("probability", "count"), [(0, 0), (1, 20)])
def test_the_probability_is_configurable(bands, probability, count):
    agent = released.small("srm", f"srm.probability={probability}")
    for _ in range(20):
        agent.erase(torch.zeros(1, 9, 2, 2))
    assert len(bands) == count


def test_critic_and_actor_see_the_erased_obs_and_targets_the_plain_next_obs(monkeypatch):
    torch.manual_seed(0)
    agent = released.small("srm", "srm.probability=1")
    before = []

    def erase(obs, low, high):
        before.append(obs)
        return spectrum_mask(obs, 0.1, 0.2)

    monkeypatch.setattr(srm, "spectrum_mask", erase)
    batch = random_batch(4, 84)
    values, _ = agent.prepare(batch, FULL)
    assert len(places(before[0].to(torch.uint8), batch.obs, border=4)) == 4  # shifted first
    assert len(places(values["next_obs"], batch.next_obs, border=4)) == 4
    assert torch.equal(values["obs"], spectrum_mask(before[0], 0.1, 0.2))
    with shown_to(agent.critic.trunk) as shown:
        agent.step(values, FULL)
    for views, expected in zip(shown, ("next_obs", "obs", "obs"), strict=True):
        assert torch.equal(views, values[expected].float())


def test_a_batch_that_keeps_its_bands_has_the_same_type():
    batch = random_batch(4, 84)
    for probability in (0, 1):
        agent = released.small("srm", f"srm.probability={probability}")
        assert agent.prepare(batch, FULL)[0]["obs"].dtype == torch.float32
