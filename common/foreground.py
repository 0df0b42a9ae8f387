"""ρ read off the simulator: the share of pixels that show neither sky nor floor."""

from typing import NamedTuple

import numpy as np

from common.build import env_arguments
from common.config import Config
from common.envs.benchmark import BenchmarkEnv

STEPS = 500
"""Agent steps of a uniformly random policy that the measurement takes."""


class Share(NamedTuple):
    """Mean and standard deviation over frames of the foreground's share of pixels."""

    mean: float
    deviation: float


def foreground_share(config: Config, steps: int = STEPS) -> Share:
    """Measure the foreground's share on `config.task` under a random policy, in `env.model`'s variant."""
    env = BenchmarkEnv(**env_arguments(config), shift="train", seed=config.seed)
    random = np.random.RandomState(config.seed)
    try:
        env.reset()
        shares = []
        for _ in range(steps):
            _, _, terminated, truncated, _ = env.step(
                random.uniform(-1, 1, env.action_space.shape).astype(np.float32)
            )
            shares.append(env.segmentation().mean())
            if terminated or truncated:
                env.reset()
    finally:
        env.close()
    return Share(float(np.mean(shares)), float(np.std(shares)))


def measured(config: Config) -> Config:
    """The configuration with `smg.rho: auto` and `sgqn.quantile: auto` replaced by what is measured here.

    ρ is the foreground's share, the quantile what is not foreground; both to three decimals.
    """
    settings = config.settings
    auto = {name for name in ("rho", "quantile") if getattr(settings, name, None) == "auto"}
    if not auto:
        return config
    share = round(foreground_share(config).mean, 3)
    values = {"rho": share, "quantile": round(1 - share, 3)}
    chosen = settings.model_copy(update={name: values[name] for name in auto})
    return config.model_copy(update={"settings": chosen})
