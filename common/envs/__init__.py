"""Benchmark environments; importing this registers their gymnasium ids, DMCGB/<task>-<shift>-v0."""

import gymnasium

from common.envs.shifts import SHIFTS

BENCHMARK_TASKS = (
    "walker_walk",
    "walker_stand",
    "cartpole_swingup",
    "ball_in_cup_catch",
    "finger_spin",
    "cheetah_run",
)

for _task in BENCHMARK_TASKS:
    for _shift in SHIFTS:
        gymnasium.register(
            id=f"DMCGB/{_task}-{_shift}-v0",
            entry_point="common.envs.benchmark:BenchmarkEnv",
            kwargs={"task": _task, "shift": _shift},
        )
