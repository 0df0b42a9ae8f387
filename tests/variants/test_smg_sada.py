import pytest
import torch

from tests.baselines.batches import shown_to
from tests.variants.learners import FIRST_STEP, batch, build


def updated(agent, probability):
    """The agent's weights before and after one update in which everything runs."""
    before = {name: value.detach().clone() for name, value in agent.named_parameters()}
    agent.settings = agent.settings.model_copy(update={"attribution_probability": probability})
    torch.manual_seed(FIRST_STEP)
    agent.update(batch(agent, FIRST_STEP), FIRST_STEP)
    return before, dict(agent.named_parameters())


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_one_update_differs_from_smgs_in_actor_and_temperature_alone(probability):
    before, found = updated(build("smg_sada"), probability)
    _, expected = updated(build("smg"), probability)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        same = torch.equal(found[name], value)
        # The temperature's Adam takes a first step of one size whatever its gradient.
        assert same != name.startswith("actor."), name
        assert (
            name == "log_alpha"
            or name.startswith(("actor.", "target"))
            or not torch.equal(value, before[name])
        ), name


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_the_policy_sees_both_views_and_is_valued_at_the_plain_one(probability):
    agent = build("smg_sada", f"smg.attribution_probability={probability}")
    inputs, schedule = agent.prepare(batch(agent, FIRST_STEP), agent.schedule(FIRST_STEP))
    inputs = agent.with_views(inputs, schedule)
    with shown_to(agent.critic.trunk) as shown:
        terms, _ = agent.actor_losses(inputs)
    [views] = shown
    assert torch.equal(views, torch.cat([inputs["obs"].float(), inputs["augmented"].float()]))
    halves = []
    for view, noise in (("obs", "noise_obs"), ("augmented", "noise_augmented")):
        # SAC's own actor loss of one view, its value asked at o.
        with torch.no_grad():
            features = agent.critic.trunk(inputs[view])
            latent = agent.critic.encode(inputs["obs"])
        halves.append(agent.policy_losses(features, latent, inputs[noise])[0])
    for name in ("policy", "temperature"):
        expected = sum(half[name].item() for half in halves) / 2
        assert terms[name].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_it_sees_them_also_where_no_loss_of_smgs_reads_them(probability):
    off = ("losses.q_consistency=0", "losses.foreground_consistency=0", "losses.background=0")
    agent = build("smg_sada", f"smg.attribution_probability={probability}", *off)
    metrics = agent.update(batch(agent, FIRST_STEP), FIRST_STEP)
    assert "loss/policy" in metrics and "loss/background" not in metrics
    inputs, _ = agent.prepare(batch(agent, 1001), agent.schedule(1001))  # the actor rests
    assert not inputs.keys() & {"augmented", "backdrop", "noise_augmented"}
