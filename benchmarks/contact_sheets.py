"""Pictures for docs: robotic tasks under their six looks, camera views, DMC-GB2's shifts, true foregrounds.

python -m benchmarks.contact_sheets [robot_looks] [views] [dmcgb2] [foregrounds] [--folder docs/images]

Without names all are drawn. Clips and colours are the benchmark's if $SMG_DATA is set.
"""

import argparse
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np

from common import gl
from common.config.loading import packaged_names
from common.config.shifts import (
    GEOMETRIC_SHIFTS,
    PHOTOMETRIC_SHIFTS,
    ROBOT_SHIFTS,
    ROBOT_TASKS,
    VIEW_SHIFTS,
)
from common.envs import BENCHMARK_TASKS
from common.envs.benchmark import BenchmarkEnv
from common.explain.draw import Panels, grid
from common.explain.files import save_picture

SEED = 3
ROBOT_MOMENTS = {"robot_reach": (0, 4), "robot_peg_in_box": (0, 22)}
VIEW_TASKS = ("walker_walk", "cheetah_run", "cartpole_swingup")
VIEW_MOMENTS = (1, 26, 51)
FOREGROUND_TASKS = {task: "video_hard" for task in packaged_names("tasks")} | dict.fromkeys(
    ROBOT_TASKS, "test5"
)
FOREGROUND_STEP = 10


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which of them; by default all")
    parser.add_argument("--folder", type=Path, default=Path("docs/images"))
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - SHEETS.keys():
        parser.error(f"no sheet {min(unknown)}; choose from {', '.join(SHEETS)}")
    gl.select_backend()
    for name in arguments.names or SHEETS:
        rows, scale = SHEETS[name]
        path = arguments.folder / f"{name}.webp"
        # Nobody sees the lowest bit of a colour, which takes a sixth of the file.
        print(save_picture(path, grid(rows(), scale) | 1, lossless=True, method=6))


def robot_looks() -> dict[str, Panels]:
    """A column per look; both tasks at the start and as a scripted policy solves them, and the foreground."""
    # MuJoCo reads MUJOCO_GL at import, so this waits for select_backend.
    from common.envs.robot.controller import scripted_action

    rows: dict[str, Panels] = defaultdict(dict)
    for shift in ROBOT_SHIFTS:
        for task in ROBOT_TASKS:
            env = BenchmarkEnv(task, shift, action_repeat=1, episode_steps=50, seed=SEED)
            environment = env._simulator.environment
            obs, _ = env.reset()
            for step in range(ROBOT_MOMENTS[task][-1] + 1):
                if step in ROBOT_MOMENTS[task]:
                    rows[f"{task}, step {step}"][shift] = newest(obs)
                obs, *_ = env.step(scripted_action(environment.task, environment.physics))
            rows[f"{task}, foreground"][shift] = foreground(env)
            env.close()
    return rows


def views() -> dict[str, Panels]:
    """A row per view; each task at three steps of an episode under the same random actions."""
    rows: dict[str, Panels] = defaultdict(dict)
    for shift in ("train", *VIEW_SHIFTS):
        for task in VIEW_TASKS:
            env = BenchmarkEnv(task, shift, seed=SEED)
            random = np.random.RandomState(SEED)
            env.reset()
            for step in range(1, VIEW_MOMENTS[-1] + 1):
                obs, *_ = env.step(random.uniform(-1, 1, env.action_size))
                if step in VIEW_MOMENTS:
                    rows[shift][f"{task}, {step}"] = newest(obs)
            env.close()
    return rows


def dmcgb2() -> dict[str, Panels]:
    """A column per task, a row per distribution; below, the true foreground as the last's camera sees it."""
    rows: dict[str, Panels] = defaultdict(dict)
    for shift in ("train", *PHOTOMETRIC_SHIFTS, *GEOMETRIC_SHIFTS):
        for task in BENCHMARK_TASKS:
            env, rows[shift][task] = some_way_into_an_episode(task, shift)
            if shift == GEOMETRIC_SHIFTS[-1]:
                rows["foreground"][task] = foreground(env)
            env.close()
    return rows


def foregrounds() -> dict[str, Panels]:
    """A column per task: as it is trained, under its hardest shift, and the true foreground of both."""
    rows: dict[str, Panels] = {"train": {}, "hardest shift": {}, "foreground": {}}
    for task, shift in FOREGROUND_TASKS.items():
        for row, look in (("train", "train"), ("hardest shift", shift)):
            env, rows[row][task] = some_way_into_an_episode(task, look)
            rows["foreground"][task] = foreground(env)
            env.close()
    return rows


def some_way_into_an_episode(task: str, shift: str) -> tuple[BenchmarkEnv, np.ndarray]:
    """An environment after some random steps of its first evaluation episode, and the frame it shows."""
    env = BenchmarkEnv(task, shift, seed=SEED)
    random = np.random.RandomState(SEED)
    obs, _ = env.reset(options={"evaluation": 0, "episode": 0, "episodes": 1})
    for _ in range(FOREGROUND_STEP):
        obs, *_ = env.step(random.uniform(-1, 1, env.action_size))
    return env, newest(obs)


def newest(obs: np.ndarray) -> np.ndarray:
    return obs[-3:].transpose(1, 2, 0)


def foreground(env: BenchmarkEnv) -> np.ndarray:
    """White where the true foreground is, uint8 (H, W, 3)."""
    return np.repeat(env.segmentation()[..., None], 3, axis=2).astype(np.uint8) * 255


SHEETS: dict[str, tuple[Callable[[], dict[str, Panels]], float]] = {
    "robot_looks": (robot_looks, 2),
    "views": (views, 1.5),
    "dmcgb2": (dmcgb2, 1),
    "foregrounds": (foregrounds, 1.5),
}
"""What draws each sheet, and how large a pixel is in it."""


if __name__ == "__main__":
    main()
