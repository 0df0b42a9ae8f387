import numpy as np
import pytest
import torch

from common.rl import losses as sac_losses
from common.rl.attribution import frame_attribution, guided_gradient, saliency_mask
from common.rl.batch import UpdateSchedule
from sgqn import losses
from tests import released

CASES = {
    "critic_only": UpdateSchedule(actor=False, targets=False, auxiliary=False),
    "full": UpdateSchedule(actor=True, targets=True, auxiliary=True),
}


@pytest.fixture(scope="module")
def stored():
    return released.numbers("sgqn")


def build(stored, *overrides):
    return released.agent("sgqn", stored, "sgqn.fill=37", "sgqn.quantile=0.95", *overrides)


def inputs(stored, fill=37.0):
    names = ("obs", "next_obs", "action", "reward", "not_done", "noise_next", "noise_obs")
    values = {name: released.tensor(stored[f"batch/{name}"]) for name in names}
    images = released.tensor(stored["batch/images_1"]).float().repeat(1, 3, 1, 1)
    return values | {"fill": torch.tensor(fill), "augmented": 0.5 * values["obs"].float() + 0.5 * images}


def test_attribution_and_masks_are_those_of_the_released_code(stored):
    agent = build(stored)
    values = inputs(stored)
    attribution = frame_attribution(guided_gradient(agent.critic, values["obs"], values["action"]))
    np.testing.assert_allclose(attribution, stored["attribution"], rtol=1e-4, atol=1e-9)
    for quantile in (0.95, 0.98):
        mask = saliency_mask(attribution, quantile)
        expected = np.unpackbits(stored[f"mask_{quantile}"])[: mask.numel()].reshape(mask.shape)
        np.testing.assert_array_equal(mask, expected.astype(bool))


def test_target_is_that_of_the_released_code(stored):
    np.testing.assert_allclose(build(stored).target_q(inputs(stored)), stored["target_q"], rtol=1e-5)


@pytest.mark.parametrize("fill", [37, 0])
def test_critic_losses_and_gradients(stored, fill):
    agent = build(stored)
    terms, _ = agent.critic_losses(inputs(stored, float(fill)))
    name = f"consistency_fill_{fill}"
    np.testing.assert_allclose(terms["consistency"].item(), stored[f"loss/{name}"], rtol=1e-5)
    np.testing.assert_allclose(terms["bellman"].item(), stored["loss/bellman"], rtol=1e-5)
    released.assert_gradients(agent, terms["consistency"], stored, name)
    released.assert_gradients(agent, terms["bellman"], stored, "bellman")


def test_self_supervised_loss_and_gradients(stored):
    agent = build(stored)
    values = inputs(stored)
    mask = agent.saliency(values["obs"], values["action"])
    loss = losses.self_supervised(agent.predict_saliency(values["augmented"], values["action"]), mask)
    np.testing.assert_allclose(loss.item(), stored["loss/self_supervised"], rtol=1e-5)
    released.assert_gradients(agent, loss, stored, "self_supervised")


@pytest.mark.parametrize("case", CASES)
def test_step_moves_every_parameter_as_the_released_code_does(stored, case):
    agent = build(stored)
    before = released.snapshot(agent)
    agent.step(inputs(stored), CASES[case])
    released.assert_step(agent, before, stored, case)


def test_a_term_without_weight_is_not_computed_and_changes_nothing_else(stored):
    full, _ = build(stored).critic_losses(inputs(stored))
    ablated, _ = build(stored, "losses.consistency=0").critic_losses(inputs(stored))
    assert list(ablated) == ["bellman"]
    torch.testing.assert_close(ablated["bellman"], full["bellman"], rtol=1e-6, atol=0)
    agent = build(stored, "losses.self_supervised=0")
    assert not agent.schedule(1000).auxiliary
    assert build(stored).schedule(1000).auxiliary and not build(stored).schedule(1001).auxiliary


def test_quantile_mask_is_numpys_quantile():
    attribution = torch.rand(2, 3, 20, 21, generator=torch.Generator().manual_seed(0))
    for quantile in (0.5, 0.9, 0.95, 0.98):
        threshold = np.quantile(attribution.flatten(2).numpy(), quantile, axis=2)
        expected = attribution.numpy() >= threshold[..., None, None]
        np.testing.assert_array_equal(saliency_mask(attribution, quantile), expected)


def test_random_fill_lies_between_the_batchs_extremes():
    stored = released.numbers("sgqn")
    agent = build(stored, "sgqn.fill=random")
    obs = torch.full((2, 9, 84, 84), 100, dtype=torch.uint8)
    obs[0, 0, 0, 0], obs[1, 2, 3, 4] = 30, 90
    torch.manual_seed(0)
    fills = torch.stack([agent.fill(obs) for _ in range(200)])
    assert 30 <= fills.min() < 40 and 90 < fills.max() <= 100


def test_bellman_by_hand():
    q = (torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [2.0]]))
    assert sac_losses.bellman(q, torch.tensor([[2.0], [2.0]])).item() == (1 + 1) / 2 + (4 + 0) / 2
