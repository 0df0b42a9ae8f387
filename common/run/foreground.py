"""ρ read off the simulator: the share of pixels that show neither sky nor scene."""

from typing import NamedTuple

import numpy as np
import torch

from common.config.schema import Config
from common.envs.benchmark import BenchmarkEnv
from common.run.build import env_arguments
from common.run.evaluate import Policy

STEPS = 500
"""Agent steps that the measurement takes."""


class Share(NamedTuple):
    """Mean and standard deviation over frames of the foreground's share of pixels."""

    mean: float
    deviation: float

    @property
    def rho(self) -> float:
        """The `smg.rho` that it suggests: the share itself, to three decimals."""
        return round(self.mean, 3)

    @property
    def quantile(self) -> float:
        """The `sgqn.quantile` that it suggests: what is not foreground, to three decimals."""
        return round(1 - self.rho, 3)


def foreground_share(config: Config, steps: int = STEPS, *, policy: Policy | None = None) -> Share:
    """Measure the foreground's share on `config.task` as `env.model` has it.

    Args:
        config: of the environment; its seed fixes the random actions.
        steps: agent steps, over as many episodes as they take.
        policy: whose mean acts; None acts at random, uniformly.
    """
    env = BenchmarkEnv(**env_arguments(config), shift="train", seed=config.seed)
    random = np.random.RandomState(config.seed)
    try:
        obs, _ = env.reset()
        shares = []
        for _ in range(steps):
            if policy is None:
                action = random.uniform(-1, 1, env.action_space.shape).astype(np.float32)
            else:
                seen = torch.from_numpy(obs)[None].to(policy.device)
                action = policy.act(seen, sample=False)[0].cpu().numpy()
            obs, _, terminated, truncated, _ = env.step(action)
            shares.append(env.segmentation().mean())
            if terminated or truncated:
                obs, _ = env.reset()
    finally:
        env.close()
    return Share(float(np.mean(shares)), float(np.std(shares)))


def resolve_rho(config: Config) -> Config:
    """The configuration with `smg.rho: auto` and `sgqn.quantile: auto` replaced by what is measured here."""
    settings = config.settings
    auto = {name for name in ("rho", "quantile") if getattr(settings, name, None) == "auto"}
    if not auto:
        return config
    share = foreground_share(config)
    chosen = settings.model_copy(update={name: getattr(share, name) for name in auto})
    return config.model_copy(update={"settings": chosen})
