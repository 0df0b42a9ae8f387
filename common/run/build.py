"""Makes the parts of a run from its configuration."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from common.config.registry import agent_class
from common.config.schema import Config
from common.data.overlay_bank import OverlayBank
from common.data.replay import Replay, check_memory, choose_device, replay_bytes
from common.envs.processes import TrainingEnv
from common.errors import UserError
from common.rl.sac import SAC, learns, parameters_of
from common.run.evaluate import Evaluator


@dataclass(frozen=True)
class Parts:
    """What a `Trainer` joins."""

    env: TrainingEnv
    agent: Any
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
    device = torch.device(config.device)
    env = TrainingEnv(env_arguments(config) | {"shift": "train", "seed": config.seed}, config.env.ahead == 1)
    try:
        storage = replay_storage(config, env.action_size)
        size = replay_size(config, env.action_size) / 1e9
        announce(f"replay: {config.replay.capacity:,} transitions take {size:.2f} GB on {storage}")
        images = build_images(config)
        return Parts(
            env=env,
            agent=build_agent(config, env.action_size, images),
            replay=Replay(
                config.replay.capacity,
                frame_shape(config),
                env.action_size,
                episode_steps=episode_length(config),
                device=device,
                storage=storage,
                seed=config.seed,
                frames=config.env.frames,
            ),
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


def build_agent(config: Config, action_size: int, images: Images) -> Any:
    """The configured agent; its initial weights are a function of the seed."""
    torch.manual_seed(config.seed)
    agent = agent_class(config.agent)(config, action_size, images.draw, config.device)
    if config.losses.keys() != set(agent.LOSSES):
        raise UserError(
            f"agent {config.agent} computes {', '.join(agent.LOSSES)}; losses: must weigh exactly these"
        )
    check_networks(agent)
    return agent


def check_networks(agent: SAC) -> None:
    """Make sure that an agent's networks are all saved, and learn but for targets and frozen weights.

    Raises:
        UserError: one is not registered, or no optimiser moves it.
    """
    registered = {part for network in agent.networks.values() for part in network.modules()}
    for name, value in vars(agent).items():
        if isinstance(value, nn.Module) and value not in registered:
            raise UserError(f"checkpoints would lack the network '{name}': put it into self.networks")
    moved = {id(weight) for optimizer in agent.optimizers.values() for weight in parameters_of(optimizer)}
    for name, network in agent.networks.items():
        learning = (weight for weight in network.parameters() if weight.requires_grad)
        if learns(name) and any(id(weight) not in moved for weight in learning):
            raise UserError(
                f"no optimiser moves the network '{name}': give one its parameters with add_param_group, "
                "or freeze it with requires_grad_(False)"
            )


def build_images(config: Config) -> OverlayBank:
    """The bank of overlay images."""
    return OverlayBank(
        config.data.overlay_folder(),
        size=config.env.image_size,
        capacity=config.data.overlay_bank,
        seed=config.seed,
        device=torch.device(config.device),
    )


def build_evaluator(config: Config) -> Evaluator:
    """The evaluation environments of a run."""
    shifts, episodes = config.eval.shifts, config.eval.episodes
    return Evaluator(evaluation_arguments(config), shifts, episodes, config.eval.envs, config.eval.processes)


def evaluation_arguments(config: Config) -> dict[str, Any]:
    """Arguments of the BenchmarkEnv in which a run is evaluated, but for its shift."""
    seed = config.seed + config.eval.seed_offset
    return env_arguments(config) | {"seed": seed, "clips": config.eval.clips}


def env_arguments(config: Config) -> dict[str, Any]:
    """Arguments of the BenchmarkEnv but for its shift, seed and clips."""
    env = config.env
    return {
        "task": config.task,
        "model": env.model,
        "action_repeat": env.action_repeat,
        "frames": env.frames,
        "image_size": env.frame_size,
        "episode_steps": env.episode_steps,
        "action_axes": env.action_axes,
        "camera": env.camera,
        "view_strength": env.view_strength,
        "shadow_size": env.shadow_size,
        "data_root": config.data.root,
    }


def frame_shape(config: Config) -> tuple[int, int, int]:
    """One rendered frame, (3, H, W)."""
    return (3, config.env.frame_size, config.env.frame_size)


def episode_length(config: Config) -> int:
    """Agent steps of an episode that ends by time."""
    return -(-config.env.episode_steps // config.env.action_repeat)


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
