"""ρ and quantile: whether a run's were read off the foreground's share of pixels or set by hand."""

from collections.abc import Mapping
from typing import Any

from common.config.schema import Config
from common.run.data_sources import recorded

MEASURED = "measured_shares"
"""In a provenance: by name, the `shares` that were measured."""


def shares(config: Config) -> dict[str, Any]:
    """What of a configuration may be read off the foreground's share, by name."""
    named = {name: getattr(config.settings, name, None) for name in ("rho", "quantile")}
    return {name: value for name, value in named.items() if value is not None}


def measured(asked: Config, resolved: Config, before: Mapping[str, Any] | None) -> dict[str, Any]:
    """The entry of a session's provenance.

    Args:
        asked: the configuration that the run goes on with.
        resolved: `asked` without any `auto`.
        before: the provenance of the session before; None if the run begins.

    Returns:
        Nothing for an agent without shares, nor for a run that began before they were recorded.
    """
    wanted, found = shares(asked), shares(resolved)
    if not found or (before is not None and MEASURED not in before):
        return {}
    known = recorded(before or {}, MEASURED)
    kept = {
        name: value for name, value in found.items() if wanted[name] == "auto" or known.get(name) == value
    }
    return {MEASURED: kept}


def set_by_hand(config: Config, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Which of a run's `shares` were not measured; none where that was not recorded."""
    known = provenance.get(MEASURED)
    if not isinstance(known, dict):
        return {}
    return {name: value for name, value in shares(config).items() if name not in known}
