"""Agents by name: the only place where `common` knows which agents exist."""

import importlib
import inspect
import sys
from pathlib import Path
from typing import Any

from common.errors import UserError, did_you_mean

AGENTS = {
    "sac": "common.rl.sac:SAC",
    "drq": "baselines.drq:DrQ",
    "rad": "baselines.rad:RAD",
    "soda": "baselines.soda:SODA",
    "svea": "baselines.svea:SVEA",
    "svea_soda": "baselines.svea_soda:SVEASODA",
    "srm": "baselines.srm:SRM",
    "sada": "baselines.sada:SADA",
    "sgqn": "sgqn.agent:SGQN",
    "smg": "smg.agent:SMG",
    "smg_drift": "variants.smg_drift:SMGDrift",
    "smg_sada": "variants.smg_sada:SMGSADA",
    "smg_lite": "variants.smg_lite:SMGLite",
    "smg_frames": "variants.smg_frames:SMGFrames",
}


def is_import_path(name: str) -> bool:
    """Whether an agent is named as `package.module:Class` instead of by its registered name."""
    return ":" in name


def agent_class(name: str) -> type[Any]:
    """The class of a registered agent, or of one given as `package.module:Class`.

    Importing a module runs its code, so a caller passes an import path only on the user's own word.

    Raises:
        UserError: the name is not registered, or the path does not lead to an agent class.
    """
    if not is_import_path(name):
        if name not in AGENTS:
            nearest = did_you_mean(name, AGENTS)
            raise UserError(f"unknown agent '{name}'; {nearest} (one of your own is named as module:Class)")
        return _import(AGENTS[name])
    # A console script starts without the working folder on the path, where users keep their agents.
    if not any(Path(entry or ".").resolve() == Path.cwd() for entry in sys.path):
        sys.path.append(str(Path.cwd()))
    return _import(name)


def files_of(agent: type[Any]) -> list[Path]:
    """The files in which an agent's class and those that it extends stand, the farthest ancestor's first.

    Those of registered agents are left out.
    """
    agents = [each for each in reversed(agent.__mro__) if hasattr(each, "LOSSES")]
    own = [each for each in agents if f"{each.__module__}:{each.__qualname__}" not in AGENTS.values()]
    return list(dict.fromkeys(Path(inspect.getfile(each)) for each in own))


def registered_lineage(agent: type[Any]) -> list[str]:
    """The registered names that an agent's settings come from, in the order in which they are merged.

    They end with the nearest class that `agent` is or extends, which stands behind those that it extends and
    shares its section with: a variant's YAML says how it differs from the agent that it varies.
    """
    names = {path: name for name, path in AGENTS.items()}
    found: list[str] = []
    for ancestor in agent.__mro__:
        name = names.get(f"{ancestor.__module__}:{ancestor.__qualname__}")
        shares = getattr(ancestor, "SECTION", None) == agent.SECTION is not None
        if name is not None and (shares or not found):
            found.insert(0, name)
    return found


def _import(path: str) -> type[Any]:
    module_name, _, class_name = path.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), class_name)):
        raise UserError(f"agent '{path}' is not of the form package.module:Class")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # Only the named module or its packages being absent is the user's typing error.
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        places = f"{Path.cwd()} or the Python path"
        raise UserError(f"agent '{path}': no module named '{error.name}' in {places}") from error
    found = getattr(module, class_name, None)
    if not isinstance(found, type):
        classes = [name for name, value in vars(module).items() if isinstance(value, type)]
        raise UserError(f"agent '{path}': no class '{class_name}'; {did_you_mean(class_name, classes)}")
    if not hasattr(found, "LOSSES"):
        raise UserError(f"agent '{path}' is not an agent: it declares no LOSSES")
    for ancestor in found.__mro__:
        own = vars(ancestor)
        if not own.get("SECTION"):
            continue
        section, settings = own["SECTION"], own["Settings"]
        if section != found.SECTION or not issubclass(found.Settings, settings):
            raise UserError(
                f"agent '{path}' extends {ancestor.__name__}, which reads its section '{section}:'; keep "
                f"that SECTION and let Settings extend {settings.__module__}.{settings.__qualname__}"
            )
    return found
