"""Makes the parts of a run from its configuration."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from common.config.registry import agent_class
from common.config.schema import Config
from common.config.shifts import clips_of, presets_of
from common.data.overlay_bank import OverlayBank
from common.data.replay import Replay, check_memory, choose_device, replay_bytes
from common.envs import backgrounds
from common.envs.benchmark import BenchmarkEnv
from common.envs.processes import EnvPool, TrainingEnv
from common.errors import UserError
from common.rl import soundness
from common.rl.sac import SAC
from common.run.derived import (
    env_arguments,
    episode_length,
    evaluation_arguments,
    evaluations,
    frame_shape,
)
from common.run.evaluate import Evaluator


@dataclass(frozen=True)
class Parts:
    """What a `Trainer` joins."""

    env: TrainingEnv
    agent: SAC
    replay: Replay
    images: OverlayBank
    evaluator: Evaluator

    def close(self) -> None:
        """End the environments' processes."""
        self.env.close()
        self.evaluator.close()


def build(config: Config, announce: Callable[[str], None] = lambda _: None) -> Parts:
    """Environments, agent, replay and overlay bank of a configuration without any `auto`.

    `announce` gets the replay's size before it is allocated.

    Raises:
        UserError: data, memory or names do not allow the run.
    """
    check_clips(config, evaluations(config))
    env = TrainingEnv(env_arguments(config) | {"shift": "train", "seed": config.seed}, config.env.ahead == 1)
    try:
        replay = build_replay(config, env.action_size, announce)
        images = build_images(config)
        return Parts(
            env=env,
            agent=build_agent(config, env.action_size, images),
            replay=replay,
            images=images,
            evaluator=build_evaluator(config),
        )
    except BaseException:
        env.close()
        raise


class Images(Protocol):
    """Where overlay images come from; an `OverlayBank`, usually."""

    def draw(self, count: int) -> Tensor:
        """The next images, uint8 (count, 3, size, size)."""
        ...


def build_agent(config: Config, action_size: int, images: Images) -> SAC:
    """The configured agent; its initial weights are a function of the seed."""
    torch.manual_seed(config.seed)
    agent = agent_class(config.agent)(config, action_size, images.draw, config.device)
    if config.losses.keys() != set(agent.LOSSES):
        raise UserError(
            f"agent {config.agent} computes {', '.join(agent.LOSSES)}; losses: must weigh exactly these"
        )
    soundness.check(agent, agent.optimizers)
    return agent


def build_images(config: Config) -> OverlayBank:
    """The bank of overlay images."""
    return OverlayBank(
        config.data.overlay_folder(),
        size=config.env.image_size,
        capacity=config.data.overlay_bank,
        seed=config.seed,
        device=torch.device(config.device),
    )


def check_clips(config: Config, evaluations: int) -> int:
    """Decode the clips that so many evaluations show into the cache; returns how many they are.

    Raises:
        UserError: one cannot be shown, or there is none.
    """
    root = backgrounds.data_root(config.data.root)
    episodes = range(evaluations * config.eval.episodes)
    shown: dict[str, set[int]] = {}
    for shift in config.eval.shifts:
        if source := clips_of(shift):
            first = backgrounds.first_number(config.seed) if presets_of(shift) else 0
            shown.setdefault(source, set()).update(first + number for number in episodes)
    return sum(
        backgrounds.check_clips(root, source, config.eval.clips, sorted(numbers), config.env.frame_size)
        for source, numbers in shown.items()
    )


def build_replay(
    config: Config, action_size: int, announce: Callable[[str], None] = lambda _: None
) -> Replay:
    """An empty replay of the configured capacity, where it fits; `announce` gets its size beforehand.

    Raises:
        UserError: there is not enough memory, with the numbers.
    """
    storage = replay_storage(config, action_size)
    size = replay_size(config, action_size) / 1e9
    announce(f"replay: {config.replay.capacity:,} transitions take {size:.2f} GB on {storage}")
    return Replay(
        config.replay.capacity,
        frame_shape(config),
        action_size,
        episode_steps=episode_length(config),
        device=torch.device(config.device),
        storage=storage,
        seed=config.seed,
        frames=config.env.frames,
    )


def build_env(config: Config) -> BenchmarkEnv:
    """The configured training environment, in this process."""
    return BenchmarkEnv(**env_arguments(config), shift="train", seed=config.seed)


def build_evaluation_env(config: Config, shift: str) -> BenchmarkEnv:
    """The environment of a run's evaluation under a shift, in this process.

    Its `reset(options={"evaluation": 0, "episode": k, "episodes": n})` begins the k-th of n episodes that
    `smg eval` plays.
    """
    return BenchmarkEnv(**evaluation_arguments(config), shift=shift)


def build_evaluator(
    config: Config, pool: Callable[[list[dict[str, Any]], int], EnvPool] = EnvPool
) -> Evaluator:
    """The evaluation environments of a run, in a pool of the usual or another kind."""
    evaluation = config.eval
    sizes = evaluation.shifts, evaluation.episodes, evaluation.envs, evaluation.processes
    return Evaluator(evaluation_arguments(config), *sizes, pool)


def replay_size(config: Config, action_size: int) -> int:
    """Bytes that the replay takes."""
    return replay_bytes(
        config.replay.capacity, frame_shape(config), action_size, episode_length(config), config.env.frames
    )


def replay_storage(config: Config, action_size: int) -> torch.device:
    """Where the replay's frames will lie.

    Raises:
        UserError: there is not enough memory, with the numbers.
    """
    size = replay_size(config, action_size)
    storage = choose_device(size, config.replay.device, torch.device(config.device))
    check_memory(size, storage)
    return storage
