"""What the `smg` command prints and returns."""

import subprocess
import sys
from pathlib import Path

import pytest

from common import cli
from common.config.loading import load, to_yaml
from common.config.schema import Config
from common.config.yaml_files import parse
from common.gl import NoRenderer
from common.run import reevaluate, train

SELECTION = ["--agent", "smg", "--task", "walker_walk", "--preset", "smoke"]


def run(*arguments: str) -> int:
    return cli.main(arguments)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Config, Path | None]]:
    """Stands in for training: collects what it was asked to do."""
    calls: list[tuple[Config, Path | None]] = []

    def record(config: Config, resume: Path | None, make_sheet: object) -> int:
        calls.append((config, resume))
        return 0

    monkeypatch.setattr(train, "train", record)
    return calls


def test_config_prints_what_load_resolves(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        run(
            "config",
            "seed=3",
            *SELECTION,
            "optim.actor.lr=1e-4",
            "--config",
            "configs/ablations/smg_no_background.yaml",
        )
        == 0
    )
    printed = capsys.readouterr().out
    expected = load(
        "smg", "walker_walk", "smoke", overrides=["seed=3", "optim.actor.lr=1e-4", "losses.background=0"]
    )
    assert printed == to_yaml(expected)
    assert parse(printed, "printed")["losses"]["background"] == 0


def test_a_preset_that_was_not_asked_for_is_announced(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("config", "--agent", "sac", "--task", "walker_walk", "device=cpu") == 0
    announced = capsys.readouterr().err
    assert announced == "preset: laptop, for training on the CPU (choose with --preset)\n"


def test_train_passes_the_configuration_on(trained: list[tuple[Config, Path | None]]) -> None:
    # Overrides may stand between options; the last of equal keys wins.
    assert (
        run(
            "train",
            "seed=1",
            *SELECTION,
            "train.steps=70",
            "--config",
            "configs/ablations/smg_no_empowerment.yaml",
            "seed=2",
        )
        == 0
    )
    expected = load(
        "smg", "walker_walk", "smoke", overrides=["seed=2", "train.steps=70", "losses.empowerment=0"]
    )
    assert trained == [(expected, None)]


def test_resume_reads_the_run_folder(trained: list[tuple[Config, Path | None]], tmp_path: Path) -> None:
    config = load("smg", "walker_walk", "smoke")
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert run("train", "--resume", str(tmp_path)) == 0
    assert trained == [(config, tmp_path)]


def test_resume_keeps_the_configuration(
    trained: list[tuple[Config, Path | None]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("train", "--resume", str(tmp_path), "--agent", "sac") == 2
    assert "--agent does not go with --resume" in capsys.readouterr().err
    assert run("train", "--resume", str(tmp_path)) == 2
    assert "not a run folder" in capsys.readouterr().err
    assert trained == []


def test_eval_options_are_overrides(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[tuple[Config, Path, tuple[str, ...]]] = []

    def record(config: Config, folder: Path, masks: tuple[str, ...]) -> int:
        calls.append((config, folder, masks))
        return 0

    monkeypatch.setattr(reevaluate, "evaluate_run", record)
    (tmp_path / "config.yaml").write_text(to_yaml(load("sac", "walker_walk", "smoke")))
    assert run("eval", str(tmp_path), "--shifts", "video_hard,train", "--episodes", "7", "--seed", "9") == 0
    assert run("eval", str(tmp_path), "--masks", "learned,truth") == 0
    [(config, folder, masks), (_, _, asked)] = calls
    assert (config.eval.shifts, config.eval.episodes, config.seed) == (("video_hard", "train"), 7, 9)
    assert (folder, masks, asked) == (tmp_path, (), ("learned", "truth"))
    assert run("eval", str(tmp_path), "--shifts", "video_hart") == 2
    assert "did you mean 'video_hard'?" in capsys.readouterr().err
    assert run("eval", str(tmp_path), "--episodes", "many") == 2
    assert "eval.episodes: should be an integer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no agent given"),
        (["--agent", "smgg", "--task", "walker_walk"], "unknown agent 'smgg'; did you mean 'smg'?"),
        ([*SELECTION, "train.stepz=1"], "did you mean 'train.steps'?"),
        ([*SELECTION, "--config", "missing.yaml"], "missing.yaml: no such file"),
        ([*SELECTION, "stray"], "'stray' is not of the form key.sub=value"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    arguments: list[str], message: str, trained: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("train", *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("smg: ")
    assert message in error
    assert error.count("\n") == 1
    assert trained == []


@pytest.mark.parametrize("arguments", [["train", *SELECTION, "--foo"], ["traim"], [], ["eval"]])
def test_usage_errors_have_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        run(*arguments)
    assert error.value.code == 2
    assert "usage: smg" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["train", "eval", "explain", "rho", "config", "doctor"])
def test_every_command_explains_itself_with_examples(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        run(command, "--help")
    assert error.value.code == 0
    assert f"examples:\n  smg {command}" in capsys.readouterr().out


def test_statuses_of_other_ends(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def ending(error: BaseException) -> int:
        def fail(*_: object) -> int:
            raise error

        monkeypatch.setattr(train, "train", fail)
        return run("train", *SELECTION)

    assert ending(NoRenderer("no OpenGL renderer works; run: apt-get install")) == 3
    assert capsys.readouterr().err == "smg: no OpenGL renderer works; run: apt-get install\n"
    assert ending(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "smg: interrupted\n"
    monkeypatch.setattr(train, "train", lambda *_: 75)
    assert run("train", *SELECTION) == 75


def test_help_needs_no_heavy_import() -> None:
    code = "import sys, common.cli\ntry: common.cli.main(['--help'])\nexcept SystemExit: print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "common.cli" in modules
    assert not {"torch", "kornia", "mujoco", "pydantic"} & set(modules)


@pytest.mark.slow
def test_studies_import_no_plotting_and_no_compiler_where_nothing_is_drawn(
    tmp_path: Path,
) -> None:
    actions = (["status"], ["table"], ["run", "--dry-run"])
    commands = [["study", *action, "laptop", f"folder={tmp_path}"] for action in actions]
    code = f"import sys, common.cli\nassert not any(map(common.cli.main, {commands}))\nprint(*sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    modules = output.splitlines()[-1].split()
    assert "common.study.command" in modules and "smg.agent" in modules
    assert not {"matplotlib", "torch._dynamo", "common.run.build", "mujoco"} & set(modules)


@pytest.mark.slow
def test_a_reader_that_leaves_early_is_no_error() -> None:
    command = [sys.executable, "-m", "common.cli", "config", *SELECTION]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait() == 0
    process.stderr.close()
