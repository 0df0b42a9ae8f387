"""What a run's visual shifts change in its task's picture, found out and said when the run starts."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from common.config.schema import Config
from common.envs.shift_shares import LEAST, changed_shares
from common.run.derived import env_arguments

_SEEN = ("task", "model", "camera", "action_axes", "image_size", "shadow_size", "view_strength", "data_root")


def shift_shares(config: Config, announce: Callable[[str], None]) -> dict[str, float]:
    """The share of pixels, in [0, 1], that each shift of `eval.shifts` but train changes.

    `announce` gets a line if a shift changes less than a tenth.
    """
    arguments = env_arguments(config)
    shifts = tuple(shift for shift in config.eval.shifts if shift != "train")
    shares = dict(_measured(shifts, tuple((name, arguments[name]) for name in _SEEN)))
    if warning := hardly_shown(config.task, shares):
        announce(warning)
    return shares


def hardly_shown(task: str, shares: Mapping[str, float]) -> str | None:
    """The line that names the shifts which change less than a tenth of the pixels; None without one."""
    little = [f"{shift} {share:.1%}" for shift, share in shares.items() if share < LEAST]
    if not little:
        return None
    return (
        f"{task}'s picture hardly shows some shifts; their returns say nothing about generalisation. "
        f"Share of pixels that each changes: {', '.join(little)}"
    )


def recorded_shares(provenance: Mapping[str, object]) -> dict[str, float]:
    """The same as a run's provenance.json has it; empty for runs recorded before it was measured."""
    shares = provenance.get("shifts")
    if not isinstance(shares, dict):
        return {}
    return {shift: float(share) for shift, share in shares.items() if isinstance(share, int | float)}


@cache
def _measured(shifts: tuple[str, ...], arguments: tuple[tuple[str, Any], ...]) -> Mapping[str, float]:
    shares = changed_shares(shifts, **dict(arguments)) if shifts else {}
    return {shift: round(share, 4) for shift, share in shares.items()}
