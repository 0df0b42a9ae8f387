"""Imports point one way: from the command line down to the configuration, from agents to common."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("config", "rl", "data", "envs", "run", "report", "study", "explain")
"""The rooms of common/; one may import those before it, never one after it."""
BESIDE = {"study": {"explain"}, "explain": {"study"}}
"""Rooms of one floor, which know nothing of each other."""
AGENTS = ("smg", "sgqn", "baselines", "variants")
ANYWHERE = {"errors", "gl"}
"""Modules at the top of common/ that any room may import; the others there import rooms."""


def imports(path: Path) -> set[str]:
    """Modules that a file imports, those within functions and under TYPE_CHECKING too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def files(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def place(module: str) -> str | None:
    """The room, or the module at the top of common/, that a dotted name lies in."""
    parts = module.split(".")
    return parts[1] if parts[0] == "common" and len(parts) > 1 else None


@pytest.mark.parametrize("path", files("common"), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_only_what_lies_below_it(path: Path) -> None:
    here = path.relative_to(ROOT / "common").parts
    targets = {found for found in map(place, imports(path)) if found}
    if len(here) == 1:
        allowed = set(ROOMS) | {file.stem for file in (ROOT / "common").glob("*.py")}
        if path.stem in ANYWHERE:
            allowed = ANYWHERE
    else:
        floor = ROOMS.index(here[0])
        allowed = {*ROOMS[: floor + 1], *ANYWHERE} - BESIDE.get(here[0], set())
    assert targets <= allowed, f"it imports {', '.join(sorted(targets - allowed))}"
    foreign = {name for name in imports(path) if name.split(".")[0] in AGENTS}
    assert not foreign, "common finds agents by the names in configs/"


@pytest.mark.parametrize("path", files(*AGENTS), ids=lambda path: str(path.relative_to(ROOT)))
def test_agents_know_tensors_and_the_configuration_only(path: Path) -> None:
    assert {found for found in map(place, imports(path)) if found} <= {"config", "rl", "errors"}


@pytest.mark.parametrize("path", files("common/rl"), ids=lambda path: path.name)
def test_learning_knows_no_files_and_no_simulator(path: Path) -> None:
    banned = {"pathlib", "os", "mujoco", "dm_control", "gymnasium", "matplotlib", "wandb", "json"}
    assert not {name.split(".")[0] for name in imports(path)} & banned
