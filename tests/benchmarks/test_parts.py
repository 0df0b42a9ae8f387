import pytest
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.parts import PARTS, metered
from benchmarks.update import FIRST_STEP, build, configured, random_batch


@pytest.mark.parametrize("name", ["sac", "sgqn", "smg"])
def test_the_parts_are_the_whole_update(name):
    config = configured(name, "smoke", ["env.image_size=24"])
    agent = build(config, plain=False)
    batch = random_batch(config)
    counter = FlopCounterMode(display=False)
    with counter, metered(agent, counter.get_total_flops) as parts:
        agent.update(batch, FIRST_STEP)
    assert set(parts) <= set(PARTS)
    assert sum(parts.values()) == counter.get_total_flops() > 0
    assert "update" not in vars(agent) and not set(PARTS) & set(vars(agent))
