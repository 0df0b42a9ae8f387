"""DMC-GB2's geometric shifts in numbers: how the camera is turned about its own position, and in which order.

Each shift has 100 turns, matrices R by which the camera's orientation X becomes X·R. The columns of X point
to the camera's right, up and back.
"""

import numpy as np

from common.config.shifts import CAMERA_LIMITS, domain_of

COUNT = 100
"""Turns of each shift."""
EASIER = {"rotate": 2.0, "shift": 1.5}
"""What divides the limits of a hard shift in the easy one of its kind."""
ROTATE_LIMIT = 180.0  # degrees, to both sides


def turn_of_episode(seed: int, number: int) -> int:
    """Which turn episode `number`, from 0, shows: 100 episodes in a row show each once.

    The order is the benchmark's, drawn once from the seed and gone through again and again.
    """
    order = list(range(COUNT))
    np.random.RandomState(seed).shuffle(order)
    return order[number % COUNT]


def turns_of(shift: str, task: str) -> np.ndarray:
    """All turns of a geometric shift that a task has, in the order of their angles: float64 (100, 3, 3)."""
    kind, _, level = shift.rpartition("_")
    turns = np.broadcast_to(np.eye(3), (COUNT, 3, 3))
    # Both kinds are shuffled alike, so that in rotate_shift the i-th angle always meets the i-th shift.
    if kind in ("shift", "rotate_shift"):
        domain = domain_of(task)
        assert domain is not None
        turns = turns @ _shifts(domain, EASIER["shift"] if level == "easy" else 1.0)
    if kind in ("rotate", "rotate_shift"):
        turns = turns @ _rotations(EASIER["rotate"] if level == "easy" else 1.0)
    return turns


def _rotations(divisor: float) -> np.ndarray:
    """The picture turns about its middle, from −limit on in equal steps that end short of +limit."""
    limit = ROTATE_LIMIT / divisor
    return _about(2, np.arange(COUNT) * (2 * limit / COUNT) - limit)


def _shifts(domain: str, divisor: float) -> np.ndarray:
    """The camera looks past its subject: round the rectangle of the domain's limits, 25 points a side."""
    p_most, p_least, q_most, q_least = (limit / divisor for limit in CAMERA_LIMITS[domain])
    corners = np.array([(p_least, q_least), (p_most, q_least), (p_most, q_most), (p_least, q_most)])
    sides = np.roll(corners, -1, axis=0) - corners
    share = np.arange(COUNT // 4)[:, None] / (COUNT // 4)
    angles = (corners[:, None] + share * sides[:, None]).reshape(COUNT, 2)
    return _about(1, angles[:, 0]) @ _about(0, angles[:, 1])


def _about(axis: int, degrees: np.ndarray) -> np.ndarray:
    """Right-handed rotations about coordinate axis 0, 1 or 2 by angles (N,): (N, 3, 3)."""
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    first, second = (axis + 1) % 3, (axis + 2) % 3
    turned = np.zeros((len(degrees), 3, 3))
    turned[:, axis, axis] = 1
    turned[:, first, first] = turned[:, second, second] = cosine
    turned[:, first, second], turned[:, second, first] = -sine, sine
    return turned
