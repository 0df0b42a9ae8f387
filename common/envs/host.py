"""Several environments as one, and the array their observations lie in."""

import mmap
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from common.envs.benchmark import BenchmarkEnv


class Shapes(NamedTuple):
    """Of the observations of all environments together, (N, 3 * frames, H, W), and of one action."""

    observations: tuple[int, ...]
    action_size: int


class Host:
    """Environments in this process. `observations`, uint8 (N, 3 * frames, H, W), has each one's latest.

    Args:
        arguments: of each BenchmarkEnv. All must agree on the sizes of observation and action.
    """

    def __init__(self, arguments: Sequence[dict[str, Any]]) -> None:
        self.envs = [BenchmarkEnv(**each) for each in arguments]
        [shape] = {env.obs_shape for env in self.envs}
        [action_size] = {env.action_size for env in self.envs}
        self.shapes = Shapes((len(self.envs), *shape), action_size)
        self.observations = np.zeros(self.shapes.observations, np.uint8)

    def reset(self, requests: list[tuple[int, dict[str, Any] | None]]) -> list[dict[str, Any]]:
        """Reset environments by number, each with its options; their infos."""
        infos = []
        for number, options in requests:
            self.observations[number], info = self.envs[number].reset(options=options)
            infos.append(info)
        return infos

    def step(self, requests: list[tuple[int, np.ndarray]]) -> list[tuple[float, bool, bool, dict[str, Any]]]:
        """Step environments by number, each with its action; reward, terminated, truncated, info of each."""
        results = []
        for number, action in requests:
            self.observations[number], *result = self.envs[number].step(action)
            results.append(tuple(result))
        return results

    def segmentation(self, requests: list[tuple[int, None]]) -> list[np.ndarray]:
        """The true foreground, bool (image_size, image_size), of environments by number."""
        return [self.envs[number].segmentation() for number, _ in requests]

    def state_dict(self) -> list[dict[str, Any]]:
        """The environments' states, in order."""
        return [env.state_dict() for env in self.envs]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Continue where `state_dict` was taken."""
        for env, state in zip(self.envs, states, strict=True):
            env.load_state_dict(state)

    def close(self) -> None:
        """Free the simulations."""
        for env in self.envs:
            env.close()


def shared_observations(frames: int, shapes: Shapes) -> np.ndarray:
    """The array behind a file descriptor that several processes have mapped."""
    memory = mmap.mmap(frames, int(np.prod(shapes.observations)))
    return np.frombuffer(memory, np.uint8).reshape(shapes.observations)
