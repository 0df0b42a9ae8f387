"""What follows from a run's configuration alone, without an agent or an environment: arguments and counts."""

from typing import Any

from common.config.schema import Config


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


def evaluation_arguments(config: Config) -> dict[str, Any]:
    """Arguments of the BenchmarkEnv in which a run is evaluated, but for its shift."""
    seed = config.seed + config.eval.seed_offset
    return env_arguments(config) | {"seed": seed, "order_seed": config.seed, "clips": config.eval.clips}


def frame_shape(config: Config) -> tuple[int, int, int]:
    """One rendered frame, (3, H, W)."""
    return (3, config.env.frame_size, config.env.frame_size)


def episode_length(config: Config) -> int:
    """Agent steps of an episode that ends by time."""
    return -(-config.env.episode_steps // config.env.action_repeat)


def evaluations(config: Config) -> int:
    """Evaluations of a run: one every `eval.every` agent steps, and one after the last."""
    return -(-config.train.steps // config.eval.every)
