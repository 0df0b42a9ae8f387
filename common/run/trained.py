"""Trained agents out of run folders."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from common import gl
from common.config.loading import load_run_config
from common.config.schema import Config
from common.rl.sac import SAC
from common.run import weights
from common.run.build import build_agent, build_env, build_images
from common.run.device import apply_switches, for_trained
from common.run.nvidia import training_gpu


class Trained(NamedTuple):
    """An agent with a run's newest weights."""

    agent: SAC
    config: Config
    step: int
    """Agent steps by which they were learnt."""


def load_run(folder: str | Path, overrides: Sequence[str] = (), allow_code: bool = False) -> Trained:
    """The agent of a run folder, finished or not, or as `smg export` left it.

    Args:
        folder: only read.
        overrides: `key.sub=value` texts on top of the run's configuration.
        allow_code: import an agent that the folder names as `package.module:Class`.

    Raises:
        UserError: there is no run, or it has no readable weights.
    """
    config = for_trained(load_run_config(folder, overrides, allow_code))
    gl.select_backend(training_gpu(config.device))
    return load_agent(config, Path(folder), "load")


def load_agent(config: Config, folder: Path, purpose: str) -> Trained:
    """The agent with a run's newest weights.

    Args:
        config: the run's, without any `auto`.
        folder: only read.
        purpose: what the weights are wanted for, for the message.

    Raises:
        UserError: the run has no readable weights.
    """
    apply_switches(config)
    trained = weights.read(folder, purpose)
    env = build_env(config)
    agent = build_agent(config, env.action_size, build_images(config))
    env.close()
    trained.give_to(agent)
    return Trained(agent, config, trained.step)
