"""Zero-shot evaluation: the policy mean under every visual shift, many environments at a time.

Episode k of evaluation number n is fixed by (n, k), and the policy's arithmetic for one observation
does not depend on the others of its batch, so returns are the same however many environments step at
once and however many processes they are spread over.
"""

import statistics
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from common.console import returns_by_shift
from common.envs.processes import EnvPool
from common.study.published import published_score

Record = dict[str, Any]


class Policy(Protocol):
    """What evaluation needs of an agent."""

    device: torch.device

    def act(self, obs: Tensor, sample: bool) -> Tensor:
        """Actions for observations."""
        ...


class Evaluator:
    """Evaluates a policy in environments that are kept from one evaluation to the next.

    Args:
        make_pool: (shifts, one per environment) → pool.
        shifts: the visual shifts.
        episodes: per shift.
        envs: environments that step together.
        seed: of the evaluation environments.
    """

    def __init__(
        self,
        make_pool: Callable[[list[str]], EnvPool],
        shifts: tuple[str, ...],
        episodes: int,
        envs: int,
        seed: int,
    ) -> None:
        self.shifts = shifts
        self.episodes = episodes
        self.seed = seed
        self._copies = max(1, min(episodes, envs // len(shifts)))
        self._envs = min(envs, len(shifts) * self._copies)
        self._make_pool = make_pool
        self._pools: dict[tuple[str, ...], EnvPool] = {}

    def run(
        self,
        policy: Policy,
        number: int,
        check: Callable[[], None] = lambda: None,
        progress: Callable[[int, int], None] = lambda done, of: None,
    ) -> list[Record]:
        """Evaluation number `number`: every episode's shift, seed, number, return, length and background.

        `check` is called between steps and may raise to stop early.
        """
        jobs = [(shift, episode) for shift in self.shifts for episode in range(self.episodes)]
        records: list[Record] = []
        progress(0, len(jobs))
        for first in range(0, len(jobs), self._envs):
            records += self._together(jobs[first : first + self._envs], policy, number, check)
            progress(len(records), len(jobs))
        return records
