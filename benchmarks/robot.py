"""Robotic tasks: what a scripted and a random policy score, and environment steps per second beside walker.

python -m benchmarks.robot [--episodes 100] [--rounds 7] [--steps 50] [--json FILE]

Tasks are timed in turn, round by round, so that a busy machine slows them alike; ratios are taken within a
round.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.machine import command_line, machine, write_json
from common import gl
from common.config.shifts import ROBOT_TASKS
from common.envs.benchmark import BenchmarkEnv

EPISODE_STEPS = 50
AXES = ("xy", "xyz")


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--episodes", type=int, default=100, help="per task, action axes and policy")
    parser.add_argument("--rounds", type=int, default=7, help="medians are taken over them")
    parser.add_argument("--steps", type=int, default=50, help="agent steps per task and round")
    arguments = parser.parse_args()
    renderer = gl.select_backend()
    report: dict[str, Any] = {
        "machine": machine(("mujoco", "dm_control", "numpy", "gymnasium"))
        | {"renderer": renderer.name, "backend": renderer.backend},
        "episodes": arguments.episodes,
        "policies": [
            play(task, axes, policy, arguments.episodes)
            for task in ROBOT_TASKS
            for axes in AXES
            for policy in ("scripted", "random")
        ],
        "speed": speeds(arguments.rounds, arguments.steps),
    }
    for name, value in report["machine"].items():
        print(f"{name}: {value}")
    for row in report["policies"]:
        rates = ", ".join(f"{name} {rate:.2f}" for name, rate in row["rates"].items())
        returns = f"{row['mean']:7.1f} ± {row['sd']:5.1f}, least {row['least']:7.1f}"
        print(f"{row['task']:17} {row['axes']:4} {row['policy']:9} return {returns}; {rates}")
    for task, row in report["speed"].items():
        rate, ratio = row["steps_per_second"], row["step_ratio"]
        print(f"{task:17} {rate:6.1f} environment steps/s, a step takes {ratio:.2f} of walker's")
    if arguments.json is not None:
        write_json(report, arguments.json)


def play(task: str, axes: str, policy: str, episodes: int) -> dict[str, Any]:
    """Returns over seeded episodes, and the shares of episodes in which success or insertion was reported."""
    # MuJoCo reads MUJOCO_GL at import, so these wait for select_backend.
    from common.envs import robot
    from common.envs.robot.controller import scripted_action

    simulator = robot.build(task, np.random.RandomState(0), axes, None)
    environment, random = simulator.environment, np.random.RandomState(1)
    act: Callable[[], np.ndarray] = {
        "scripted": lambda: scripted_action(environment.task, environment.physics),
        "random": lambda: random.uniform(-1, 1, simulator.action_size),
    }[policy]
    returns, reports = [], []
    for _ in range(episodes):
        simulator.reset()
        total, seen = 0.0, {}
        for _ in range(EPISODE_STEPS):
            total += simulator.step(act()).reward
            info = simulator.appearance.info(simulator.physics)
            seen = {key: value or seen.get(key, False) for key, value in info.items()}
        returns.append(total)
        reports.append(seen)
    return {
        "task": task,
        "axes": axes,
        "policy": policy,
        "mean": statistics.fmean(returns),
        "sd": statistics.pstdev(returns),
        "least": min(returns),
        "rates": {key: statistics.fmean(report[key] for report in reports) for key in reports[0]},
        "returns": [round(value, 3) for value in returns],
    }


def speeds(rounds: int, steps: int) -> dict[str, dict[str, float]]:
    """Agent steps per second of each task at 84x84, resets included, and its time per step over walker's."""
    envs = {
        "walker_walk": BenchmarkEnv("walker_walk", action_repeat=4),
        **{task: BenchmarkEnv(task, action_repeat=1, episode_steps=EPISODE_STEPS) for task in ROBOT_TASKS},
    }
    random = np.random.RandomState(0)
    for env in envs.values():
        env.reset()
    seconds: dict[str, list[float]] = {task: [] for task in envs}
    for _ in range(rounds):
        for task, env in envs.items():
            begin = time.perf_counter()
            for _ in range(steps):
                _, _, terminated, truncated, _ = env.step(random.uniform(-1, 1, env.action_size))
                if terminated or truncated:
                    env.reset()
            seconds[task].append((time.perf_counter() - begin) / steps)
    for env in envs.values():
        env.close()
    return {
        task: {
            "steps_per_second": 1 / statistics.median(own),
            "step_ratio": statistics.median(np.divide(own, seconds["walker_walk"])),
        }
        for task, own in seconds.items()
    }


if __name__ == "__main__":
    main()
