"""Guided backpropagation against Captum's, and the augmentation that a YAML names against training."""

import pytest
import torch
from captum.attr import GuidedBackprop

from common.rl.attribution import frame_attribution, guided_gradient
from common.rl.augment import RandomOverlay
from common.rl.batch import Batch
from tests import released
from tests.common.rl.modular_critic import ModularCritic


@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU")  # Captum says how it works
@pytest.mark.filterwarnings("ignore:Input Tensor .* did not already require gradients")
def test_guided_gradient_is_captums():
    stored = released.numbers("sgqn")
    agent = released.agent("sgqn", stored)
    obs = released.tensor(stored["batch/obs"]).float()
    action = released.tensor(stored["batch/action"])
    module = ModularCritic(agent.critic)
    expected = GuidedBackprop(module).attribute(obs.clone(), additional_forward_args=action)
    found = guided_gradient(agent.critic, obs, action)
    assert found.abs().max() > 0
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def test_frame_attribution_is_the_largest_colour():
    gradient = torch.zeros(1, 6, 1, 2)
    gradient[0, :, 0, 0] = torch.tensor([1.0, -3.0, 2.0, 0.0, 0.5, -0.25])
    assert frame_attribution(gradient).tolist() == [[[[3.0, 0.0]], [[0.5, 0.0]]]]


def test_patching_the_named_augmentation_changes_training(monkeypatch):
    stored = released.numbers("sgqn")

    def self_supervised_loss():
        agent = released.agent("sgqn", stored)
        torch.manual_seed(0)
        batch = agent_batch(stored)
        return agent.update(batch, 2000)["loss/self_supervised"]

    plain = self_supervised_loss()
    assert torch.equal(plain, self_supervised_loss())
    monkeypatch.setattr(RandomOverlay, "apply_transform", lambda self, input, *_, **__: 1 - input)
    assert not torch.equal(plain, self_supervised_loss())


def agent_batch(stored):
    names = ("obs", "action", "reward", "next_obs", "not_done")
    return Batch(*(released.tensor(stored[f"batch/{name}"]) for name in names))
