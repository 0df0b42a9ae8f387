"""Trained agents out of run folders."""

from pathlib import Path
from typing import Any

from common.config.schema import Config
from common.envs.benchmark import BenchmarkEnv
from common.run import weights
from common.run.build import build_agent, build_images, env_arguments
from common.run.device import apply_switches


def load_agent(config: Config, folder: Path) -> tuple[Any, int]:
    """The agent with a run's newest weights, finished or not, and its agent steps.

    Args:
        config: the run's, without any `auto`.
        folder: only read.

    Raises:
        UserError: the run has no readable weights.
    """
    apply_switches(config)
    trained = weights.read(folder, "explain")
    env = BenchmarkEnv(**env_arguments(config), shift="train", seed=config.seed)
    action_size = env.action_size
    env.close()
    agent = build_agent(config, action_size, build_images(config))
    trained.give_to(agent)
    return agent, trained.step
