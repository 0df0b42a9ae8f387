"""Episodes to be explained: the same simulator states as seen under a shift and in training's looks."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from common.config.shifts import CAMERA_SHIFTS
from common.envs.benchmark import BenchmarkEnv
from common.run.evaluate import Policy, mean_actions
from common.run.records import Record

Choose = Callable[[np.ndarray], np.ndarray]
"""An action (A,) for an observation (C, H, W)."""


@dataclass(frozen=True)
class Recording:
    """N frames of an episode, out of its T agent steps."""

    shift: str
    steps: np.ndarray
    """(N,), actions taken before each frame."""
    obs: np.ndarray
    """uint8 (N, 3F, H, W)."""
    plain: np.ndarray | None
    """The same simulator states as training shows them; None in train, and under a shift of the camera."""
    truth: np.ndarray
    """bool (N, H, W), the true foreground."""
    actions: np.ndarray
    """(T, A)."""
    rewards: np.ndarray
    """(T,)."""
    shown: Record
    """The environment's info at the end: background, colours, turn and what else the shift drew."""

    @property
    def summary(self) -> Record:
        """The episode in numbers."""
        return {
            "return": float(self.rewards.sum()),
            "length": len(self.rewards),
        } | self.shown


class Stage:
    """A shift's environment and, if only looks differ, its twin in training's looks, stepped together.

    Args:
        arguments: of the BenchmarkEnv, all but its shift.
        shift: the visual shift.
    """

    def __init__(self, arguments: dict[str, Any], shift: str) -> None:
        self.env = BenchmarkEnv(**arguments, shift=shift)
        alone = shift == "train" or shift in CAMERA_SHIFTS
        self.twin = None if alone else BenchmarkEnv(**arguments, shift="train")

    def record(self, choose: Choose, episode: int, episodes: int, every: int) -> Recording:
        """Play evaluation episode `episode` of `episodes`; keep the first and each `every`-th observation."""
        options = {"evaluation": 0, "episode": episode, "episodes": episodes}
        obs, info = self.env.reset(options=options)
        plain = obs if self.twin is None else self.twin.reset(options=options)[0]
        kept: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        actions, rewards, ended = [], [], False
        while not ended:
            if len(actions) % every == 0:
                kept.append((obs, plain, self.env.segmentation()))
            action = choose(obs)
            obs, reward, terminated, truncated, info = self.env.step(action)
            plain = obs if self.twin is None else self.twin.step(action)[0]
            actions.append(action)
            rewards.append(reward)
            ended = terminated or truncated
        seen, plainly, truth = (np.stack(values) for values in zip(*kept, strict=True))
        return Recording(
            shift=self.env.shift,
            steps=np.arange(len(kept)) * every,
            obs=seen,
            plain=None if self.twin is None else plainly,
            truth=truth,
            actions=np.stack(actions),
            rewards=np.array(rewards),
            shown=info,
        )

    def close(self) -> None:
        """Free both simulations."""
        self.env.close()
        if self.twin is not None:
            self.twin.close()


def by(policy: Policy) -> Choose:
    """The policy's mean."""

    def choose(obs: np.ndarray) -> np.ndarray:
        return mean_actions(policy, obs[None])[0]

    return choose


def again(actions: np.ndarray) -> Choose:
    """The actions (T, A) one after the other, whatever is seen."""
    following = iter(actions)
    return lambda _: next(following)
