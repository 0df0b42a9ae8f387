"""The yardstick of the benchmarks is the released implementations' computation, written plainly."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.plain import PLAIN, SWITCHES, PlainSAC
from benchmarks.update import random_batch
from common.config.loading import load
from common.run.device import resolve_auto
from tests import released
from tests.common.rl import test_layouts, test_sac
from tests.sgqn import test_sgqn
from tests.smg import test_smg

PAGES = {"sac": test_sac, "sgqn": test_sgqn, "smg": test_smg}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "case"), [(name, case) for name, page in PAGES.items() for case in page.CASES]
)
def test_plain_steps_move_every_parameter_as_the_released_code_does(name, case, monkeypatch):
    monkeypatch.setattr(released, "agent_class", PLAIN.__getitem__)
    stored, page = released.numbers(name), PAGES[name]
    agent = page.build(stored) if hasattr(page, "build") else released.agent(name, stored)
    assert type(agent) is PLAIN[name]
    before = released.snapshot(agent)
    agent.step(page.inputs(stored), page.CASES[case])
    released.assert_step(agent, before, stored, case)


@pytest.mark.parametrize("name", PLAIN)
def test_fast_updates_are_the_plain_ones(name, monkeypatch):
    """Eight updates in float64, with users' defaults, end at the plain implementation's weights."""
    fast = test_layouts.build(name, "compile=eager", "channels_last=auto", "optim.fused=auto")
    monkeypatch.setattr(test_layouts, "agent_class", PLAIN.__getitem__)
    plain = test_layouts.build(name, *SWITCHES)
    assert type(plain) is PLAIN[name]
    before = {key: value.detach().clone() for key, value in plain.named_parameters()}
    plain.load_state_dict(fast.state_dict())
    for step in range(1000, 1008):
        for agent in (fast, plain):
            torch.manual_seed(step)
            agent.update(test_layouts.batch(agent, step), step)
    changes = [
        {key: value.detach() - before[key] for key, value in agent.named_parameters()}
        for agent in (fast, plain)
    ]
    test_layouts.assert_same(*changes)


def test_flops_of_a_plain_sac_update_are_those_counted_by_hand():
    batch, actions, latent, hidden = 2, 6, 50, 64
    sizes = ["train.batch=2", "network.latent=50", "network.hidden=64", "device=cpu"]
    config = resolve_auto(load("sac", "walker_walk", "paper", overrides=[*sizes, *SWITCHES]))
    agent = PlainSAC(config, actions, lambda count: torch.zeros(count, 3, 84, 84))
    with FlopCounterMode(display=False) as counter:
        sample = random_batch(config)
        plan = agent.schedule(2000)
        agent.step(*agent.prepare(sample, plan))

    sides = [41, 39, 37, 35, 33, 31, 29, 27, 25, 23, 21]
    first, rest = 2 * 41 * 41 * 32 * 9 * 9, [2 * side * side * 32 * 32 * 9 for side in sides[1:]]
    trunk = first + sum(rest)
    features = 32 * 21 * 21
    project = 2 * features * latent
    heads = 2 * 2 * ((latent + actions) * hidden + hidden * hidden + hidden)
    policy = 2 * (latent * hidden + hidden * hidden + hidden * 2 * actions)
    # A backward pass costs twice its forward pass, less the gradient of inputs that need none: pixels for the
    # first convolution, detached features for the actor's projection.
    target = trunk + project + policy + trunk + project + heads
    critic = 3 * (trunk + project + heads) - first
    actor = 2 * trunk + project + (3 * project - project) + 3 * policy + 2 * heads
    assert counter.get_total_flops() == batch * (target + critic + actor)
