"""How long a run will take: updates are measured before it starts, everything else as it goes."""

import gc
import math
import os
import time
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch

from common.config.schema import Config
from common.data.replay import Replay
from common.rl.diagnosis import forked_random
from common.run.build import build_agent
from common.run.derived import episode_length, frame_shape
from common.run.device import out_of_memory
from common.run.progress import Progress

Kind = Literal["random", "burst", "step", "evaluation"]
"""A random step, an update of the burst, a step with an update, an evaluation."""

WINDOW = 200
"""The latest of a kind, of which the mean counts."""
UNTYPICAL = 4
"""The first of a kind in a session, which may allocate, compile or capture: these are not counted."""
LONG = 5.0
"""Seconds of the first updates from which timing them has cost enough."""


class Work(NamedTuple):
    """How many there are of each kind."""

    random: int
    burst: int
    step: int
    evaluation: int


def work_left(config: Config, progress: Progress) -> Work:
    """What a run still has to do."""
    train, every = config.train, config.eval.every
    learning_from = min(progress.updates_from(train.random_steps), train.steps)
    at_intervals = train.steps // every - progress.evaluated // every
    at_the_end = train.steps % every > 0 and progress.evaluated < train.steps
    has_burst = train.steps > learning_from and not progress.burst_done
    return Work(
        random=max(0, learning_from - progress.step),
        burst=max(0, train.burst_updates - progress.updates) if has_burst else 0,
        step=train.steps - max(learning_from, progress.step),
        evaluation=at_intervals + at_the_end,
    )


class UpdateSeconds(NamedTuple):
    """What the agent alone takes [s]: an update with all its parts, the mean update, a batch of actions."""

    full: float
    mean: float
    act: float


class Forecast:
    """What is left of a run in seconds.

    Each kind of work takes the mean of what the latest took; one that has not come yet is estimated from the
    seconds of an update and of a random step.

    Args:
        config: of the run.
        seconds: by kind, what one took in an earlier session; it is kept up to date here.
        update: what the agent takes, if that is known.
    """

    def __init__(self, config: Config, seconds: dict[str, float], update: UpdateSeconds | None) -> None:
        self.config = config
        self.seconds = seconds
        self.update = update
        self._seen: dict[str, int] = {}
        self._last = time.perf_counter()

    def lap(self, kind: Kind) -> None:
        """Book the time since the last lap, or the beginning, to one `kind` that was just done."""
        now = time.perf_counter()
        self.took(kind, now - self._last)
        self._last = now

    def took(self, kind: Kind, seconds: float) -> None:
        """Count one `kind` that took so many seconds."""
        self._seen[kind] = seen = self._seen.get(kind, 0) + 1
        counted = seen if kind == "evaluation" else seen - UNTYPICAL
        if counted > 0:
            mean = self.seconds.get(kind, seconds) if counted > 1 else seconds
            self.seconds[kind] = mean + (seconds - mean) / min(counted, WINDOW)

    def left(self, work: Work) -> dict[str, float] | None:
        """Seconds that each part of the work will take, by its name; None while one cannot be told."""
        evaluations = f"{work.evaluation} evaluation{'s' * (work.evaluation != 1)}"
        names = ("random steps", "burst of updates", f"{work.step} steps", evaluations)
        parts = {}
        for kind, count, name in zip(get_args(Kind), work, names, strict=True):
            each = self._seconds(kind)
            if count and each is None:
                return None
            parts[name] = count * (each or 0.0)
        return parts

    def _seconds(self, kind: Kind) -> float | None:
        if kind in self.seconds:
            return self.seconds[kind]
        random, update = self.seconds.get("random"), self.update
        if kind == "burst":
            return None if update is None else update.full
        if random is None or update is None or kind == "random":
            return None
        if kind == "step":
            beside = self.config.env.ahead == 1 and not self._shares_cores()
            return max(update.mean, random) + update.act if beside else update.mean + random + update.act
        return self._evaluation(random, update.act)

    def _shares_cores(self) -> bool:
        """Whether updates take all the cores, so that an environment beside them gains nothing."""
        return self.config.device == "cpu" and torch.get_num_threads() >= cores()

    def _evaluation(self, random: float, act: float) -> float:
        """Seconds of an evaluation, if its environments step like the training one."""
        evaluation = self.config.eval
        episodes = len(evaluation.shifts) * evaluation.episodes
        at_once = min(evaluation.envs, episodes)
        processes = max(1, min(evaluation.processes, at_once, cores()))
        per_step = at_once * random / processes + act
        return math.ceil(episodes / at_once) * episode_length(self.config) * per_step


def time_updates(config: Config, action_size: int) -> UpdateSeconds | None:
    """Time updates of an agent that is thrown away; None where there is no memory for a second one.

    It learns from noise, and no random generator moves, so the run that follows is the same.
    """
    try:
        with forked_random(torch.device(config.device)):
            return _time_updates(config, action_size)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        return None
    finally:
        gc.collect()  # an agent and its graphs refer to each other
        if config.device != "cpu":
            torch.cuda.empty_cache()


def _time_updates(config: Config, action_size: int) -> UpdateSeconds:
    device = torch.device(config.device)
    agent = build_agent(config, action_size, _NoiseImages(config.env.image_size, device))
    replay = _noise(config, action_size, device)
    first = config.train.random_steps  # where every part is due
    period = math.lcm(config.sac.actor_every, config.sac.target_every, agent.auxiliary_period())

    def update_pass() -> list[float]:
        seconds = []
        for step in range(first, first + min(period, 8)):
            if step % config.train.update_every:
                seconds.append(0.0)
                continue
            began = time.perf_counter()
            agent.update(replay.sample(agent.batch_size(step)), step)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - began)
        return seconds

    passes = [update_pass()]
    if config.compile != "eager" or sum(passes[0]) < LONG:  # the first one compiles, captures or allocates
        passes = []
        began = time.perf_counter()
        while not passes or (len(passes) < 4 and time.perf_counter() - began < 1):
            captured = len(agent.graphed_update.findings)
            seconds = update_pass()
            # A schedule that an agent draws may come, and be captured, in any pass; once in a run.
            if len(agent.graphed_update.findings) == captured:
                passes.append(seconds)
    obs = replay.sample(min(config.eval.envs, config.train.batch)).obs
    agent.act(obs, sample=False).cpu()  # which looks for the fastest convolutions, or allocates
    began = time.perf_counter()
    agent.act(obs, sample=False).cpu()
    act = time.perf_counter() - began
    means = np.mean(passes, axis=0)
    return UpdateSeconds(full=float(means[0]), mean=float(means.mean()), act=act)


class _NoiseImages(NamedTuple):
    """Overlay images of noise."""

    size: int
    device: torch.device

    def draw(self, count: int) -> torch.Tensor:
        """Noise, uint8 (count, 3, size, size)."""
        return torch.randint(256, (count, 3, self.size, self.size), dtype=torch.uint8, device=self.device)


def _noise(config: Config, action_size: int, device: torch.device) -> Replay:
    """A small replay of frames of noise."""
    random = np.random.default_rng(0)
    shape, frames = frame_shape(config), config.env.frames
    replay = Replay(
        8,
        shape,
        action_size,
        episode_steps=8,
        device=device,
        storage=device,
        seed=0,
        frames=frames,
    )
    replay.start_episode(random.integers(0, 256, shape, np.uint8))
    for _ in range(8):
        frame = random.integers(0, 256, shape, np.uint8)
        replay.add(random.uniform(-1, 1, action_size).astype(np.float32), 0.0, frame, False)
    return replay


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0))
