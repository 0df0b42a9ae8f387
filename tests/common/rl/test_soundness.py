"""An agent that would learn less than its author meant is refused, with the remedy."""

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from common.errors import UserError
from common.rl.networks import MLP
from common.rl.optim import polyak_update
from common.rl.sac import SAC
from common.run.build import build_agent, build_images
from common.run.trainer import Trainer
from tests import runs
from tests.baselines.batches import random_batch
from tests.common.rl.test_diagnosis import build as built

SMALL = ("env.image_size=24", "network.strides=[2]")


class Head(SAC):
    """SAC with a network under an optimiser of its own, and a slow copy of it, both of which learn."""

    head: MLP
    target_head: MLP

    def build(self) -> None:
        super().build()
        self.head = MLP(self.config.network.latent, 8, 1)
        self.target_head = copy.deepcopy(self.head).requires_grad_(False)

    def optimized(self) -> dict[str, Any]:
        return super().optimized() | {"auxiliary": self.head.parameters()}

    def critic_losses(self, inputs: Any) -> Any:
        terms, metrics = super().critic_losses(inputs)
        terms["bellman"] = terms["bellman"] + self.head(self.critic.encode(inputs["obs"])).square().mean()
        return terms, metrics

    def update_critic(self, inputs: Any) -> Any:
        terms, metrics = self.critic_losses(inputs)
        self.minimise(self.weighted(terms), "critic", "auxiliary")
        return metrics | {"loss/bellman": terms["bellman"].detach()}

    def update_targets(self) -> None:
        super().update_targets()
        polyak_update(self.target_head, self.head, 0.05)


class Forgotten(Head):
    """Nothing steps the head's optimiser."""

    def update_critic(self, inputs: Any) -> Any:
        return SAC.update_critic(self, inputs)


class Standing(Head):
    """Nothing moves the slow copy."""

    def update_targets(self) -> None:
        SAC.update_targets(self)


def make(kind: type[SAC], tmp_path: Any, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> SAC:
    monkeypatch.setattr("common.run.build.agent_class", lambda _: kind)
    config = runs.smoke(tmp_path, "sac", *SMALL, *overrides)
    return build_agent(config, 3, build_images(config))


def test_what_learns_is_left_to_learn(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = make(Head, tmp_path, monkeypatch)
    before = {name: value.clone() for name, value in agent.state_dict().items() if "head" in name}
    for step in range(3):
        agent.update(random_batch(4, 24), step)
    assert all(not torch.equal(value, agent.state_dict()[name]) for name, value in before.items())


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Forgotten, "Forgotten: no part of an update steps the optimiser 'auxiliary'"),
        (Standing, "Standing: an update leaves 'target_head' as it was: let update_targets move it"),
    ],
)
def test_what_stands_still_is_named_at_the_first_whole_update(
    kind: type[SAC], message: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = make(kind, tmp_path, monkeypatch)
    agent.update(random_batch(4, 24), step=1)  # without actor and targets
    with pytest.raises(UserError, match=message):
        agent.update(random_batch(4, 24), step=2)


@pytest.mark.parametrize("name", ["sac", "drq", "soda", "svea", "srm", "sada", "sgqn", "smg", "svea_soda"])
def test_agents_are_seen_to_be_whole_and_once(name: str) -> None:
    agent, _, _ = built(name)
    batch = random_batch(agent.batch_size(0), agent.config.env.frame_size)
    agent.update(batch, step=1)
    assert not agent.proved
    agent.update(batch, step=0 if name != "smg" else 40)
    assert agent.proved


def test_an_ablation_may_leave_parts_as_they_are() -> None:
    agent, _, _ = built("sgqn", "losses.self_supervised=0")
    batch = random_batch(agent.batch_size(0), agent.config.env.frame_size)
    for step in range(3):
        agent.update(batch, step)
    assert not agent.proved


def test_a_term_of_weight_0_must_not_be_computed(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Eager(SAC):
        LOSSES = ("bellman", "extra")

        def critic_losses(self, inputs: Any) -> Any:
            terms, metrics = super().critic_losses(inputs)
            return terms | {"extra": terms["bellman"] * 2}, metrics

    monkeypatch.setattr("common.run.build.agent_class", lambda _: Eager)
    config = runs.smoke(tmp_path, "sac", *SMALL)
    for weight in (1.0, 0.0):
        weighed = config.model_copy(update={"losses": {"bellman": 1.0, "extra": weight}})
        agent = build_agent(weighed, 3, build_images(config))
        if weight:
            agent.update(random_batch(4, 24), step=1)
        else:
            with pytest.raises(
                UserError, match=r"'extra' though losses\.extra is 0: .*self\.active\('extra'\)"
            ):
                agent.update(random_batch(4, 24), step=1)


@pytest.mark.parametrize(
    ("value", "found"), [(0.5, "it is 0.5"), (torch.zeros(2, 1), r"it is of shape \(2, 1\)")]
)
def test_a_metric_is_one_number(value: Any, found: str) -> None:
    latest = SimpleNamespace(latest={"mine/share": value})
    with pytest.raises(
        UserError, match=f"the metric 'mine/share' must be a tensor without dimensions; {found}"
    ):
        Trainer.newest(latest)  # pyright: ignore[reportArgumentType]
    assert Trainer.newest(SimpleNamespace(latest={"mine/share": torch.tensor(0.5)})) == {"mine/share": 0.5}  # pyright: ignore[reportArgumentType]


def test_overlay_images_are_drawn_by_agents_that_say_so(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = make(SAC, tmp_path, monkeypatch)
    with pytest.raises(UserError, match="SAC draws overlay images: its class has to say DRAWS_IMAGES = True"):
        agent.backdrops(2)
    monkeypatch.setattr(SAC, "DRAWS_IMAGES", True)
    assert agent.backdrops(2).shape == (2, 3, 24, 24)


def test_state_that_only_a_resume_would_find_is_refused(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hidden(SAC):
        def get_extra_state(self) -> dict[str, Any]:
            return super().get_extra_state() | {"now": 3}

    with pytest.raises(UserError, match=r"Hidden overrides get_extra_state.*register_buffer"):
        make(Hidden, tmp_path, monkeypatch)


def test_an_optimiser_without_rates_is_named(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Named(Head):
        def optimized(self) -> dict[str, Any]:
            return SAC.optimized(self) | {"head": self.head.parameters()}

    with pytest.raises(
        UserError, match=r"optimized\(\) names 'head', but optim: has rates for actor, critic"
    ):
        make(Named, tmp_path, monkeypatch)
