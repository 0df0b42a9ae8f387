"""Names of tasks' visual shifts, the groups that stand for several of them, and tasks' usual cameras."""

from collections.abc import Iterable, Mapping

from common.errors import did_you_mean

COLOR_SHIFTS = ("color_easy", "color_hard")
VIDEO_SHIFTS = ("video_easy", "video_hard")
SHIFTS = ("train", *COLOR_SHIFTS, *VIDEO_SHIFTS)
"""DMControl-GB's, for the tasks of dm_control's suite."""

COLOR_VIDEO_SHIFTS = ("color_video_easy", "color_video_hard")
ROTATE_SHIFTS = ("rotate_easy", "rotate_hard")
LIMITED_SHIFTS = ("shift_easy", "shift_hard", "rotate_shift_easy", "rotate_shift_hard")
"""Those that exist only where `CAMERA_LIMITS` says how far a camera may turn."""

PHOTOMETRIC_SHIFTS = (*COLOR_SHIFTS, *VIDEO_SHIFTS, *COLOR_VIDEO_SHIFTS)
GEOMETRIC_SHIFTS = (*ROTATE_SHIFTS, *LIMITED_SHIFTS)
KINDS: Mapping[str, tuple[str, ...]] = {"photometric": PHOTOMETRIC_SHIFTS, "geometric": GEOMETRIC_SHIFTS}
"""The two kinds of DMC-GB2's twelve test distributions, which extend DMControl-GB."""

VIEW_SHIFTS = ("view_novel", "view_moving", "view_shaking", "view_fov")
"""Camera shifts of the suite's tasks; not part of either benchmark."""

CAMERA_SHIFTS = (*GEOMETRIC_SHIFTS, *VIEW_SHIFTS)
"""All under which a pixel shows another part of the scene than in training."""

CAMERA_LIMITS: Mapping[str, tuple[float, float, float, float]] = {
    "walker": (10, -10, 10, -10),
    "cheetah": (10, -10, 10, -10),
    "cartpole": (8, -8, 10, -10),
    "finger": (6, -6, 12, -6),
    "ball_in_cup": (6, -6, 12, -6),
}
"""By domain, how far DMC-GB2 turns a camera in shift_hard and rotate_shift_hard [degrees]: the most and the
least about its axis that points up, then about that which points right.
"""

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


def domain_of(task: str) -> str | None:
    """The domain of `CAMERA_LIMITS` that a task belongs to; None for a task of another."""
    return next((domain for domain in CAMERA_LIMITS if task.startswith(f"{domain}_")), None)


def shifts_of(task: str) -> tuple[str, ...]:
    """Every shift that a task has."""
    if task in ROBOT_TASKS:
        return ROBOT_SHIFTS
    limited = () if domain_of(task) is None else LIMITED_SHIFTS
    return (*SHIFTS, *COLOR_VIDEO_SHIFTS, *ROTATE_SHIFTS, *limited, *VIEW_SHIFTS)


def groups_of(task: str) -> dict[str, tuple[str, ...]]:
    """What stands for several shifts wherever shifts are named: `all` is the papers' benchmark."""
    return {
        "all": ROBOT_SHIFTS if task in ROBOT_TASKS else SHIFTS,
        "dmcgb2": (*PHOTOMETRIC_SHIFTS, *GEOMETRIC_SHIFTS),
        **KINDS,
        "views": VIEW_SHIFTS,
    }


def expand(names: Iterable[str], task: str) -> tuple[str, ...]:
    """Replace the groups among shift names by what they stand for; no repetitions."""
    groups = groups_of(task)
    return tuple(dict.fromkeys(shift for name in names for shift in groups.get(name, (name,))))


def remedy(shift: str, task: str, known: Iterable[str]) -> str:
    """The end of an error message about a shift that a task lacks, where `known` ones are possible."""
    if shift in LIMITED_SHIFTS and task not in ROBOT_TASKS:
        domains = ", ".join(CAMERA_LIMITS)
        return f"DMC-GB2 limits it for {domains} only; choose from {', '.join(ROTATE_SHIFTS)}"
    return did_you_mean(shift, known)


def clips_of(shift: str) -> str | None:
    """The video shift whose clips a shift shows; None if it shows none."""
    source = shift.removeprefix("color_")
    return source if source in VIDEO_SHIFTS else None


def presets_of(shift: str) -> str | None:
    """The colour shift whose presets a shift wears; None if it wears none."""
    source = shift.replace("color_video_", "color_")
    return source if source in COLOR_SHIFTS else None


def whole_groups(shifts: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """DMC-GB2's kinds of distributions that are complete among some shifts.

    Their means are reported apart, and of a complete kind only: means over others are of other things.
    """
    found = set(shifts)
    return {name: members for name, members in KINDS.items() if found.issuperset(members)}
