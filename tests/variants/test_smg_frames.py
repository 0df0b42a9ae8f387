import numpy as np
import pytest
import torch
import torch.nn.functional as F

from common.errors import UserError
from common.rl.attribution import guided_gradient
from tests.baselines.batches import random_batch
from tests.variants.learners import SIZE, assert_equal, batch, build, trained


def by_frame(trunk, obs, first, strides):
    """The features by a loop over frames, convolution by convolution."""
    stacked = []
    for frame in range(3):
        features = obs[:, 3 * frame : 3 * frame + 3].double() / 255
        for index in range(first):
            part = trunk.convolutions[index]
            features = F.relu(F.conv2d(features, part.weight.double(), part.bias.double(), strides[index]))
        stacked.append(features)
    features = torch.cat(stacked, 1)
    for index in range(first, len(strides)):
        part = trunk.convolutions[index]
        features = F.conv2d(F.relu(features), part.weight.double(), part.bias.double(), strides[index])
    return features.flatten(1)


@pytest.mark.parametrize("layout", ["true", "false"])
@pytest.mark.parametrize("first", [1, 2])
def test_the_first_convolutions_see_each_frame_by_itself(first, layout):
    agent = build("smg_frames", f"smg.frames_apart={first}", f"channels_last={layout}")
    obs = random_batch(5, SIZE).obs
    for trunk in (agent.critic.trunk, agent.background_encoder.trunk):
        with torch.no_grad():
            expected = by_frame(trunk, obs, first, (2, 1, 1))
            np.testing.assert_allclose(trunk(obs), expected, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(trunk(obs[:2], obs[2:]), trunk(obs))


def test_only_the_shapes_of_two_convolutions_differ_from_smgs():
    frames, smg = build("smg_frames", "network.filters=4"), build("smg", "network.filters=4")
    shapes, expected = ({k: tuple(v.shape) for k, v in a.named_parameters()} for a in (frames, smg))
    assert shapes.keys() == expected.keys()
    different = {name for name in expected if shapes[name] != expected[name]}
    trunks = ("critic.trunk", "target.trunk", "background_encoder.trunk")
    assert different == {f"{trunk}.convolutions.{index}.weight" for trunk in trunks for index in (0, 2)}
    assert shapes["critic.trunk.convolutions.0.weight"] == (4, 3, 3, 3)
    assert shapes["critic.trunk.convolutions.2.weight"] == (4, 12, 3, 3)


def test_with_no_convolution_apart_it_is_smg_to_the_bit():
    assert_equal(trained(build("smg_frames", "smg.frames_apart=0")), trained(build("smg")))


def test_it_learns_and_can_be_explained():
    agent = build("smg_frames")
    before = {name: value.detach().clone() for name, value in agent.critic.trunk.named_parameters()}
    trained(agent)
    for name, value in agent.critic.trunk.named_parameters():
        assert not torch.equal(value, before[name]), name
    drawn = batch(agent, 0)
    gradient = guided_gradient(agent.critic, drawn.obs, drawn.action)
    assert gradient.shape == drawn.obs.shape and (gradient.flatten(2).abs().sum(2) > 0).any(0).all()


def test_one_convolution_must_see_all_frames():
    with pytest.raises(UserError, match=r"smg\.frames_apart is 3, but one of the encoder's 3 convolutions"):
        build("smg_frames", "smg.frames_apart=3")
