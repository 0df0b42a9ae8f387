"""What an agent of one's own must not get wrong."""

import pytest
import torch

from common.errors import UserError
from common.rl.networks import MLP
from common.rl.sac import SAC
from common.run.build import build_agent, build_images
from tests import runs
from tests.baselines.batches import random_batch

SMALL = ("env.image_size=24", "network.strides=[2]")


class WithHead(SAC):
    """SAC with one more network, whose output its critic's loss pulls to 0."""

    registered = learnt = True

    def __init__(self, config, action_size, images, device="cpu"):
        super().__init__(config, action_size, images, device)
        self.head = self.add(MLP(config.network.latent, 8, 1), initialise_weights=True)
        if self.registered:
            self.networks["head"] = self.head
        if self.learnt:
            self.optimizers["critic"].add_param_group({"params": self.head.parameters()})

    def critic_losses(self, inputs):
        terms, diagnostics = super().critic_losses(inputs)
        terms["bellman"] = terms["bellman"] + self.head(self.critic.encode(inputs["obs"])).square().mean()
        return terms, diagnostics


class Unregistered(WithHead):
    registered = False


class Motionless(WithHead):
    learnt = False


def build(kind: type[SAC], tmp_path, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> SAC:
    monkeypatch.setattr("common.run.build.agent_class", lambda _: kind)
    config = runs.smoke(tmp_path, "sac", *SMALL, *overrides)
    return build_agent(config, 3, build_images(config))


def test_a_network_added_to_an_optimiser_learns(tmp_path, monkeypatch):
    agent = build(WithHead, tmp_path, monkeypatch)
    before = [weight.clone() for weight in agent.networks["head"].parameters()]
    agent.update(random_batch(4, 24), step=1)
    after = list(agent.networks["head"].parameters())
    assert all(not torch.equal(*pair) for pair in zip(before, after, strict=True))
    assert all(weight.grad is None for weight in after)


def test_a_network_that_no_optimiser_moves_is_refused(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="no optimiser moves the network 'head'"):
        build(Motionless, tmp_path, monkeypatch)


def test_a_network_that_no_checkpoint_would_hold_is_refused(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="checkpoints would lack the network 'head'"):
        build(Unregistered, tmp_path, monkeypatch)


def test_augmentation_is_checked_at_the_size_of_the_run(tmp_path, monkeypatch):
    build(SAC, tmp_path, monkeypatch, "augmentation={name: RandomCrop, size: [24, 24]}")
    with pytest.raises(UserError, match="turns 24x24 pixels into 84x84"):
        build(SAC, tmp_path, monkeypatch, "augmentation={name: RandomResizedCrop, size: [84, 84]}")
