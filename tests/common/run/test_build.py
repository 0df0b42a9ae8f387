"""What an agent of one's own must not get wrong."""

from typing import Any

import numpy as np
import pytest
import torch

from common.errors import UserError
from common.rl.networks import MLP
from common.rl.sac import SAC
from common.run.build import build_agent, build_evaluation_env, build_evaluator, build_images
from tests import runs
from tests.baselines.batches import random_batch


@pytest.mark.slow
def test_an_evaluation_environment_shows_what_evaluations_do(tmp_path, monkeypatch):
    monkeypatch.delenv("SMG_DATA", raising=False)
    config = runs.smoke(tmp_path, "sac", "seed=3", "eval.clips=[20,29]", "eval.shifts=[video_hard]")
    evaluator, env = build_evaluator(config), build_evaluation_env(config, "video_hard")
    _, info = env.reset(options={"evaluation": 0, "episode": 0, "episodes": config.eval.episodes})
    still = np.zeros(env.action_size, np.float32)
    total, ended = 0.0, False
    while not ended:
        _, reward, terminated, truncated, _ = env.step(still)
        total, ended = total + reward, terminated or truncated
    env.close()
    first, *_ = evaluator.run(runs.Still(env.action_size), 0)
    evaluator.close()
    assert (first["background"], first["return"]) == (info["background"], pytest.approx(total))
    assert 20 <= int(info["background"].removeprefix("procedural/")) <= 29


SMALL = ("env.image_size=24", "network.strides=[2]")


class WithHead(SAC):
    """SAC with one more network, whose output its critic's loss pulls to 0."""

    learnt = True
    head: MLP

    def build(self):
        super().build()
        self.head = MLP(self.config.network.latent, 8, 1)

    def optimized(self):
        critic = [*self.critic.parameters(), *(self.head.parameters() if self.learnt else [])]
        return super().optimized() | {"critic": critic}

    def critic_losses(self, inputs):
        terms, diagnostics = super().critic_losses(inputs)
        terms["bellman"] = terms["bellman"] + self.head(self.critic.encode(inputs["obs"])).square().mean()
        return terms, diagnostics


class Motionless(WithHead):
    learnt = False


def build(kind: type[SAC], tmp_path, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> Any:
    monkeypatch.setattr("common.run.build.agent_class", lambda _: kind)
    config = runs.smoke(tmp_path, "sac", *SMALL, *overrides)
    return build_agent(config, 3, build_images(config))


def test_a_network_added_to_an_optimiser_learns(tmp_path, monkeypatch):
    agent = build(WithHead, tmp_path, monkeypatch)
    before = [weight.clone() for weight in agent.head.parameters()]
    agent.update(random_batch(4, 24), step=1)
    after = list(agent.head.parameters())
    assert all(not torch.equal(*pair) for pair in zip(before, after, strict=True))
    assert all(weight.grad is None for weight in after)


def test_a_network_that_no_optimiser_moves_is_refused(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"no optimiser moves Motionless's weight 'head\.linear0\.weight'"):
        build(Motionless, tmp_path, monkeypatch)


def test_a_network_added_after_construction_is_saved_and_must_learn_too(tmp_path, monkeypatch):
    class Late(SAC):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.head = MLP(self.config.network.latent, 8, 1)

    with pytest.raises(UserError, match=r"Late's weight 'head\.linear0\.weight'.*optimized\(\)"):
        build(Late, tmp_path, monkeypatch)


def test_a_state_holds_every_network_and_optimiser(tmp_path, monkeypatch):
    agent, other = (build(WithHead, tmp_path, monkeypatch) for _ in range(2))
    agent.update(random_batch(4, 24), step=0)
    other.load_state_dict(agent.state_dict())
    assert torch.equal(other.head.linear0.weight, agent.head.linear0.weight)
    for name, optimizer in agent.optimizers.items():
        for one, two in zip(optimizer.state.values(), other.optimizers[name].state.values(), strict=True):
            assert all(torch.equal(one[slot], two[slot]) for slot in one), name


def build_with(augmentation: str, tmp_path) -> None:
    config = runs.smoke(tmp_path, "svea", *SMALL, f"augmentation={augmentation}")
    build_agent(config, 3, build_images(config))


def test_augmentation_is_checked_at_the_size_of_the_run(tmp_path):
    build_with("{name: RandomCrop, size: [24, 24]}", tmp_path)
    with pytest.raises(UserError, match="turns 24x24 pixels into 84x84"):
        build_with("{name: RandomResizedCrop, size: [84, 84]}", tmp_path)
