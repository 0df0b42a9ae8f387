"""Trained agents out of run folders."""

from pathlib import Path
from typing import Any

from common import checkpoint
from common.build import build_agent, build_images, env_arguments
from common.config import Config
from common.envs.benchmark import BenchmarkEnv
from common.errors import UserError
from common.run_folder import refuse_links


def load_agent(config: Config, folder: Path) -> tuple[Any, int]:
    """The agent of a run's newest checkpoint, finished or not, and its agent steps.

    Args:
        config: the run's, without any `auto`.
        folder: only read.

    Raises:
        UserError: the run has no readable checkpoint.
    """
    refuse_links(folder)
    if not checkpoint.exists(folder / "checkpoint"):
        raise UserError(
            f"{folder} has no checkpoint to explain; train first, or continue with --resume {folder}"
        )
    state, _ = checkpoint.load(folder / "checkpoint", None)
    env = BenchmarkEnv(**env_arguments(config), shift="train", seed=config.seed)
    action_size = env.action_size
    env.close()
    agent = build_agent(config, action_size, build_images(config))
    with checkpoint.must_fit(folder / "checkpoint"):
        agent.load_state_dict(state["agent"])
        return agent, int(state["step"])
