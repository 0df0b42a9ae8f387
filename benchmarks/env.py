"""Environment steps per second under each visual shift against `train`, and the time of one chroma key.

python -m benchmarks.env [--task walker_walk] [--rounds 7] [--steps 50] [--json FILE]

All shifts are timed in turn, round by round, so that a busy machine slows them alike; ratios are taken
within a round. Clips come from $SMG_DATA, else they are procedural.
"""

import statistics
import time
from typing import Any

import numpy as np

from benchmarks.machine import command_line, machine, write_json
from common import gl
from common.config.shifts import SHIFTS
from common.envs import chroma
from common.envs.benchmark import BenchmarkEnv

KEYS_PER_ROUND = 500


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--task", default="walker_walk")
    parser.add_argument("--rounds", type=int, default=7, help="medians are taken over them")
    parser.add_argument("--steps", type=int, default=50, help="agent steps per shift and round")
    arguments = parser.parse_args()
    renderer = gl.select_backend()
    report = {
        "machine": machine(("mujoco", "dm_control", "numpy", "gymnasium", "av"))
        | {"renderer": renderer.name, "backend": renderer.backend},
        "task": arguments.task,
        "shifts": shifts(arguments.task, arguments.rounds, arguments.steps),
        "chroma_key_microseconds": chroma_keys(arguments.rounds),
    }
    for name, value in report["machine"].items():
        print(f"{name}: {value}")
    print(f"\n{arguments.task}, one frame per agent step, median of {arguments.rounds} rounds")
    for shift, row in report["shifts"].items():
        print(
            f"{shift:11} {row['frames_per_second']:7.1f} frames/s, a step takes {row['step_ratio']:.3f} of "
            f"train's, a reset {row['reset_milliseconds']:.0f} ms ({row['background']})"
        )
    for pixels, microseconds in report["chroma_key_microseconds"].items():
        print(f"chroma key at 84x84, {pixels}: {microseconds:.1f} µs")
    if arguments.json is not None:
        write_json(report, arguments.json)


def shifts(task: str, rounds: int, steps: int) -> dict[str, dict[str, Any]]:
    """Frames per second of each shift, and its time per step over that of train."""
    envs = {shift: BenchmarkEnv(task, shift) for shift in SHIFTS}
    seconds: dict[str, list[float]] = {shift: [] for shift in SHIFTS}
    resets: dict[str, list[float]] = {shift: [] for shift in SHIFTS}
    backgrounds = {}
    actions = np.random.default_rng(0).uniform(-1, 1, (steps, envs["train"].action_size)).astype(np.float32)
    for shift, env in envs.items():
        _, info = env.reset()
        backgrounds[shift] = info["background"]
        env.step(actions[0])
    for number in range(rounds):
        for shift in SHIFTS[number % len(SHIFTS) :] + SHIFTS[: number % len(SHIFTS)]:
            env = envs[shift]
            begin = time.perf_counter()
            # The same episode again: a new clip would be decoded once in its life, a new preset is put on.
            env.reset(seed=number if env.shift.startswith("color") else 0)
            resets[shift].append(time.perf_counter() - begin)
            begin = time.perf_counter()
            for action in actions:
                env.step(action)
            seconds[shift].append((time.perf_counter() - begin) / steps)
    for env in envs.values():
        env.close()
    return {
        shift: {
            "frames_per_second": 1 / statistics.median(seconds[shift]),
            "step_ratio": statistics.median(
                own / train for own, train in zip(seconds[shift], seconds["train"], strict=True)
            ),
            "reset_milliseconds": 1000 * statistics.median(resets[shift]),
            "background": backgrounds[shift],
        }
        for shift in SHIFTS
    }


def chroma_keys(rounds: int) -> dict[str, float]:
    """Microseconds per key of a rendered green screen, and of random colours, which miss every cache."""
    from common.envs import looks
    from common.envs.camera import Camera
    from common.envs.tasks import build

    simulator = build("walker_walk", "dmcgb", np.random.RandomState(0))
    looks.wear(simulator.physics, looks.look("video_hard", None))
    random = np.random.default_rng(0)
    backdrop = random.integers(0, 256, (3, 84, 84), np.uint8)
    frames = {
        "a rendered frame": Camera(simulator.physics, 0, 84).frame(),
        "random colours": random.integers(0, 256, (3, 84, 84), np.uint8),
    }
    chroma.table()
    return {name: statistics.median(_key_times(frame, backdrop, rounds)) for name, frame in frames.items()}


def _key_times(frame: np.ndarray, backdrop: np.ndarray, rounds: int) -> list[float]:
    times = []
    for _ in range(rounds):
        copies = [frame.copy() for _ in range(KEYS_PER_ROUND)]
        begin = time.perf_counter()
        for copy in copies:
            chroma.key(copy, backdrop)
        times.append(1e6 * (time.perf_counter() - begin) / KEYS_PER_ROUND)
    return times


if __name__ == "__main__":
    main()
