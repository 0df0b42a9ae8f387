"""Names of tasks' visual shifts, the groups that stand for several of them, and tasks' usual cameras."""

from collections.abc import Iterable

COLOR_SHIFTS = ("color_easy", "color_hard")
VIDEO_SHIFTS = ("video_easy", "video_hard")
SHIFTS = ("train", *COLOR_SHIFTS, *VIDEO_SHIFTS)
"""DMControl-GB's, for the tasks of dm_control's suite."""

VIEW_SHIFTS = ("view_novel", "view_moving", "view_shaking", "view_fov")
"""Camera shifts of the suite's tasks; not part of DMControl-GB."""

ROBOT_TASKS = ("robot_reach", "robot_peg_in_box")
ROBOT_SHIFTS = ("train", "test1", "test2", "test3", "test4", "test5")
ROBOT_NOTE = (
    "robotic tasks: same task, reward and looks as the papers' simulator, but another arm and other meshes; "
    "compare methods, not raw scores"
)
"""Belongs under every table that shows a robotic task beside published numbers."""

ROBOT_CAMERAS = ("third_person", "first_person")


def usual_camera(task: str) -> int | str:
    """The camera that everybody takes: the first, but 2 for the quadruped, which the first shows tiny."""
    if task in ROBOT_TASKS:
        return ROBOT_CAMERAS[0]
    return 2 if task.startswith("quadruped_") else 0


def shifts_of(task: str) -> tuple[str, ...]:
    """Every shift that a task has."""
    return ROBOT_SHIFTS if task in ROBOT_TASKS else (*SHIFTS, *VIEW_SHIFTS)


def expand(names: Iterable[str], task: str) -> tuple[str, ...]:
    """Replace the groups `all` (the task's benchmark) and `views` among shift names; no repetitions."""
    groups = {"all": ROBOT_SHIFTS if task in ROBOT_TASKS else SHIFTS, "views": VIEW_SHIFTS}
    return tuple(dict.fromkeys(shift for name in names for shift in groups.get(name, (name,))))
