"""The package as it is built and installed, used away from its checkout."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
PACKAGED = ("smg", "sgqn", "baselines", "variants", "common", "configs")


def test_a_wheel_in_a_new_environment_trains_to_its_table(tmp_path: Path) -> None:
    source, home = tmp_path / "source", tmp_path / "home"
    for name in PACKAGED:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, source]
    subprocess.run([*pip, *build], check=True, capture_output=True)
    [wheel] = tmp_path.glob("smg_sgqn-*.whl")

    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([*pip, "--python", python, "install", "--no-deps", "--no-index", wheel], check=True)
    # What the package depends on stands in this environment; a path alone does not bring the checkout along.
    [site] = (tmp_path / "venv" / "lib").glob("python3.*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")

    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [
        python.with_name("smg"),
        "train",
        "--agent",
        "smg",
        "--task",
        "walker_walk",
        "--preset",
        "smoke",
    ]
    trained = subprocess.run(
        [*command, "eval.shifts=[train]", "wandb.mode=disabled", "device=cpu"],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert trained.returncode == 0, trained.stderr
    assert "smg on walker_walk after 60 agent steps" in trained.stdout
    where = subprocess.run(
        [python, "-c", "import common; print(common.__file__)"],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(where.stdout.strip()).is_relative_to(site)
