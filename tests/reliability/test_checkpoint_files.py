"""The checkpoint folder survives a kill at any file operation, damage and hostile content."""

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from common.errors import CorruptFile, UserError
from common.run import checkpoint
from tests.reliability import crash_points, tiny
from tests.reliability.conftest import Moments
from tests.reliability.crash_points import NEW, NEXT, OLD, OLDER

pytestmark = pytest.mark.slow


def test_a_kill_at_any_file_operation_leaves_the_old_or_the_new_checkpoint(tmp_path: Path):
    command = [sys.executable, "-m", "tests.reliability.crash_points", str(tmp_path)]
    outcomes = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    for damaged, before in ((False, OLD), (True, OLDER)):
        chosen = [outcome for outcome in outcomes if outcome["damaged"] is damaged]
        loaded = [outcome["after_kill"] for outcome in chosen]
        new_from = loaded.index(NEW)
        assert new_from > 15 and loaded == [before] * new_from + [NEW] * (len(loaded) - new_from)
        assert [outcome["killed"] for outcome in chosen] == [True] * (len(chosen) - 1) + [False]
        for outcome, kept in zip(chosen, loaded, strict=True):
            assert outcome["after_save"] == NEXT
            assert set(outcome["states"]) == {str(kept), str(NEXT)}
            assert outcome["leftovers"] == []


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder with the checkpoints OLDER and OLD."""
    folder = tmp_path_factory.mktemp("saved") / "checkpoint"
    checkpoint.save(folder, OLDER, crash_points.state_at(OLDER), crash_points.replay_at(OLDER))
    crash_points.go_on_and_save(folder, OLD)
    return folder


def newest_state(folder: Path) -> Path:
    return folder / checkpoint.read_manifest(folder / "latest.json")["state"]


def newest_chunk(folder: Path) -> Path:
    """A file of the newest checkpoint's replay that the previous one does not need."""
    latest, previous = (
        checkpoint.read_manifest(folder / name)["replay"]["frames"]
        for name in ("latest.json", "previous.json")
    )
    [chunk] = [chunk for chunk in latest if chunk["sha256"] == latest[-1]["sha256"] and chunk not in previous]
    return folder / "replay" / f"frames-{chunk['first']:010d}-{chunk['sha256'][:16]}.chunk"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def swap(path: Path) -> None:
    other = next(other for other in sorted(path.parent.glob(f"*{path.suffix}")) if other != path)
    shutil.copyfile(other, path)


@pytest.mark.parametrize("damage", [flip, cut, swap, Path.unlink, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("part", [newest_state, newest_chunk])
def test_damage_to_the_newest_checkpoint_leaves_the_one_before(
    part: Callable[[Path], Path], damage: Callable[[Path], None], saved: Path, tmp_path: Path
):
    folder = shutil.copytree(saved, tmp_path / "checkpoint")
    path = part(folder)
    damage(path)
    replay = crash_points.replay_at(0)
    state, problem = checkpoint.load(folder, replay)
    assert problem and path.name in problem
    assert state["step"] == OLDER and len(replay) == OLDER


@pytest.mark.parametrize("content", [b"", b"{}", b"[" * 100_000, b'{"step": 600}', b"\xff"])
def test_damage_to_the_newest_manifest_leaves_the_checkpoint_before(
    content: bytes, saved: Path, tmp_path: Path
):
    folder = shutil.copytree(saved, tmp_path / "checkpoint")
    (folder / "latest.json").write_bytes(content)
    state, problem = checkpoint.load(folder, None)
    assert problem and "latest.json is not a checkpoint manifest" in problem
    assert state["step"] == OLDER


def test_without_a_readable_checkpoint_the_remedy_is_named(saved: Path, tmp_path: Path):
    folder = shutil.copytree(saved, tmp_path / "checkpoint")
    for path in (folder / "replay").iterdir():
        flip(path)
    with pytest.raises(CorruptFile, match=r"checkpoint\.replay=none resumes without the saved replay"):
        checkpoint.load(folder, crash_points.replay_at(0))
    assert checkpoint.load(folder, None)[0]["step"] == OLD


@pytest.mark.parametrize("part", [newest_state, newest_chunk], ids=["state", "replay"])
def test_a_run_falls_back_says_so_and_ends_as_ever(
    part: Callable[[Path], Path], stopped: Path, unbroken: Path, moments: Moments
):
    flip(part(stopped / "checkpoint"))
    assert tiny.resume(stopped) == 0
    [line] = [line for line in moments.said if line.startswith("using the previous checkpoint: ")]
    assert "damaged" in line or "does not match its checksum" in line
    tiny.assert_equal(stopped, unbroken)


def test_a_run_without_a_readable_checkpoint_ends_in_one_line(
    stopped: Path, capsys: pytest.CaptureFixture[str]
):
    for path in (stopped / "checkpoint").glob("state-*"):
        flip(path)
    assert tiny.resume(stopped) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("smg: no readable checkpoint: ")


# From strangers


class Malicious:
    """Writes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch '{self.target}'",)


def replace_state(folder: Path, content: bytes) -> None:
    """Make a file the newest checkpoint's state, checksum and all."""
    path = newest_state(folder)
    path.write_bytes(content)
    manifest = json.loads((folder / "latest.json").read_text())
    (folder / "latest.json").write_text(json.dumps(manifest | {"sha256": checkpoint.sha256(path)}))


@pytest.mark.parametrize("form", ["torch", "legacy torch", "pickle"])
def test_a_malicious_pickle_runs_nothing(form: str, saved: Path, tmp_path: Path):
    folder = shutil.copytree(saved, tmp_path / "checkpoint")
    target, file = tmp_path / "executed", tmp_path / "malicious"
    if form == "pickle":
        file.write_bytes(pickle.dumps({"step": Malicious(target)}))
    else:
        torch.save({"step": Malicious(target)}, file, _use_new_zipfile_serialization=form == "torch")
    replace_state(folder, file.read_bytes())
    (folder / "previous.json").unlink()
    with pytest.raises(CorruptFile) as refused:
        checkpoint.load(folder, None)
    if form == "torch":
        assert re.search(
            rf"state-{OLD}-\w+\.pt is refused: its pickle asks for \w+\.system", str(refused.value)
        )
    assert not target.exists()
    torch.load(file, weights_only=False) if form == "torch" else pickle.loads(pickle.dumps(Malicious(target)))
    assert target.exists()  # it would have


def test_a_file_that_unpacks_to_gigabytes_is_refused_unread(saved: Path, tmp_path: Path):
    folder = shutil.copytree(saved, tmp_path / "checkpoint")
    bomb = tmp_path / "bomb"
    with zipfile.ZipFile(newest_state(folder)) as archive, zipfile.ZipFile(bomb, "w") as packed:
        for entry in archive.infolist():
            content = bytes(50_000_000) if entry.filename.endswith("data/0") else archive.read(entry)
            packed.writestr(entry.filename, content, zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 100_000
    replace_state(folder, bomb.read_bytes())
    state, problem = checkpoint.load(folder, None)
    assert state["step"] == OLDER
    assert problem and "it is compressed, or its parts overlap" in problem


@pytest.mark.parametrize(
    "name",
    ["../outside.pt", "/etc/passwd", "state-1/../../outside.pt", "outside.pt", "..", "x" * 300, "a\0b", 7],
)
def test_a_manifest_names_files_of_its_own_folder_only(name: str, saved: Path, tmp_path: Path):
    folder = shutil.copytree(saved, tmp_path / "checkpoint")
    shutil.copyfile(newest_state(folder), tmp_path / "outside.pt")
    shutil.copyfile(newest_state(folder), folder / "outside.pt")
    manifest = json.loads((folder / "latest.json").read_text())
    (folder / "latest.json").write_text(json.dumps(manifest | {"state": name}))
    state, problem = checkpoint.load(folder, None)
    assert state["step"] == OLDER
    assert problem and problem.endswith("is not a checkpoint manifest")


@pytest.mark.parametrize("sha256", ["../../../../outside", "g" * 64, 64 * "0" + "/", None])
def test_a_chunk_list_names_files_of_its_own_folder_only(sha256: str | None, saved: Path, tmp_path: Path):
    folder = shutil.copytree(saved, tmp_path / "checkpoint")
    manifest = json.loads((folder / "latest.json").read_text())
    manifest["replay"]["frames"][0]["sha256"] = sha256
    (folder / "latest.json").write_text(json.dumps(manifest))
    state, problem = checkpoint.load(folder, crash_points.replay_at(0))
    assert state["step"] == OLDER
    assert problem and "manifest" in problem


def test_a_state_of_anything_else_is_refused_in_one_line(stopped: Path, capsys: pytest.CaptureFixture[str]):
    torch.save({"step": 17, "agent": {"networks": 3}}, stopped / "other.pt")
    replace_state(stopped / "checkpoint", (stopped / "other.pt").read_bytes())
    assert tiny.resume(stopped) == 2
    assert "is not one of this configuration" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    "name", ["metrics.jsonl", "checkpoint/latest.json.tmp", ".lock", "mirrored.json.tmp", "wandb"]
)
def test_a_run_folder_does_not_write_through_links(
    name: str, stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    victim = tmp_path / "victim"
    victim.write_text("precious\n")
    (stopped / name).unlink(missing_ok=True)
    (stopped / name).symlink_to(victim)
    assert tiny.resume(stopped) == 2
    assert "leads out of the run folder" in capsys.readouterr().err.splitlines()[-1]
    assert victim.read_text() == "precious\n"


def test_a_pipe_in_a_run_folder_is_not_waited_for(stopped: Path, capsys: pytest.CaptureFixture[str]):
    (stopped / "metrics.jsonl").unlink()
    os.mkfifo(stopped / "metrics.jsonl")
    assert tiny.resume(stopped) == 2
    assert "neither a file nor a folder" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"[1]", "line 1 is not a JSON object"),
        (b'{"step": "4"}', "line 1 has no proper 'step'"),
        (b"{" * 10_000, "line 1 is not JSON"),
        (b'{"step": \xff}', "line 1 is not JSON"),
        (b'{"step": ' + b"9" * 5_000 + b"}", "line 1 is not JSON"),
    ],
)
def test_damaged_records_are_named_by_line(line: bytes, message: str, tmp_path: Path):
    from common.run.records import read_json_lines

    (tmp_path / "metrics.jsonl").write_bytes(line + b"\n")
    with pytest.raises(UserError, match=re.escape(message)):
        read_json_lines(tmp_path / "metrics.jsonl", {"step": int})
