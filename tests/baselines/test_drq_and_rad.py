import pytest
import torch

from common.config.loading import load
from common.errors import UserError
from common.rl.batch import UpdateSchedule
from tests import released
from tests.baselines.batches import places, random_batch

CRITIC_ONLY = UpdateSchedule(actor=False, targets=False)


def build(name, *overrides):
    return released.small(name, *overrides)


def test_drq_shifts_obs_and_next_obs_each_by_up_to_four_pixels():
    torch.manual_seed(0)
    batch = random_batch(60, 20)
    inputs, _ = build("drq", "env.image_size=20", "network.strides=[2]").prepare(batch, CRITIC_ONLY)
    shifts = places(inputs["obs"], batch.obs, border=4), places(inputs["next_obs"], batch.next_obs, border=4)
    assert shifts[0] != shifts[1]
    for axis in (0, 1):
        assert {place[axis] for place in shifts[0] + shifts[1]} == set(range(9))


def test_rad_crops_obs_and_next_obs_anywhere_in_the_rendered_frame():
    torch.manual_seed(0)
    batch = random_batch(60, 26)
    sizes = ("env.image_size=20", "env.render_size=26", "network.strides=[2]")
    inputs, _ = build("rad", *sizes).prepare(batch, CRITIC_ONLY)
    assert inputs["obs"].shape == (60, 9, 20, 20)
    crops = places(inputs["obs"], batch.obs), places(inputs["next_obs"], batch.next_obs)
    assert crops[0] != crops[1]
    for axis in (0, 1):
        assert {place[axis] for place in crops[0] + crops[1]} == set(range(7))


@pytest.mark.parametrize("name", ["rad", "soda", "svea_soda"])
def test_the_policy_sees_the_centre_of_the_rendered_frame(name):
    agent = build(name)
    obs = random_batch(3, 100).obs
    centre = obs[:, :, 8:92, 8:92]
    assert torch.equal(agent.policy_input(obs), centre)
    assert torch.equal(agent.act(obs, sample=False), agent.act(centre, sample=False))


def test_a_rendered_size_that_nothing_crops_is_refused():
    with pytest.raises(UserError, match=r"env\.render_size: agent drq does not crop"):
        load("drq", "walker_walk", "smoke", overrides=["env.render_size=100"])
    with pytest.raises(UserError, match=r"env\.render_size: smaller than the 84 pixels"):
        load("rad", "walker_walk", "smoke", overrides=["env.render_size=80"])
    assert load("sac", "walker_walk", "smoke").env.frame_size == 84
    assert load("rad", "walker_walk", "paper").env.frame_size == 100
