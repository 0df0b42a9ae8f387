"""Robotic tasks: what a scripted and a random policy score, and environment steps per second beside walker.

python -m benchmarks.robot [--episodes 100] [--rounds 5] [--steps 100] [--json results/robot/FILE.json]
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from common import gl
from common.envs.benchmark import BenchmarkEnv
from common.envs.shifts import ROBOT_TASKS

EPISODE_STEPS = 50
AXES = ("xy", "xyz")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--episodes", type=int, default=100, help="per task, action axes and policy")
    parser.add_argument("--rounds", type=int, default=5, help="of timing; the median counts")
    parser.add_argument("--steps", type=int, default=100, help="agent steps per task and round of timing")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    renderer = gl.select_backend()
    report: dict[str, Any] = {
        "machine": machine() | {"renderer": renderer.name, "backend": renderer.backend},
        "episodes": arguments.episodes,
        "policies": [
            play(task, axes, policy, arguments.episodes)
            for task in ROBOT_TASKS
            for axes in AXES
            for policy in ("scripted", "random")
        ],
        "steps_per_second": speeds(arguments.rounds, arguments.steps),
    }
    print(json.dumps(report["machine"], indent=2))
    for row in report["policies"]:
        rates = ", ".join(f"{name} {rate:.2f}" for name, rate in row["rates"].items())
        returns = f"{row['mean']:7.1f} ± {row['sd']:5.1f}, least {row['least']:7.1f}"
        print(f"{row['task']:17} {row['axes']:4} {row['policy']:9} return {returns}; {rates}")
    walker = report["steps_per_second"]["walker_walk"]
    for task, rate in report["steps_per_second"].items():
        print(f"{task:17} {rate:6.1f} environment steps/s, {walker / rate:.2f} of walker's time per step")
    if arguments.json is not None:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


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


def speeds(rounds: int, steps: int) -> dict[str, float]:
    """Agent steps per second of each task at 84x84, resets included; rounds take turns."""
    envs = {
        "walker_walk": BenchmarkEnv("walker_walk", action_repeat=4),
        **{task: BenchmarkEnv(task, action_repeat=1, episode_steps=EPISODE_STEPS) for task in ROBOT_TASKS},
    }
    random = np.random.RandomState(0)
    for env in envs.values():
        env.reset()
    rates: dict[str, list[float]] = {task: [] for task in envs}
    for _ in range(rounds):
        for task, env in envs.items():
            begin = time.perf_counter()
            for _ in range(steps):
                _, _, terminated, truncated, _ = env.step(random.uniform(-1, 1, env.action_size))
                if terminated or truncated:
                    env.reset()
            rates[task].append(steps / (time.perf_counter() - begin))
    for env in envs.values():
        env.close()
    return {task: statistics.median(values) for task, values in rates.items()}


def machine() -> dict[str, Any]:
    """Processor and versions."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "processor": names[0].partition(": ")[2] if names else platform.machine(),
        "cores": len(names),
        "python": platform.python_version(),
        **{package: version(package) for package in ("mujoco", "dm_control", "numpy", "gymnasium")},
    }


if __name__ == "__main__":
    main()
