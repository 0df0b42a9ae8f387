"""An update on another device than the CPU; PyTorch's meta device, which computes nothing, stands for it.

An operation that mixes it with the CPU, or reads a value, is an error there as it would be, or would wait, on
a GPU. CUDA's fake tensors would tell more, but PyTorch's CPU build ends the process in their autograd.
"""

from contextlib import nullcontext

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from common.config.registry import AGENTS, agent_class
from common.rl.batch import Batch
from common.rl.diagnosis import Diagnosis
from tests.baselines.batches import random_batch
from tests.common.rl.test_layouts import ACTIONS, SIZE, build


@pytest.fixture(autouse=True)
def autocast_knows_meta(monkeypatch: pytest.MonkeyPatch) -> None:
    """Autocast refuses a meta device even when it is switched off, as it is here."""
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
    batches = {}
    for step in STEPS:
        drawn = random_batch(agent.batch_size(step), agent.config.env.frame_size)
        batches[step] = Batch(*(value.to(device) for value in vars(drawn).values()))
    return agent, batches


@pytest.mark.parametrize("layout", ["true", "false"])
@pytest.mark.parametrize("name", AGENTS)
def test_an_update_stays_on_its_device(name, layout):
    agent, batches = elsewhere(name, "meta", f"channels_last={layout}")
    for step, batch in batches.items():
        metrics = agent.update(batch, step)
        assert all(value.device.type == "meta" and value.dim() == 0 for value in metrics.values())
    assert all(value.device.type == "meta" for value in agent.parameters())


@pytest.mark.parametrize("name", ["smg"])
def test_both_draws_of_smgs_augmentation_stay_on_its_device(name):
    for probability in (0, 1):
        agent, batches = elsewhere(name, "meta", f"smg.attribution_probability={probability}")
        for step, batch in batches.items():
            agent.update(batch, step)


@pytest.mark.parametrize("name", AGENTS)
def test_looking_inside_stays_on_the_device(name):
    agent, batches = elsewhere(name, "meta")
    obs, action = batches[1001].obs, batches[1001].action
    for sample in (True, False):
        assert agent.act(obs, sample).device.type == "meta"
    assert {value.device.type for value in agent.explain(obs, action).values()} == {"meta"}
    examined = Diagnosis(agent, 1).examine(*agent.prepare(batches[1000], agent.schedule(1000)))
    assert {value.device.type for value in examined.values()} == {"meta"}


def cuda_is_built() -> bool:
    return torch.backends.cuda.is_built()


@pytest.mark.skipif(not cuda_is_built(), reason="PyTorch's CPU build has no autograd of fake CUDA tensors")
@pytest.mark.parametrize("name", AGENTS)
def test_an_update_of_fake_cuda_tensors(name):
    with FakeTensorMode():
        agent, batches = elsewhere(name, "cuda", "optim.fused=true", "amp=bf16")
        for step, batch in batches.items():
            metrics = agent.update(batch, step)
            assert {value.device.type for value in metrics.values()} == {"cuda"}
        for optimizer in agent.optimizers.values():
            for parameter, slots in optimizer.state.items():
                assert slots["exp_avg"].stride() == parameter.stride()
