"""The shell scripts, run in a copy of the project whose Python is a stand-in that records its use."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from common.doctor import PINNED
from common.gl import INSTALL

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("bash", "cat", "cp", "chmod", "dirname", "flock", "mkdir", "mv", "rm")

PYTHON = """#!/usr/bin/env bash
case "$*" in
  "-c import sys; print("*) echo {version} ;;
  "-c import ensurepip, venv") {venv} ;;
  "-c from common import gl"*) [ -z "${{MUJOCO_GL+set}}" ] && [ ! -e blind ]; exit ;;
  --version) echo Python {version} ;;
  "-m venv "*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
  "-m pip install"*)
    echo "$*" >>pip.log
    [ ! -e offline ] || exit 1
    printf '#!/usr/bin/env bash\\nprintf "%%s|" "$@"' >.venv/bin/smg
    chmod +x .venv/bin/smg ;;
esac
"""


class Copy:
    """The scripts in a folder of their own, with nothing on the PATH but basic tools and given Pythons."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "the project"
        self.bin = folder / "bin"
        self.bin.mkdir()
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found is not None
            (self.bin / tool).symlink_to(found)
        # `env` finds bash for the scripts' first line.
        (self.bin / "env").symlink_to("/usr/bin/env")
        shutil.copytree(ROOT / "scripts", self.root / "scripts")
        shutil.copytree(ROOT / ".ci", self.root / ".ci")
        for name in ("setup.py", "constraints.txt"):
            shutil.copy(ROOT / name, self.root / name)

    def python(self, name: str, version: str, venv: str = "true") -> None:
        self.script(self.bin / name, PYTHON.format(version=version, venv=venv))

    def script(self, path: Path, text: str) -> None:
        path.write_text(text)
        path.chmod(0o755)

    def run(self, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.bin / "bash"), script, *arguments],
            cwd=self.root,
            env={"PATH": str(self.bin)} | environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def installations(self) -> list[str]:
        log = self.root / "pip.log"
        return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path)


def test_without_a_fitting_python_the_error_names_both(copy: Copy) -> None:
    # A pyenv shim: it exists, but no such version lies behind it.
    copy.script(copy.bin / "python3.12", "#!/usr/bin/env bash\nexit 127\n")
    copy.python("python3", "3.10")
    result = copy.run("scripts/setup.sh")
    assert result.returncode == 2
    assert "needs Python 3.11 or 3.12" in result.stderr
    assert "python3 is 3.10" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (copy.root / ".venv").exists()


def test_without_any_python(copy: Copy) -> None:
    result = copy.run("scripts/setup.sh")
    assert result.returncode == 2
    assert "needs Python 3.11 or 3.12 (found: none)" in result.stderr


def test_a_python_without_venv_is_passed_over_or_explained(copy: Copy) -> None:
    copy.python("python3.12", "3.12", venv="exit 1")
    result = copy.run("scripts/setup.sh")
    assert result.returncode == 2
    assert "apt-get install python3.12-venv" in result.stderr
    copy.python("python3.11", "3.11")
    result = copy.run("scripts/setup.sh")
    assert result.returncode == 0
    assert "Python 3.11" in result.stdout


def test_set_up_installs_once_and_again_when_requirements_change(copy: Copy) -> None:
    copy.python("python3", "3.12")
    assert copy.run("scripts/setup.sh").returncode == 0
    assert copy.installations() == ["-m pip install --disable-pip-version-check -c constraints.txt -e ."]
    again = copy.run("scripts/setup.sh")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert len(copy.installations()) == 1
    with (copy.root / "constraints.txt").open("a") as constraints:
        constraints.write("# changed\n")
    assert copy.run("scripts/setup.sh").returncode == 0
    assert len(copy.installations()) == 2


def test_set_up_for_tests_adds_to_that_for_training_and_serves_both(copy: Copy) -> None:
    copy.python("python3", "3.12")
    assert copy.run("scripts/setup.sh").returncode == 0
    assert copy.run("scripts/setup.sh", "tests").returncode == 0
    assert [line.rpartition(" ")[2] for line in copy.installations()] == [".", ".[dev]"]
    for arguments in ((), ("tests",)):
        assert copy.run("scripts/setup.sh", *arguments).stdout == ""
    assert copy.run("scripts/setup.sh", "test").returncode == 2


def test_set_up_is_repeated_when_a_package_is_added(copy: Copy) -> None:
    copy.python("python3", "3.12")
    assert copy.run("scripts/setup.sh").returncode == 0
    (copy.root / "variants").mkdir()
    (copy.root / "variants" / "__init__.py").touch()
    assert copy.run("scripts/setup.sh").returncode == 0
    assert len(copy.installations()) == 2


APT = """#!/usr/bin/env bash
echo "$*" >>apt.log
case "$*" in *" install "*) {install} ;; esac
"""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="root alone installs packages")


def installed_packages(copy: Copy) -> list[str]:
    log = copy.root / "apt.log"
    return log.read_text().splitlines() if log.exists() else []


@as_root
def test_set_up_gets_opengl_where_nothing_can_draw(copy: Copy) -> None:
    copy.python("python3", "3.12")
    copy.script(copy.bin / "apt-get", APT.format(install="rm -f blind"))
    # Where a frame can be drawn, nothing is installed, whatever the user chose for MuJoCo.
    assert copy.run("scripts/setup.sh", MUJOCO_GL="osmesa").returncode == 0
    assert installed_packages(copy) == []
    # The same .venv on a machine that has other libraries, and no OpenGL.
    (copy.root / "blind").touch()
    copy.script(
        copy.bin / "ldconfig", "#!/usr/bin/env bash\necho '    libGLX.so.0 (libc6) => /lib/libGLX.so.0'\n"
    )
    result = copy.run("scripts/setup.sh")
    assert result.returncode == 0
    assert "nothing can draw a frame; installing libegl1 libgl1-mesa-dri libosmesa6" in result.stdout
    update, install = installed_packages(copy)
    assert update == "update -qq"
    assert install.endswith(INSTALL.rpartition("-y ")[2])
    assert copy.run("scripts/setup.sh").stdout == ""
    assert len(installed_packages(copy)) == 2


@as_root
def test_set_up_without_opengl_goes_on_and_tries_again(copy: Copy) -> None:
    copy.python("python3", "3.12")
    copy.script(copy.bin / "apt-get", APT.format(install="exit 100"))
    (copy.root / "blind").touch()
    for attempt in (1, 2):
        result = copy.run("scripts/setup.sh")
        assert result.returncode == 0
        assert "still nothing can draw a frame; .venv/bin/smg doctor says why" in result.stderr
        assert len(installed_packages(copy)) == 2 * attempt


def test_a_failed_or_interrupted_set_up_is_taken_up_again(copy: Copy) -> None:
    copy.python("python3", "3.12")
    (copy.root / "offline").touch()
    result = copy.run("scripts/setup.sh")
    assert result.returncode == 1
    assert "run this again" in result.stderr
    (copy.root / "offline").unlink()
    # A creation that was cut short leaves a Python that does not run.
    copy.script(copy.root / ".venv/bin/python", "#!/usr/bin/env bash\nexit 1\n")
    assert copy.run("scripts/setup.sh").returncode == 0
    assert len(copy.installations()) == 2
    assert copy.run("scripts/setup.sh").stdout == ""


@pytest.mark.parametrize("agent", ["smg", "sgqn"])
def test_run_scripts_hand_their_arguments_on(copy: Copy, agent: str) -> None:
    copy.python("python3", "3.12")
    result = copy.run(f"scripts/run_{agent}.sh", "ball_in_cup", "catch", "--preset", "smoke", "run.dir=a b")
    assert result.returncode == 0
    passed = result.stdout.splitlines()[-1]
    assert passed == f"train|--agent|{agent}|--task|ball_in_cup_catch|--preset|smoke|run.dir=a b|"


def test_the_demonstration_does_its_study_and_then_shows_it(copy: Copy) -> None:
    copy.python("python3", "3.12")
    result = copy.run("scripts/demo.sh", "seeds=[0,1]", "folder=a b")
    assert "study|run|laptop|seeds=[0,1]|folder=a b|" in result.stdout
    assert result.returncode == 0
    refused = copy.run("scripts/demo.sh", "--preset", "smoke")
    assert refused.returncode == 2 and "usage: bash scripts/demo.sh" in refused.stderr


@pytest.mark.parametrize("arguments", [[], ["walker"], ["walker", "seed=1"], ["--preset", "laptop"]])
def test_run_scripts_explain_themselves_before_installing(copy: Copy, arguments: list[str]) -> None:
    result = copy.run("scripts/run_smg.sh", *arguments)
    assert result.returncode == 2
    assert "usage: bash scripts/run_smg.sh DOMAIN TASK" in result.stderr
    assert copy.run("scripts/run_smg.sh", "--help").returncode == 0


def test_ci_points_the_tests_at_data_beside_the_checkout(copy: Copy) -> None:
    shared = copy.root.parent / "shared"
    (shared / "data/dmcgb").mkdir(parents=True)
    (shared / "fixtures").mkdir()
    copy.script(
        copy.root / "scripts/test.sh", 'echo "$SMG_DATA|${SMG_OVERLAY-unset}|$SMG_FIXTURES"; exit 5\n'
    )
    result = copy.run(".ci/run")
    assert result.stdout == f"{shared}/data/dmcgb|unset|{shared}/fixtures\n"
    assert result.returncode == 5


def test_scripts_are_executable() -> None:
    for script in [*(ROOT / "scripts").glob("*.sh"), ROOT / ".ci/run"]:
        assert os.access(script, os.X_OK), script


def test_pins_agree_everywhere() -> None:
    pins = dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    assert pins["torch"] == "2.13.0"
    assert pins["mujoco"] == PINNED["mujoco"] == "3.11.0"
    assert pins["dm_control"] == PINNED["dm_control"] == "1.0.44"
    requirements = (ROOT / "setup.py").read_text()
    assert '"mujoco==3.11.0"' in requirements
    assert '"dm_control==1.0.44"' in requirements
