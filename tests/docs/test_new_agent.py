"""docs/new_agent.md, run as it is written."""

import re
import subprocess
import sys
from pathlib import Path

import yaml

PAGE = Path(__file__).parents[2] / "docs" / "new_agent.md"


def block(language: str) -> str:
    [code] = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return code


def test_the_page_trains_what_it_builds(tmp_path):
    (tmp_path / "one_sided.py").write_text(block("python"), encoding="utf-8")
    (tmp_path / "one_sided.yaml").write_text(block("yaml"), encoding="utf-8")
    command = block("bash").split()
    assert command[0] == "smg"
    quick = ["train.steps=24", "eval.every=24", "eval.shifts=[train]", "wandb.mode=disabled", "run.dir=run"]
    trained = subprocess.run(
        [sys.executable, "-m", "common.cli", *command[1:], "--preset", "smoke", *quick],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert trained.returncode == 0, trained.stderr
    recorded = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text(encoding="utf-8"))
    assert recorded["losses"]["mask_ratio"] == 2
    assert recorded["losses"]["background"] == 2  # SMG's own
