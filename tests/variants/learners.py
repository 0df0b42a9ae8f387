"""Small variants of SMG beside SMG itself, with equal weights and, update by update, equal draws."""

from typing import Any

import torch

from common.config.loading import load
from common.config.registry import agent_class
from common.run.device import resolve_auto
from tests.baselines.batches import random_batch

SIZE, BATCH, FIRST_STEP = 24, 4, 1000
SMALL = (
    f"env.image_size={SIZE}",
    "network.strides=[2,1,1]",
    f"train.batch={BATCH}",
    "smg.mask_ratio_from_step=1001",
    "smg.attribution_probability=0.5",
    "amp=off",
    "device=cpu",
)


def build(name: Any, *overrides: str, like: str | None = None) -> Any:
    """An agent by name, or by class with the settings of `like`; equal shapes have equal weights."""
    kind = agent_class(name) if isinstance(name, str) else name
    config = resolve_auto(load(like or name, "walker_walk", "smoke", overrides=[*SMALL, *overrides]))
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (16, 3, SIZE, SIZE), generator=generator, dtype=torch.uint8)
    torch.manual_seed(0)
    return kind(config, 3, lambda count: images[:count])


def batch(agent, step):
    """Another batch at every step."""
    drawn = random_batch(BATCH, SIZE)
    channels = 3 * agent.config.env.frames
    for name in ("obs", "next_obs"):
        object.__setattr__(drawn, name, getattr(drawn, name).roll(step, -1)[:, :channels])
    return drawn


def trained(agent, updates=6):
    """All that some updates, of both draws of τ, leave of the agent: every tensor of its state by name."""
    attributed = 0
    for step in range(FIRST_STEP, FIRST_STEP + updates):
        torch.manual_seed(step)
        prepare = agent.prepare(batch(agent, step), agent.schedule(step))
        attributed += prepare[1].attribution
        torch.manual_seed(step)
        agent.update(batch(agent, step), step)
    assert 0 < attributed < updates
    return {name: tensor.detach().clone() for name, tensor in agent.state_tensors().items()}


def assert_equal(found, expected):
    """To the bit, and every tensor."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
