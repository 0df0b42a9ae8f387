"""An update on another device than the CPU; PyTorch's meta device, which computes nothing, stands for it.

An operation that mixes it with the CPU, or reads a value, is an error there as it would be, or would wait, on
a GPU. CUDA's fake tensors cannot stand for it: agents copy and convert networks as they are built, which
they refuse, and PyTorch's CPU build ends the process in their autograd.
"""

import itertools
from contextlib import nullcontext

import pytest
import torch

from common.config.registry import AGENTS, agent_class
from common.rl.batch import Batch
from common.rl.diagnosis import Diagnosis
from tests.baselines.batches import random_batch
from tests.common.rl.test_layouts import ACTIONS, SIZE, build


@pytest.fixture(autouse=True)
def autocast_knows_meta(monkeypatch: pytest.MonkeyPatch) -> None:
    """Autocast refuses a meta device even when it is switched off, as augmentations do."""
    real = torch.autocast
    monkeypatch.setattr(
        torch,
        "autocast",
        lambda kind, *how, **named: nullcontext() if kind == "meta" else real(kind, *how, **named),
    )


STEPS = (1000, 1001, 1002)  # the burst's, a critic-only and a full one


def elsewhere(name: str, device: str, *switches: str):
    """A small agent in float32 on a device, and the batches of `STEPS` there."""
    here = build(name, "optim.fused=false", "compile=eager", *switches)

    def images(count):
        return torch.empty(count, 3, SIZE, SIZE, dtype=torch.uint8, device=device)

    agent = agent_class(name)(here.config, ACTIONS, images, device)
    agent.proved = True  # what an update moved would be read once, and has no value here
    batches = {}
    for step in STEPS:
        drawn = random_batch(agent.batch_size(step), agent.config.env.frame_size)
        batches[step] = Batch(*(value.to(device) for value in vars(drawn).values()))
    return agent, batches


@pytest.mark.parametrize(("layout", "amp"), [("true", "bf16"), ("true", "off"), ("false", "off")])
@pytest.mark.parametrize("name", AGENTS)
def test_an_update_stays_on_its_device(name, layout, amp):
    agent, batches = elsewhere(name, "meta", f"channels_last={layout}", f"amp={amp}")
    for step, batch in batches.items():
        metrics = agent.update(batch, step)
        assert all(value.device.type == "meta" and value.dim() == 0 for value in metrics.values())
    assert all(value.device.type == "meta" for value in agent.parameters())
    for optimizer in agent.optimizers.values():
        for parameter, slots in optimizer.state.items():
            assert slots["exp_avg"].stride() == slots["exp_avg_sq"].stride() == parameter.stride()


@pytest.mark.parametrize("name", ["smg"])
def test_both_draws_of_smgs_augmentation_stay_on_its_device(name):
    for probability in (0, 1):
        agent, batches = elsewhere(name, "meta", f"smg.attribution_probability={probability}")
        for step, batch in batches.items():
            agent.update(batch, step)


@pytest.mark.parametrize("name", AGENTS)
def test_looking_inside_stays_on_the_device(name):
    agent, batches = elsewhere(name, "meta", "amp=bf16")
    obs, action = batches[1001].obs, batches[1001].action
    for sample, count in itertools.product((True, False), (1, len(obs))):
        assert agent.act(obs[:count], sample).device.type == "meta"
    assert {value.device.type for value in agent.explain(obs, action).values()} == {"meta"}
    examined = Diagnosis(agent, 1).examine(*agent.prepare(batches[1000], agent.schedule(1000)))
    assert {value.device.type for value in examined.values()} == {"meta"}
