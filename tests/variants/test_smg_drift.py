import numpy as np
import pytest
import torch

from common.rl.frames import apart
from tests.variants.learners import BATCH, SIZE, assert_equal, batch, build, trained
from variants.smg_drift import drifting


def shifted(image, down, right):
    """An image (3, H, H) seen further down and to the right, its edge pixels repeated."""
    rows, columns = (np.clip(np.arange(image.shape[-1]) + by, 0, image.shape[-1] - 1) for by in (down, right))
    return image[:, rows][:, :, columns]


def test_each_frame_lies_one_velocity_further_and_the_middle_one_is_the_image():
    images = torch.rand(3, 3, 9, 9)
    velocity = torch.tensor([[0, 0], [2, -1], [-3, 3]])
    stacks = apart(drifting(images, velocity, frames=3))
    for sample, (down, right) in enumerate(velocity.tolist()):
        for frame, factor in enumerate((-1, 0, 1)):
            expected = shifted(images[sample].numpy(), factor * down, factor * right)
            assert np.array_equal(stacks[sample, frame].numpy(), expected)


def test_velocities_are_uniform_and_reach_both_ends():
    agent = build("smg_drift", "smg.drift=2")
    column = torch.arange(SIZE).repeat(3, SIZE, 1)
    ramp = torch.stack([column, column.mT])  # two images, whose pixels say where they are from
    agent.images = lambda count: ramp.repeat_interleave(count // 2, 0).to(torch.uint8)
    torch.manual_seed(0)
    stacks = apart(agent.backdrops(4000)).int()
    right = (stacks[:2000, 2] - stacks[:2000, 1])[:, 0, SIZE // 2, SIZE // 2]
    down = (stacks[2000:, 2] - stacks[2000:, 1])[:, 0, SIZE // 2, SIZE // 2]
    for moved in (right, down):
        counts = torch.bincount(moved + 2, minlength=5).double()
        assert len(counts) == 5
        assert ((counts - 400) ** 2 / 400).sum() < 18.5  # 99.9% quantile for 4 degrees of freedom


def test_overlay_attribution_view_and_background_target_see_one_drift_each(monkeypatch):
    agent = build("smg_drift", "smg.attribution_probability=0")
    drawn = []
    original = agent.backdrops
    monkeypatch.setattr(agent, "backdrops", lambda count: drawn.append(original(count)) or drawn[-1])
    agent.augmentation = agent.build_augmentation()
    inputs, schedule = agent.prepare(batch(agent, 1002), agent.schedule(1002))
    backdrop, overlaid = (stack.float() for stack in drawn)
    assert backdrop.shape == (BATCH, 9, SIZE, SIZE) and not torch.equal(backdrop, overlaid)
    assert not torch.equal(backdrop[:, :3], backdrop[:, 3:6])
    assert torch.equal(inputs["backdrop"], backdrop)
    torch.testing.assert_close(inputs["augmented"], 0.5 * inputs["obs"].float() + 0.5 * overlaid)
    inputs = agent.with_views(inputs, schedule)
    with torch.no_grad():
        mask = agent.foreground.images(agent.critic.encode(inputs["obs"])).mask.repeat(1, 1, 3, 1, 1)
        whole = mask.flatten(1, 2)
        expected = inputs["obs"].float() * whole + backdrop * (1 - whole)
        torch.testing.assert_close(inputs["composed"], expected, rtol=1e-4, atol=1e-2)
        painted = agent.background.images(agent.background_encoder(inputs["composed"])).flatten(1, 2)
    terms, _ = agent.auxiliary_losses(inputs, schedule)
    assert terms["background"].item() == pytest.approx((painted - backdrop).abs().mean().item(), rel=1e-4)


@pytest.mark.parametrize("augmentation", ["overlay", "{name: overlay, p: 0.5}"])
def test_an_overlay_that_is_named_drifts_too(augmentation):
    agent = build("smg_drift", f"augmentation={augmentation}")
    obs = batch(agent, 0).obs
    torch.manual_seed(0)
    draws = agent.augmentation.draw(BATCH, SIZE, SIZE, obs.device)
    augmented, backdrops = agent.augmentation(obs, draws), draws["0.backdrops"].float()
    assert not torch.equal(backdrops[:, :3], backdrops[:, 3:6])
    applied = draws["0.batch_prob"] > 0.5
    expected = obs.float()
    expected[applied] = 0.5 * expected[applied] + 0.5 * backdrops[applied]
    assert applied.all() == (augmentation == "overlay") and applied.any()
    torch.testing.assert_close(augmented, expected, rtol=1e-4, atol=1e-3)


def test_without_drift_it_is_smg_to_the_bit():
    assert_equal(trained(build("smg_drift", "smg.drift=0")), trained(build("smg")))


def test_with_drift_it_is_not():
    drifting, smg = trained(build("smg_drift")), trained(build("smg"))
    assert not torch.equal(drifting["critic.q1.linear0.weight"], smg["critic.q1.linear0.weight"])
