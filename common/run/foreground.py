"""The foreground in training: its share of pixels, which ρ is read off, and what is behind it."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from common.config.schema import Config
from common.run.build import build_env
from common.run.evaluate import Policy
from common.run.shares import shares

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
    shares = [truth.mean() for _, truth in _training_frames(config, steps, policy)]
    return Share(float(np.mean(shares)), float(np.std(shares)))


def mean_background(config: Config, policy: Policy, steps: int = STEPS) -> np.ndarray:
    """The background of the run's training environment, uint8 (3, H, W), in mean over the policy's frames.

    A pixel is the mean of the frames in which it shows no foreground; where all show some, the mean colour of
    all background pixels.

    Args:
        config: of the environment.
        policy: whose mean acts, as its camera follows what it does.
        steps: agent steps, over as many episodes as they take.
    """
    size = config.env.frame_size
    total, count = np.zeros((3, size, size)), np.zeros((size, size))
    for frame, truth in _training_frames(config, steps, policy):
        total += np.where(truth, 0, frame)
        count += ~truth
    colour = total.sum((1, 2), keepdims=True) / max(1, count.sum())
    return np.where(count > 0, total / np.maximum(count, 1), colour).round().astype(np.uint8)


def _training_frames(
    config: Config, steps: int, policy: Policy | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The frame, uint8 (3, H, W), and its true foreground, bool (H, W), after each of so many agent steps.

    A step at which the simulation diverges gives none.
    """
    env = build_env(config)
    random = np.random.RandomState(config.seed)
    try:
        obs, _ = env.reset()
        for _ in range(steps):
            if policy is None:
                action = random.uniform(-1, 1, env.action_space.shape).astype(np.float32)
            else:
                seen = torch.from_numpy(obs)[None].to(policy.device)
                action = policy.act(seen, sample=False)[0].cpu().numpy()
            obs, _, terminated, truncated, info = env.step(action)
            # Where it diverged, the frame is the one before, and the foreground that of the failed state.
            if not info.get("diverged"):
                yield obs[-3:], env.segmentation()
            if terminated or truncated:
                obs, _ = env.reset()
    finally:
        env.close()


def resolve_rho(config: Config) -> Config:
    """The configuration with `smg.rho: auto` and `sgqn.quantile: auto` replaced by what is measured here."""
    auto = [name for name, value in shares(config).items() if value == "auto"]
    if not auto:
        return config
    # With one seed for all, since runs whose ρ differs in the third decimal may not stand in one table.
    share = foreground_share(config.model_copy(update={"seed": 0}))
    chosen = config.settings.model_copy(update={name: getattr(share, name) for name in auto})
    return config.model_copy(update={"settings": chosen})
