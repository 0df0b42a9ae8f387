"""Pictures for docs: robotic tasks under their six looks, camera views, and the true foreground of all tasks.

python -m benchmarks.contact_sheets [--folder docs/images]
"""

import argparse
from pathlib import Path

import cv2
import numpy as np

from common import gl
from common.config.loading import packaged_names
from common.config.shifts import ROBOT_SHIFTS, ROBOT_TASKS, VIEW_SHIFTS
from common.envs.benchmark import BenchmarkEnv

SEED = 3
LABEL_HEIGHT = 18
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
    parser.add_argument("--folder", type=Path, default=Path("docs/images"))
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    gl.select_backend()
    for name, sheet in (("robot_looks", robot_looks()), ("views", views()), ("foregrounds", foregrounds())):
        path = folder / f"{name}.png"
        cv2.imwrite(str(path), sheet[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
        print(f"{path}: {sheet.shape[1]}x{sheet.shape[0]}, {path.stat().st_size / 1024:.0f} KiB")


def robot_looks() -> np.ndarray:
    """A column per look; both tasks at the start and as a scripted policy solves them, and the foreground."""
    # MuJoCo reads MUJOCO_GL at import, so this waits for select_backend.
    from common.envs.robot.controller import scripted_action

    columns = []
    for shift in ROBOT_SHIFTS:
        pictures = []
        for task in ROBOT_TASKS:
            env = BenchmarkEnv(task, shift, action_repeat=1, episode_steps=50, seed=SEED)
            environment = env._simulator.environment
            first, last = ROBOT_MOMENTS[task]
            obs, _ = env.reset()
            for step in range(last + 1):
                if step in (first, last):
                    pictures.append(enlarged(newest(obs), 2))
                obs, *_ = env.step(scripted_action(environment.task, environment.physics))
            mask = np.repeat(env.segmentation()[..., None], 3, axis=2).astype(np.uint8) * 255
            pictures.append(enlarged(mask, 2))
            env.close()
        columns.append(labelled(np.concatenate(pictures), shift))
    return np.concatenate(columns, axis=1)


def views() -> np.ndarray:
    """A row per view; each task at three steps of an episode under the same random actions."""
    rows = []
    for shift in ("train", *VIEW_SHIFTS):
        pictures = []
        for task in VIEW_TASKS:
            env = BenchmarkEnv(task, shift, seed=SEED)
            random = np.random.RandomState(SEED)
            env.reset()
            for step in range(1, VIEW_MOMENTS[-1] + 1):
                obs, *_ = env.step(random.uniform(-1, 1, env.action_size))
                if step in VIEW_MOMENTS:
                    text = f"{task} {step}" if step == VIEW_MOMENTS[0] else f"{step}"
                    pictures.append(labelled(enlarged(newest(obs), 1.5), text if shift == "train" else ""))
            env.close()
        rows.append(labelled(np.concatenate(pictures, axis=1), shift))
    return np.concatenate(rows)


def foregrounds() -> np.ndarray:
    """A column per task: as it is trained, under its hardest shift, and the true foreground of both."""
    columns = []
    for task, shift in FOREGROUND_TASKS.items():
        pictures = []
        for look in ("train", shift):
            env = BenchmarkEnv(task, look, seed=SEED)
            random = np.random.RandomState(SEED)
            obs, _ = env.reset(options={"evaluation": 0, "episode": 0, "episodes": 1})
            for _ in range(FOREGROUND_STEP):
                obs, *_ = env.step(random.uniform(-1, 1, env.action_size))
            pictures.append(newest(obs))
            mask = np.repeat(env.segmentation()[..., None], 3, axis=2).astype(np.uint8) * 255
            env.close()
        columns.append(labelled(enlarged(np.concatenate([*pictures, mask]), 1.5), task))
    return np.concatenate(columns, axis=1)


def newest(obs: np.ndarray) -> np.ndarray:
    return obs[-3:].transpose(1, 2, 0)


def enlarged(picture: np.ndarray, factor: float) -> np.ndarray:
    return cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST)


def labelled(picture: np.ndarray, text: str) -> np.ndarray:
    """The picture under a line of text, if there is one."""
    if not text:
        return picture
    line = np.full((LABEL_HEIGHT, picture.shape[1], 3), 255, np.uint8)
    cv2.putText(line, text, (3, LABEL_HEIGHT - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([line, picture])


if __name__ == "__main__":
    main()
