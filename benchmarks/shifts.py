"""What each of the benchmark's shifts changes in the picture of every task of the suite, as a Markdown table.

python -m benchmarks.shifts [task ...]

A row stands for the tasks of a domain that have the same scene and cameras, measured on the first of them.
Shares are of 84x84 pixels, through the task's usual camera; those below a tenth are in brackets. Colour
presets are the benchmark's if $SMG_DATA is set.
"""

import argparse
from collections.abc import Hashable

import numpy as np

from common import gl
from common.config.shifts import SHIFTS, usual_camera
from common.envs.shift_shares import LEAST, changed_shares

FRAMES = 20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tasks", nargs="*", help="by default all of the suite's")
    gl.select_backend()
    print(f"| task | camera | foreground | {' | '.join(SHIFTS[1:])} |")
    print("|---" * (3 + len(SHIFTS[1:])) + "|")
    for tasks in groups(parser.parse_args().tasks):
        shares = changed_shares(SHIFTS[1:], task=tasks[0])
        cells = [f"({share:.1%})" if share < LEAST else f"{share:.0%}" for share in shares.values()]
        name = ", ".join(tasks)
        row = [name, str(usual_camera(tasks[0])), f"{foreground(tasks[0]):.1%}", *cells]
        print(f"| {' | '.join(row)} |", flush=True)


def groups(chosen: list[str]) -> list[list[str]]:
    """Tasks of a domain that look alike but for their bodies' states."""
    # MuJoCo reads MUJOCO_GL at import, so this waits for select_backend.
    from dm_control import suite

    found: dict[Hashable, list[str]] = {}
    for domain, task in suite.ALL_TASKS:
        name = f"{domain}_{task}"
        if chosen and name not in chosen:
            continue
        model = suite.load(domain, task).physics.model
        on_world = tuple(np.flatnonzero(model.geom_bodyid == 0))
        cameras = tuple(model.id2name(number, "camera") for number in range(model.ncam))
        found.setdefault((domain, on_world, model.ngeom, cameras), []).append(name)
    return list(found.values())


def foreground(task: str) -> float:
    """Mean share of the true foreground under random actions."""
    from common.envs.benchmark import BenchmarkEnv

    env = BenchmarkEnv(task, frames=1)
    random = np.random.RandomState(0)
    env.reset()
    shares = []
    for _ in range(FRAMES):
        env.step(random.uniform(-1, 1, env.action_size))
        shares.append(env.segmentation().mean())
    env.close()
    return float(np.mean(shares))


if __name__ == "__main__":
    main()
