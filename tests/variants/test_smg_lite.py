from collections import Counter

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.variants.learners import FIRST_STEP, assert_equal, batch, build, trained

MEANS = ("reconstruction", "mask_ratio", "background", "foreground_consistency")


def update_of_all(agent):
    schedule = agent.schedule(FIRST_STEP + 2)
    torch.manual_seed(0)
    inputs, schedule = agent.prepare(batch(agent, FIRST_STEP), schedule)
    return agent.with_views(inputs, schedule), schedule


@pytest.mark.parametrize("probability", [0, 1])
def test_the_mean_over_frames_of_its_losses_are_smgs(probability):
    switch = f"smg.attribution_probability={probability}"
    smg, lite = build("smg", switch), build("smg_lite", switch)
    inputs, schedule = update_of_all(smg)
    expected, _ = smg.auxiliary_losses(inputs, schedule)
    each = [lite.auxiliary_losses(inputs | {"frame": torch.tensor(frame)}, schedule)[0] for frame in range(3)]
    for name in MEANS:
        values = [terms[name].item() for terms in each]
        assert sum(values) / 3 == pytest.approx(expected[name].item(), rel=1e-4), name
        assert len(set(values)) == 3, name
    assert all(terms["empowerment"].item() == expected["empowerment"].item() for terms in each)


def test_gradients_of_the_mean_over_frames_are_smgs():
    smg, lite = build("smg"), build("smg_lite")
    for agent in (smg, lite):
        agent.double()
    inputs, schedule = update_of_all(smg)
    inputs = {name: value.double() for name, value in inputs.items()}

    def gradients(agent, *frames):
        losses = [agent.weighted(agent.auxiliary_losses(inputs | chosen, schedule)[0]) for chosen in frames]
        parameters = list(agent.optimized()["auxiliary"])
        return torch.autograd.grad(torch.stack(losses).mean(), parameters)

    frames = [{"frame": torch.tensor(frame)} for frame in range(3)]
    for one, two in zip(gradients(lite, *frames), gradients(smg, {}), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-8, atol=1e-10)


def test_every_frame_is_drawn_equally_often_and_only_where_models_learn():
    agent = build("smg_lite")
    torch.manual_seed(0)
    counts = Counter(
        agent.prepare(batch(agent, 0), agent.schedule(FIRST_STEP))[0]["frame"].item() for _ in range(1500)
    )
    assert set(counts) == {0, 1, 2}
    assert sum((count - 500) ** 2 / 500 for count in counts.values()) < 13.8  # 99.9%, 2 degrees of freedom
    assert "frame" not in agent.prepare(batch(agent, 1001), agent.schedule(1001))[0]


def test_of_one_frame_it_is_smg_to_the_bit():
    assert_equal(trained(build("smg_lite", "env.frames=1")), trained(build("smg", "env.frames=1")))


def decoder_flops(agent):
    """Of one update of the models: forward and backward passes of both decoders."""
    inputs, _ = update_of_all(agent)
    counted = {}
    for name in ("foreground", "background"):
        counter = FlopCounterMode(display=False)
        module = getattr(agent, name)
        latents = torch.zeros(8, agent.config.network.latent, requires_grad=True)
        frames = agent.frames_decoded(inputs)
        with counter:
            module(latents, frames).sum().backward()
        counted[name] = counter.get_total_flops()
    return counted


def test_the_decoders_do_about_a_third_of_the_work():
    whole, lite = decoder_flops(build("smg")), decoder_flops(build("smg_lite"))
    for name, flops in whole.items():
        assert 1 / 3 < lite[name] / flops < 0.36, name  # the heads, of all frames, stay
