"""docs/metrics.md explains what runs log, no more and no less."""

import re
from pathlib import Path

import pytest

from common.run.console import Console
from common.run.records import read_json_lines
from tests import runs
from tests.common.rl.test_diagnosis import QUICK

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
AFTER_AN_ACCIDENT = {"environment_restarted", "episode/diverged"}


def documented():
    """The keys in the first column of the page's tables."""
    cells = re.findall(r"^\| (`[^|]*`) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    keys = [key for cell in cells for key in re.findall(r"`([^`]+)`", cell)]
    assert len(keys) == len(set(keys))
    return set(keys)


def test_every_logged_key_is_explained_and_a_healthy_run_brings_no_warning(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(Console, "say", lambda _, line: said.append(line))
    logged = {}
    for agent in ("sac", "smg", "sgqn", "svea_soda"):
        crops = ["env.render_size=30"] if agent == "svea_soda" else []
        settings = [*QUICK, *crops, "eval.every=12", "checkpoint.every=5", "data.overlay=null"]
        folder = runs.run(tmp_path / agent, agent, *settings)
        logged[agent] = {key for line in read_json_lines(folder / "metrics.jsonl") for key in line}
    for agent, keys in logged.items():
        assert keys <= documented(), f"{agent} logs what {PAGE.name} does not explain"
    assert documented() == set().union(*logged.values(), AFTER_AN_ACCIDENT)
    assert not any("warning" in line for line in said)


def test_a_warning_leads_to_a_section():
    headings = set(re.findall(r"^## (\w+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    assert {"models", "saliency", "policy"} <= headings
