"""Runs that can be explained without having been trained."""

from collections.abc import Callable
from pathlib import Path

import pytest

from common import gl
from common.config.loading import to_yaml
from common.run import checkpoint
from common.run.build import build_agent, build_images
from common.run.device import resolve_auto
from tests import runs

# Test modules import MuJoCo, which reads MUJOCO_GL once.
gl.select_backend()

ACTIONS = {"walker_walk": 6, "cartpole_swingup": 1}
SHORT = ("eval.shifts=[train,video_hard]", "env.episode_steps=16", "env.action_repeat=2", "device=cpu")
STEPS = 8

Untrained = Callable[..., Path]


@pytest.fixture
def untrained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Untrained:
    """Writes the run folder of an agent with its initial weights: what a run holds early in training."""
    monkeypatch.delenv("SMG_DATA", raising=False)
    monkeypatch.delenv("SMG_OVERLAY", raising=False)

    def write(agent: str, *overrides: str, task: str = "walker_walk") -> Path:
        folder = tmp_path / agent
        config = runs.smoke(folder, agent, *SHORT, *overrides, task=task)
        folder.mkdir()
        (folder / "config.yaml").write_text(to_yaml(config))
        config = resolve_auto(config)
        built = build_agent(config, ACTIONS[task], build_images(config))
        checkpoint.save(folder / "checkpoint", 30, {"agent": built.state_dict(), "step": 30}, None)
        return folder

    return write
