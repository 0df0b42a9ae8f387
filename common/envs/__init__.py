"""Benchmark environments; importing this registers their gymnasium ids, DMCGB/<task>-<shift>-v0."""

from typing import Any

import gymnasium

from common.config.shifts import ROBOT_TASKS, shifts_of

BENCHMARK_TASKS = (
    "walker_walk",
    "walker_stand",
    "cartpole_swingup",
    "ball_in_cup_catch",
    "finger_spin",
    "cheetah_run",
)

# A step of a robotic task is an agent step already.
_ROBOT_STEPS: dict[str, Any] = {"action_repeat": 1, "episode_steps": 50}

for _task in (*BENCHMARK_TASKS, *ROBOT_TASKS):
    for _shift in shifts_of(_task):
        gymnasium.register(
            id=f"DMCGB/{_task}-{_shift}-v0",
            entry_point="common.envs.benchmark:BenchmarkEnv",
            kwargs={"task": _task, "shift": _shift} | (_ROBOT_STEPS if _task in ROBOT_TASKS else {}),
        )
