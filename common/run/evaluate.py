"""Zero-shot evaluation: the policy mean under every visual shift, many environments at a time.

Episode k of evaluation number n is fixed by (n, k), and the policy's arithmetic for one observation
does not depend on the others of its batch, so returns are the same however many environments step at
once and however many processes they are spread over.
"""

import logging
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from common.config.schema import Config
from common.config.shifts import ROBOT_NOTE, ROBOT_TASKS, whole_groups
from common.envs.processes import EnvironmentDied, EnvPool
from common.run.console import returns_by_shift
from common.run.published import NOTHING, Comparison, compared, score_text
from common.run.records import Record, diverged_among

logger = logging.getLogger(__name__)


class Policy(Protocol):
    """What evaluation needs of an agent."""

    device: torch.device

    def act(self, obs: Tensor, sample: bool) -> Tensor:
        """Actions for observations."""
        ...


ROWS = 8
"""Observations that a policy sees at a time; zeros fill up fewer."""


@torch.no_grad()
def mean_actions(policy: Policy, obs: np.ndarray) -> np.ndarray:
    """The policy's mode for uint8 observations (N, 3F, H, W): float32 (N, A).

    An observation's action does not depend, not even in its last bit, on how many others it is asked with.
    Networks run on batches of one size grant that; libraries choose another algorithm for another size.
    """
    actions = []
    for start in range(0, len(obs), ROWS):
        part = torch.from_numpy(obs[start : start + ROWS])
        rows = torch.zeros(ROWS, *part.shape[1:], dtype=part.dtype)
        rows[: len(part)] = part
        actions.append(policy.act(rows.to(policy.device), sample=False)[: len(part)].cpu().numpy())
    return np.concatenate(actions)


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
        pool: makes the pool of environments; one of its own may change what the policy sees.
    """

    def __init__(
        self,
        arguments: Record,
        shifts: tuple[str, ...],
        episodes: int,
        envs: int,
        processes: int,
        pool: Callable[[list[Record], int], EnvPool] = EnvPool,
    ) -> None:
        self.shifts = shifts
        self.episodes = episodes
        self._arguments = arguments
        self._envs = envs
        self._processes = processes
        self._copies = max(1, min(episodes, envs // len(shifts)))  # environments per shift
        self._make_pool = pool
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
            step = pool.step(mean_actions(policy, obs), playing)
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
            self._pool = self._make_pool(arguments, self._processes)
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


def summary_table(
    records: list[Record],
    config: Config,
    sessions: Sequence[Mapping[str, Any]],
    warning: str | None = None,
    learnt: Mapping[str, Config | str] = NOTHING,
) -> str:
    """Returns per shift as text, beside the paper's number where the run meets its conditions.

    Args:
        records: of one evaluation.
        config: the run's, with as many steps as it had when it was evaluated.
        sessions: provenances, which tell the images that it learnt from and the clips that it was shown.
        warning: what else to know of the numbers, in a line.
        learnt: see `compared`.
    """
    by_shift = returns_by_shift(records)
    width = max(_WIDTH, *map(len, by_shift))
    lines = [f"{'shift':<{width}} {'return':>15}   paper"]
    episodes, shown = 0, False
    others: dict[str, list[str]] = {}
    for shift, returns in by_shift.items():
        episodes = len(returns)
        spread = f" ± {statistics.stdev(returns):<5.1f}" if episodes > 1 else " " * 8
        found = compared(config, shift, sessions=sessions, learnt=learnt)
        paper = "-"
        if found is not None and found.unmet:
            others.setdefault(_difference(found), []).append(shift)
        elif found is not None:
            paper, shown = f"{score_text(found.score)} ({found.score.source})", True
        lines.append(f"{shift:<{width}} {statistics.fmean(returns):>7.1f}{spread}   {paper}")
    for name, members in whole_groups(by_shift).items():
        mean = statistics.fmean(statistics.fmean(by_shift[shift]) for shift in members)
        lines.append(f"mean over the {len(members)} {name} shifts: {mean:.1f}")
    ours = f"mean ± sd over {episodes} episodes" if episodes > 1 else "one episode"
    lines.append(f"ours: {ours} of one seed" + ("; paper: mean ± sd over seeds" if shown else ""))
    lines += [f"no paper beside {', '.join(shifts)}: {difference}" for difference, shifts in others.items()]
    lines += [warning] if warning else []
    if diverged := diverged_among(records):
        lines.append(
            f"the simulation diverged in {diverged} of {len(records)} episodes, whose returns end there"
        )
    if config.task in ROBOT_TASKS:
        lines.append(ROBOT_NOTE)
    return "\n".join(lines)


_WIDTH = 12
"""Of the column of shifts, if their names are not longer."""


def _difference(found: Comparison) -> str:
    """Where a printed score is from, and the first conditions of it that are not met."""
    more = f" and {len(found.unmet) - 2} more conditions" if len(found.unmet) > 2 else ""
    return f"{found.score.source} is of {', '.join(map(str, found.unmet[:2]))}{more}"
