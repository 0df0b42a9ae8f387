"""Eight updates in a row end at the weights of the released implementations: whole tensors, float64.

The numbers are ../shared/fixtures/trajectory_*.npz, or lie where `SMG_FIXTURES` says.
"""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from common.rl.augment import overlay
from tests import released

FOLDER = Path(os.environ.get("SMG_FIXTURES", Path(__file__).parents[2] / "shared" / "fixtures"))
OWN_KEYS = {
    "sac": [],
    "sgqn": ["sgqn.quantile=0.95"],
    "smg": ["smg.rho=0.06", "smg.mask_ratio_from_step=1001"],
}

needs_trajectories = pytest.mark.skipif(
    not (FOLDER / "trajectory_sac.npz").is_file(),
    reason=f"needs trajectory_*.npz, which are not in {FOLDER}: name their folder in SMG_FIXTURES",
)


@needs_trajectories
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("name", OWN_KEYS)
def test_eight_updates_end_at_the_released_weights(name, channels_last):
    distances = follow_trajectory(name, torch.float64, f"channels_last={channels_last}")
    assert max(distances.values()) < 1e-3, worst(distances)
    # Every tensor but the temperature's, whose Adam has a β₁ of its own, agrees far better.
    assert max(value for key, value in distances.items() if key != "log_alpha") < 5e-5, worst(distances)


@needs_trajectories
@pytest.mark.parametrize("name", OWN_KEYS)
def test_in_float32_eight_updates_end_near_the_released_weights(name):
    distances = follow_trajectory(name, torch.float32)
    if name == "smg":
        # One unit of its background decoder lies at a ReLU's kink.
        assert np.median(list(distances.values())) < 2e-3 and max(distances.values()) < 0.15, worst(distances)
    else:
        assert max(distances.values()) < 1e-3, worst(distances)


@needs_trajectories
@pytest.mark.gpu
@pytest.mark.parametrize("compile", ["eager", "graphs"])
@pytest.mark.parametrize("name", OWN_KEYS)
def test_on_a_gpu_eight_updates_end_at_the_released_weights(name, compile):
    distances = follow_trajectory(name, torch.float64, "device=cuda", f"compile={compile}")
    assert max(distances.values()) < 1e-3, worst(distances)
    assert max(value for key, value in distances.items() if key != "log_alpha") < 5e-5, worst(distances)


def follow_trajectory(name: str, precision: torch.dtype, *overrides: str) -> dict[str, float]:
    """Runs the stored updates; of every tensor, |Δ − Δ*| / |Δ*|, Δ its change from the start."""
    stored = released.numbers(name)
    with np.load(FOLDER / f"trajectory_{name}.npz") as file:
        trajectory = dict(file)
    agent = released.agent(name, stored, *OWN_KEYS[name], *overrides)
    released.in_precision(agent, precision)
    before = released.snapshot(agent)
    for index, step in enumerate(trajectory["steps"]):
        inputs, plan = update(name, agent, stored, trajectory, index, int(step), precision)
        agent.graphed_update({key: value.to(agent.device) for key, value in inputs.items()}, plan)
    assert agent.graphed_update.graphs == (agent.config.compile == "graphs"), agent.graphed_update.findings
    distances = {}
    for key, after in released.snapshot(agent).items():
        start = before[key].double().cpu()
        expected = torch.from_numpy(trajectory[f"after/{key}"]).double() - start
        distances[key] = float((after.double().cpu() - start - expected).norm() / expected.norm())
    stored_names = {key.removeprefix("after/") for key in trajectory if key.startswith("after/")}
    assert distances.keys() == stored_names
    return distances


def update(name, agent, stored, trajectory, index, step, precision):
    """The prepared inputs and the plan of one stored update."""
    batch = {
        key: released.tensor(stored[f"batch/{key}"])
        for key in ("obs", "next_obs", "action", "reward", "not_done")
    }
    batch |= {key: batch[key].to(precision) for key in ("action", "reward", "not_done")}
    if index % 2:
        batch |= {key: batch[key].flip(-1) for key in ("obs", "next_obs")}
    inputs = batch | {"noise_next": released.tensor(trajectory["noise_next"][index]).to(precision)}
    plan = agent.schedule(step)
    assert plan.actor == (step % 2 == 0)
    if plan.actor:
        inputs["noise_obs"] = released.tensor(trajectory["noise_obs"][index]).to(precision)
    if name == "sgqn":
        inputs |= {"fill": torch.tensor(37.0), "augmented": overlay(batch["obs"], images(stored, 1))}
    if name == "smg":
        plan = replace(plan, attribution=bool(trajectory["attribution"][index]))
        augmented = overlay(batch["obs"].to(precision), images(stored, 2).to(precision))
        inputs |= {"backdrop": images(stored, 1).to(precision), "augmented": augmented}
    return inputs, plan


def images(stored: dict[str, np.ndarray], number: int) -> torch.Tensor:
    return released.tensor(stored[f"batch/images_{number}"])


def worst(distances: dict[str, float]) -> str:
    largest = sorted(distances.items(), key=lambda item: -item[1])[:5]
    return ", ".join(f"{key} {value:.2g}" for key, value in largest)
