"""docs/new_agent.md, run as it is written."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs" / "new_agent.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def train(folder: Path, *arguments: str) -> None:
    """`smg` with these arguments, cut short, in the folder with the page's files."""
    (folder / "one_sided.py").write_text("\n\n".join(blocks("python")), encoding="utf-8")
    (folder / "one_sided.yaml").write_text(blocks("yaml")[0], encoding="utf-8")
    quick = [
        "train.steps=24",
        "train.log_every=4",
        "eval.every=24",
        "eval.shifts=[train]",
        "wandb.mode=disabled",
        "run.dir=run",
    ]
    trained = subprocess.run(
        [sys.executable, "-m", "common.cli", *arguments, "--preset", "smoke", *quick],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert trained.returncode == 0, trained.stderr


@pytest.mark.parametrize(("kind", "term"), [("CalmSMG", "calm"), ("SteadySMG", "steady")])
def test_an_added_loss_is_computed(tmp_path, kind, term):
    train(tmp_path, "train", "--agent", f"one_sided:{kind}", "--task", "walker_walk", f"losses.{term}=3")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert any(0 <= line.get(f"loss/{term}", -1) <= 4 for line in lines)


def test_the_page_trains_what_it_builds(tmp_path):
    command = blocks("bash")[0].split()
    assert command[0] == "smg"
    train(tmp_path, *command[1:])
    recorded = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text(encoding="utf-8"))
    assert recorded["losses"]["mask_ratio"] == 2
    assert recorded["losses"]["background"] == 2  # SMG's own
    found = json.loads((tmp_path / "run" / "provenance.json").read_text(encoding="utf-8"))
    code = (tmp_path / "one_sided.py").read_bytes()
    assert found["agent_code"] == {"one_sided.py": hashlib.sha256(code).hexdigest()}
