"""Which images and clips a run's numbers are of, as its provenance has them."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from common.config.registry import agent_class
from common.config.schema import Config
from common.config.shifts import ROBOT_TASKS, VIDEO_SHIFTS, clips_of, presets_of
from common.rl.augment import draws_images


def data_sources(config: Config, provenance: Mapping[str, Any], shifts: Iterable[str]) -> dict[str, str]:
    """What the overlay images and the backgrounds of `shifts` were, in words that are alike if data are.

    Overlay images are left out where the agent draws none, or none were recorded.
    """
    sources = {}
    overlay = recorded(provenance, "overlay")
    if overlay and draws_overlays(config):
        # Procedural images differ from seed to seed, photographs must not.
        procedural = overlay.get("source") == "procedural"
        names = "procedural" if procedural else f"files, names' hash {str(overlay.get('sha256'))[:16]}"
        sources["overlay images"] = f"{overlay.get('images')} {names}"
    if config.task in ROBOT_TASKS:
        return sources
    data = recorded(provenance, "data")
    for source in backgrounds_of(shifts):
        files = recorded(data, source)
        count = files.get("clips", files.get("presets", "unknown"))
        kind = "clips" if source in VIDEO_SHIFTS else "presets"
        fingerprint = f", hash {files['hash']}" if files.get("hash") else ""
        sources[f"backgrounds of {source}"] = f"{data.get('source', 'unknown')}, {count} {kind}{fingerprint}"
    return sources


def recorded(provenance: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """A mapping in a provenance; an empty one if there is none."""
    found = provenance.get(key)
    return found if isinstance(found, dict) else {}


def backgrounds_of(shifts: Iterable[str]) -> list[str]:
    """Whose clips and presets the shifts show, each once."""
    sources = (source for shift in shifts for source in (clips_of(shift), presets_of(shift)))
    return list(dict.fromkeys(source for source in sources if source is not None))


def draws_overlays(config: Config) -> bool:
    """Whether overlay images are part of what an agent learns from."""
    return agent_class(config.agent).DRAWS_IMAGES or draws_images(config.augmentation)


def folders(config: Config) -> list[str]:
    """The overrides that make another configuration take its data from the folders of this one."""
    named = {"data.root": config.data.root, "data.overlay": config.data.overlay}
    return [f"{key}={json.dumps(folder, ensure_ascii=False)}" for key, folder in named.items()]


def other_data(config: Config, before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """How the images and clips that a run is about to use differ from those that it used, each in one clause.

    Args:
        config: the run's configuration.
        before, now: provenances; what `before` does not tell is not compared.
    """
    here = data_sources(config, now, config.eval.shifts)
    there = data_sources(config, {"data": now.get("data"), **before}, config.eval.shifts)
    return [
        f"{name}: {text}, not {here[name]}" for name, text in there.items() if text != here.get(name, text)
    ]
