from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch

from common.errors import UserError
from common.rl.augment import overlay
from common.rl.frames import stacked
from smg import losses
from smg.agent import SMG, Reads, SMGSchedule
from tests import released
from tests.baselines.batches import random_batch

MODEL_TERMS = ("reconstruction", "mask_ratio", "background", "empowerment", "foreground_consistency")
CRITIC_ONLY = SMGSchedule(actor=False, targets=False, auxiliary=False, mask_ratio=True, attribution=False)
FULL = SMGSchedule(actor=True, targets=True, auxiliary=True, mask_ratio=True, attribution=False)
FULL_ATTRIBUTION = SMGSchedule(actor=True, targets=True, auxiliary=True, mask_ratio=True, attribution=True)
CASES = {
    "critic_only_overlay": CRITIC_ONLY,
    "full_overlay": FULL,
    "full_attribution": FULL_ATTRIBUTION,
    "burst_overlay": replace(FULL, mask_ratio=False),
}


@pytest.fixture(scope="module")
def stored():
    return released.numbers("smg")


def build(stored, *overrides):
    return released.agent("smg", stored, "smg.rho=0.06", *overrides)


def inputs(stored):
    names = ("obs", "next_obs", "action", "reward", "not_done", "noise_next", "noise_obs")
    values = {name: released.tensor(stored[f"batch/{name}"]) for name in names}
    backdrop, other = (released.tensor(stored[f"batch/images_{number}"]).float() for number in (1, 2))
    return values | {"backdrop": backdrop, "augmented": overlay(values["obs"], other)}


def views(agent, values, drawn):
    """The inputs as `step` completes them for the drawn τ."""
    composed = agent.compose(values["obs"].float(), values["backdrop"])
    return values | {"composed": composed} | ({"augmented": composed} if drawn == "attribution" else {})


def model_losses(agent, values, plan):
    return agent.auxiliary_losses(values, plan)[0]


def test_mask_and_views_are_those_of_the_released_code(stored):
    agent = build(stored)
    values = views(agent, inputs(stored), "attribution")
    with torch.no_grad():
        foreground = agent.foreground.images(agent.critic.encode(values["obs"]))
        background = agent.background.images(agent.background_encoder(values["obs"]))
    np.testing.assert_allclose(foreground.mask.squeeze(2), stored["mask"], rtol=1e-5, atol=1e-6)
    for name, image in (
        ("foreground", stacked(foreground.image)),
        ("background", stacked(background)),
        ("reconstruction", stacked(losses.reconstruct(foreground.image, foreground.mask, background))),
        ("attribution_view", values["composed"]),
        ("overlay_view", inputs(stored)["augmented"]),
    ):
        np.testing.assert_allclose(image.mean((2, 3)), stored[f"{name}_mean"], rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("drawn", ["overlay", "attribution"])
def test_critic_losses_and_gradients(stored, drawn):
    agent = build(stored)
    terms, _ = agent.critic_losses(views(agent, inputs(stored), drawn))
    for term, name in (("bellman", "bellman"), ("q_consistency", f"q_consistency_{drawn}")):
        np.testing.assert_allclose(terms[term].item(), stored[f"loss/{name}"], rtol=1e-5, err_msg=name)
        released.assert_gradients(agent, terms[term], stored, name)


@pytest.mark.parametrize("drawn", ["overlay", "attribution"])
def test_model_losses(stored, drawn):
    agent = build(stored)
    terms = model_losses(agent, views(agent, inputs(stored), drawn), FULL)
    assert set(terms) == set(MODEL_TERMS)
    for term, loss in terms.items():
        name = f"{term}_{drawn}" if term == "foreground_consistency" else term
        np.testing.assert_allclose(loss.item(), stored[f"loss/{name}"], rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("drawn", ["overlay", "attribution"])
def test_model_gradients(stored, drawn):
    # In float64: one unit of this batch's background decoder lies so near its ReLU's kink that float32
    # rounding alone, by the order of a sum, decides its side, and with it 0.2% of a gradient.
    agent = build(stored)
    agent.double()
    values = {name: value.double() for name, value in inputs(stored).items()}
    terms = model_losses(agent, views(agent, values, drawn), FULL)
    for term, loss in terms.items():
        name = f"{term}_{drawn}" if term == "foreground_consistency" else term
        # The fixtures' own float32 sums of 84,672 signed terms are 4e-4 to 6e-4 off the exact ones.
        tolerance = 6e-4 if term in ("mask_ratio", "foreground_consistency") else 1e-4
        released.assert_gradients(agent, loss, stored, name, tolerance)


def test_actor_loss_and_gradients(stored):
    agent = build(stored)
    terms, _ = agent.actor_losses(inputs(stored))
    np.testing.assert_allclose(terms["policy"].item(), stored["loss/actor"], rtol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_step_moves_every_parameter_as_the_released_code_does(stored, case):
    agent = build(stored)
    before = released.snapshot(agent)
    agent.step(inputs(stored), CASES[case])
    released.assert_step(agent, before, stored, case)


@pytest.mark.parametrize("term", MODEL_TERMS)
def test_a_model_term_without_weight_is_not_computed_and_changes_nothing_else(stored, term):
    agent = build(stored)
    full = model_losses(agent, views(agent, inputs(stored), "overlay"), FULL)
    ablated_agent = build(stored, f"losses.{term}=0")
    plan = SMGSchedule(True, True, auxiliary=True, mask_ratio=term != "mask_ratio", attribution=False)
    ablated = model_losses(ablated_agent, views(ablated_agent, inputs(stored), "overlay"), plan)
    assert set(ablated) == set(full) - {term}
    for name, loss in ablated.items():
        torch.testing.assert_close(loss, full[name], rtol=1e-5, atol=0)
    weighted = agent.weighted(full) - agent.weights[term] * full[term]
    torch.testing.assert_close(ablated_agent.weighted(ablated), weighted, rtol=1e-5, atol=1e-5)


def test_q_consistency_without_weight_leaves_the_bellman_loss(stored):
    full, _ = build(stored).critic_losses(views(build(stored), inputs(stored), "overlay"))
    ablated, _ = build(stored, "losses.q_consistency=0").critic_losses(inputs(stored))
    assert list(ablated) == ["bellman"]
    torch.testing.assert_close(ablated["bellman"], full["bellman"], rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("switched_off", "plan", "drawn"),
    [
        ([], CRITIC_ONLY, {"augmented"}),
        ([], replace(CRITIC_ONLY, attribution=True), {"backdrop"}),
        ([], FULL, {"augmented", "backdrop"}),
        ([], FULL_ATTRIBUTION, {"backdrop"}),
        (["background"], FULL, {"augmented"}),
        (["background"], FULL_ATTRIBUTION, {"backdrop"}),
        (["q_consistency"], CRITIC_ONLY, set()),
        (["q_consistency"], replace(CRITIC_ONLY, attribution=True), set()),
        (["q_consistency"], FULL, {"augmented", "backdrop"}),
        (["q_consistency", "foreground_consistency"], FULL, {"backdrop"}),
        (["q_consistency", "foreground_consistency", "background"], FULL_ATTRIBUTION, set()),
    ],
)
def test_only_images_that_a_loss_reads_are_drawn(switched_off, plan, drawn):
    agent = released.small("smg", *(f"losses.{name}=0" for name in switched_off))
    agent.settings = agent.settings.model_copy(update={"attribution_probability": float(plan.attribution)})
    inputs, plan = agent.prepare(random_batch(2, 84), plan)
    assert inputs.keys() & {"augmented", "backdrop"} == drawn
    agent.step(inputs, plan)


def test_plan_follows_the_released_schedule():
    agent = build(released.numbers("smg"), "smg.mask_ratio_from_step=1001")
    burst, odd, even = agent.schedule(1000), agent.schedule(1001), agent.schedule(1002)
    assert burst.actor and burst.targets and burst.auxiliary and not burst.mask_ratio
    assert not (odd.actor or odd.targets or odd.auxiliary) and even.auxiliary and even.mask_ratio


def test_one_batch_in_four_is_attributed():
    agent = build(released.numbers("smg"), "smg.attribution_probability=0.25")
    batch = random_batch(1, 84)
    schedule = agent.schedule(1001)
    assert schedule == agent.schedule(1001)  # nothing is drawn yet
    drawn = sum(agent.prepare(batch, schedule)[1].attribution for _ in range(4000))
    # Binomial(4000, 1/4): mean 1000, standard deviation 27.
    assert abs(drawn - 1000) < 4 * 27


def test_encoders_start_as_copies():
    agent = build(released.numbers("smg"))
    fresh = type(agent)(agent.config, 3, agent.images)
    for one, two in zip(
        fresh.critic.trunk.parameters(), fresh.background_encoder.trunk.parameters(), strict=True
    ):
        assert torch.equal(one, two) and one is not two


class Calm(SMG):
    """SMG with one more loss, as docs/new_agent.md adds it."""

    READS: ClassVar = SMG.READS | {"calm": Reads(foreground=("obs", "next_obs"))}
    LOSSES = (*SMG.LOSSES, "calm")

    def calm_loss(self, decoded, inputs):
        return decoded.foreground["next_obs"].mask.mean()


def test_a_row_and_a_method_make_a_loss_of_the_models():
    assert (*MODEL_TERMS, "calm") == Calm.AUXILIARY
    assert SMG.AUXILIARY == MODEL_TERMS


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"LOSSES": (*SMG.LOSSES, "new")}, "Wrong: READS has no row for the loss 'new'"),
        (
            {"LOSSES": (*SMG.LOSSES, "new"), "READS": SMG.READS | {"new": Reads(latent=("obs",))}},
            "Wrong: no method new_loss computes the loss 'new'",
        ),
    ],
)
def test_a_loss_that_nothing_would_compute_is_refused_where_its_class_is_defined(body, message):
    with pytest.raises(UserError, match=message):
        type("Wrong", (SMG,), body)


class Dimmed(SMG):
    """SMG with a loss that reads a view of its own, made of one that the mask composes."""

    READS: ClassVar = SMG.READS | {"dimmed": Reads(foreground=("half",))}
    LOSSES = (*SMG.LOSSES, "dimmed")
    made = True

    def with_views(self, inputs, schedule):
        inputs = super().with_views(inputs, schedule)
        return inputs | {"half": inputs["composed"] / 2} if self.made else inputs

    def dimmed_loss(self, decoded, inputs):
        return decoded.foreground["half"].mask.mean()


def test_a_view_is_one_of_smgs_or_ones_own_and_no_other(stored):
    agent = build(stored)
    agent.__class__ = Dimmed
    agent.weights["dimmed"] = 1.0
    inputs, schedule = agent.prepare(random_batch(4, 84), FULL)
    composed = agent.compose(inputs["obs"], inputs["backdrop"])
    expected = agent.mask(composed / 2).mean()
    terms = agent.encoder_losses(inputs, schedule)
    assert terms["dimmed"].item() == pytest.approx(expected.item())
    agent.made = False
    with pytest.raises(
        UserError, match="Dimmed: READS names the view 'half', which is none of obs, next_obs"
    ):
        agent.step(inputs, schedule)


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"new": torch.tensor(1.0)}, "SMG computes the loss 'new', which its LOSSES lacks"),
        ({"bellman": torch.ones(2)}, r"the loss 'bellman' must be .* it is of shape \(2,\)"),
        ({"bellman": 0.5}, "the loss 'bellman' must be .* it is 0.5"),
    ],
)
def test_terms_that_cannot_be_weighed_are_named(stored, terms, message):
    with pytest.raises(UserError, match=message):
        build(stored).weighted(terms)
