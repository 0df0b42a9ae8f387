"""Zero-shot evaluation: the policy mean under every visual shift, many environments at a time.

Episode k of evaluation number n is fixed by (n, k), and the policy's arithmetic for one observation
does not depend on the others of its batch, so returns are the same however many environments step at
once and however many processes they are spread over.
"""

import logging
import statistics
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from common.config.shifts import ROBOT_NOTE, ROBOT_TASKS
from common.envs.processes import EnvironmentDied, EnvPool
from common.run.console import returns_by_shift
from common.run.published import published_score
from common.run.records import Record

logger = logging.getLogger(__name__)


class Policy(Protocol):
    """What evaluation needs of an agent."""

    device: torch.device

    def act(self, obs: Tensor, sample: bool) -> Tensor:
        """Actions for observations."""
        ...


class FrameObserver(Protocol):
    """Looks at frames of each shift's first episode."""

    def due(self, step: int) -> bool:
        """Whether it looks before the action of this agent step of an episode."""
        ...

    def observe(self, shift: str, step: int, obs: np.ndarray, truth: np.ndarray) -> None:
        """Take an observation, uint8 (3F, H, W), and its true foreground, bool (H, W)."""
        ...


class Evaluator:
    """Evaluates policies in environments that are kept from one evaluation to the next.

    Args:
        arguments: of the BenchmarkEnv, all but its shift.
        shifts: the visual shifts.
        episodes: per shift.
        envs: environments that step together, at most.
        processes: over which they are spread; 0 keeps them in this process.
    """

    def __init__(
        self, arguments: Record, shifts: tuple[str, ...], episodes: int, envs: int, processes: int
    ) -> None:
        self.shifts = shifts
        self.episodes = episodes
        self._arguments = arguments
        self._envs = envs
        self._processes = processes
        self._copies = max(1, min(episodes, envs // len(shifts)))  # environments per shift
        self._pool: EnvPool | None = None

    def run(
        self,
        policy: Policy,
        number: int,
        check: Callable[[], None] = lambda: None,
        progress: Callable[[int, int], None] = lambda done, of: None,
        observer: FrameObserver | None = None,
    ) -> list[Record]:
        """Evaluation number `number`: every episode's shift, seed, episode, return, length and background.

        `check` is called between steps and may raise to stop early. A dead environment process is
        replaced and its episodes are played again, once; an `observer` then sees their frames again.
        """
        records: list[Record] = []
        total = len(self.shifts) * self.episodes
        for jobs in self._waves():
            progress(len(records), total)
            try:
                records += self._play(jobs, policy, number, check, observer)
            except EnvironmentDied as error:
                logger.warning("an evaluation environment died (%s); its episodes are played again", error)
                self.close()
                records += self._play(jobs, policy, number, check, observer)
        progress(total, total)
        return records

    def _waves(self) -> Iterator[list[tuple[int, int]]]:
        """(environment, episode) pairs that play together; an environment plays one at a time."""
        for first in range(0, self.episodes, self._copies):
            block = [
                (shift * self._copies + episode - first, episode)
                for shift in range(len(self.shifts))
                for episode in range(first, min(first + self._copies, self.episodes))
            ]
            for start in range(0, len(block), self._envs):
                yield block[start : start + self._envs]

    @torch.no_grad()
    def _play(
        self,
        jobs: list[tuple[int, int]],
        policy: Policy,
        number: int,
        check: Callable[[], None],
        observer: FrameObserver | None,
    ) -> list[Record]:
        pool = self._open()
        playing = [env for env, _ in jobs]
        options = [
            {"evaluation": number, "episode": episode, "episodes": self.episodes} for _, episode in jobs
        ]
        obs, infos = pool.reset(playing, options)
        records = {
            env: {
                "shift": self.shifts[env // self._copies],
                "seed": self._arguments["seed"],
                "episode": episode,
                "return": 0.0,
                "length": 0,
                "background": info["background"],
            }
            for (env, episode), info in zip(jobs, infos, strict=True)
        }
        while playing:
            check()
            if observer is not None:
                self._show(observer, pool, [records[env] for env in playing], playing, obs)
            actions = policy.act(torch.from_numpy(obs).to(policy.device), sample=False)
            step = pool.step(actions.cpu().numpy(), playing)
            for env, reward, info in zip(playing, step.rewards, step.infos, strict=True):
                records[env]["return"] += float(reward)
                records[env]["length"] += 1
                records[env] |= info  # as it is at the episode's end
            going_on = ~(step.terminated | step.truncated)
            playing = [env for env, on in zip(playing, going_on, strict=True) if on]
            obs = step.obs[going_on]
        return list(records.values())

    def _show(
        self,
        observer: FrameObserver,
        pool: EnvPool,
        records: list[Record],
        playing: list[int],
        obs: np.ndarray,
    ) -> None:
        """Let the observer see those of the playing environments that it asks for."""
        rows = [
            row
            for row, record in enumerate(records)
            if record["episode"] == 0 and observer.due(record["length"])
        ]
        if rows:
            truths = pool.segmentation([playing[row] for row in rows])
            for row, truth in zip(rows, truths, strict=True):
                observer.observe(records[row]["shift"], records[row]["length"], obs[row], truth)

    def _open(self) -> EnvPool:
        if self._pool is None:
            arguments = [
                self._arguments | {"shift": shift} for shift in self.shifts for _ in range(self._copies)
            ]
            self._pool = EnvPool(arguments, self._processes)
        return self._pool

    @property
    def action_size(self) -> int:
        """Values per action."""
        return self._open().action_size

    def close(self) -> None:
        """End the environments; they start again when needed."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None


def summary_table(records: list[Record], agent: str, task: str) -> str:
    """Returns per shift as text, beside the paper's number where it prints one."""
    lines = [f"{'shift':<12} {'return':>15}   {'paper':<28}"]
    count = 0
    for shift, returns in returns_by_shift(records).items():
        count = len(returns)
        deviation = statistics.stdev(returns) if count > 1 else 0.0
        published = published_score(agent, task, shift)
        paper = "-"
        if published is not None:
            spread = "" if published.deviation is None else f" ± {published.deviation:g}"
            paper = f"{published.mean:g}{spread} ({published.source})"
        lines.append(
            f"{shift:<12} {statistics.fmean(returns):>7.1f} ± {deviation:<5.1f}   {paper:<28}".rstrip()
        )
    episodes = "episode" if count == 1 else "episodes"
    lines.append(f"ours: mean ± sd over {count} {episodes} of one seed; paper: mean ± sd over seeds")
    if task in ROBOT_TASKS:
        lines.append(ROBOT_NOTE)
    return "\n".join(lines)
