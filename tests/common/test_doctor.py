"""What `smg doctor` finds, with and without something missing."""

import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from common import doctor, gl
from common.config.loading import load
from common.config.schema import Config
from common.data import replay
from common.doctor import diagnose, examine
from common.envs import golden
from common.gl import NoRenderer
from tests.common.envs.written_clips import flat, write_clip


@pytest.fixture(scope="module")
def renderer() -> gl.Renderer:
    try:
        return gl.select_backend()
    except NoRenderer as error:
        pytest.skip(str(error))


def smoke(*overrides: str) -> Config:
    return load("smg", "walker_walk", "smoke", overrides=["device=cpu", *overrides])


def problems(config: Config) -> dict[str, str]:
    return {finding.name: finding.text for finding in diagnose(config) if not finding.ok}


@pytest.fixture
def without_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SMG_DATA", raising=False)
    monkeypatch.delenv("SMG_OVERLAY", raising=False)


@pytest.fixture
def without_rendering(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out the slow checks, which other tests make."""
    monkeypatch.setattr(doctor, "_speed", lambda config: "not measured")
    monkeypatch.setattr(golden, "golden_check", lambda: 1.0)


@pytest.mark.slow
@pytest.mark.usefixtures("without_data")
def test_a_machine_where_training_can_start(
    renderer: gl.Renderer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert examine(smoke()) == 0
    lines = capsys.readouterr().out.splitlines()
    found = {line[9:23].strip(): line[24:] for line in lines if line.startswith("ok")}
    assert not [line for line in lines if line.startswith("PROBLEM")]
    assert found["Python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["simulator"] == "mujoco 3.11.0, dm_control 1.0.44"
    assert renderer.name in found["OpenGL"]
    assert float(found["speed"].split()[0]) > 0
    assert "84x84" in found["speed"]
    assert float(found["golden frames"].split("%")[0]) >= 99
    assert found["backgrounds"].startswith(
        "10 video_easy clips, 100 video_hard clips, 100 color_easy presets"
    )
    assert "procedural" in found["backgrounds"]
    assert "procedural" in found["overlay images"]
    assert found["W&B"].startswith("offline")
    # 60 transitions of 20 steps an episode: 60 + 3 + 4 frames of 84*84*3 bytes are 1.4 MB.
    assert found["replay"].startswith("60 transitions take 0.00 GB")


@pytest.mark.usefixtures("renderer", "without_rendering")
def test_data_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (0, 3):
        (tmp_path / "video_hard").mkdir(exist_ok=True)
        write_clip(tmp_path / "video_hard" / f"video{number}.mp4", [flat(9)] * 2)
    (tmp_path / "images" / "deep").mkdir(parents=True)
    for name in ("a.jpg", "deep/b.png"):
        (tmp_path / "images" / name).touch()
    config = smoke(
        f"data.root={tmp_path}", f"data.overlay={tmp_path / 'images'}", "eval.shifts=[train, video_hard]"
    )
    found = {finding.name: finding for finding in diagnose(config)}
    assert found["backgrounds"].ok
    assert "0 video_easy clips, 2 video_hard clips" in found["backgrounds"].text
    assert found["overlay images"].text.startswith("2 images")


@pytest.mark.usefixtures("renderer", "without_rendering")
def test_data_that_the_evaluation_lacks_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    found = problems(smoke(f"data.root={tmp_path}", f"data.overlay={tmp_path / 'empty'}"))
    assert found.keys() == {"backgrounds", "overlay images"}
    assert "nothing for color_easy" in found["backgrounds"]
    assert "holds no images" in found["overlay images"]


@pytest.mark.usefixtures("without_data", "renderer", "without_rendering")
def test_each_obstacle_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(golden, "golden_check", lambda: 0.8)
    monkeypatch.setattr(doctor, "PINNED", {"mujoco": "3.12.0", "dm_control": "1.0.44"})
    monkeypatch.setattr(doctor, "PYTHONS", ((3, 9),))
    monkeypatch.setattr(doctor.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(replay, "available_memory", lambda device: 1000)
    config = load("smg", "walker_walk", "smoke", overrides=["device=cuda"])
    found = problems(config)
    assert "needs Python 3.11 or 3.12" in found["Python"]
    assert "device=cuda" in found["PyTorch"]
    assert "pip install mujoco==3.12.0 dm_control==1.0.44" in found["simulator"]
    assert found["golden frames"].startswith("80.00% of the pixels")
    assert "replay" in found
    assert "lower replay.capacity" in problems(smoke())["replay"]
    assert examine(config) == 1
    assert "Training cannot start before this is solved: Python, PyTorch" in capsys.readouterr().out


@pytest.mark.usefixtures("without_data", "renderer", "without_rendering")
def test_without_wandb_training_can_start(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = doctor.version

    def version(package: str) -> str:
        if package == "wandb":
            raise PackageNotFoundError(package)
        return installed(package)

    monkeypatch.setattr(doctor, "version", version)
    found = {finding.name: finding for finding in diagnose(smoke())}
    assert found["W&B"].ok and "not installed" in found["W&B"].text


@pytest.mark.parametrize(
    ("gpu", "training", "text"),
    [
        ("0000:3b:00.0", gl.Gpu("0000:3b:00.0"), "egl: NVIDIA L4, GPU 0000:3b:00.0, which trains"),
        ("0000:3b:00.0", gl.Gpu("0000:d8:00.0"), "egl: NVIDIA L4, GPU 0000:3b:00.0; 0000:d8:00.0 trains"),
        (None, gl.Gpu("0000:d8:00.0"), "egl: NVIDIA L4, EGL does not tell on which GPU; 0000:d8:00.0 trains"),
        ("0000:3b:00.0", None, "egl: NVIDIA L4, GPU 0000:3b:00.0"),
    ],
)
def test_which_gpu_renders(
    monkeypatch: pytest.MonkeyPatch, gpu: str | None, training: gl.Gpu | None, text: str
) -> None:
    asked = []
    drawing = gl.Renderer("egl", "NVIDIA L4", False, gpu)
    monkeypatch.setattr(doctor, "training_gpu", lambda device: training)
    monkeypatch.setattr(gl, "select_backend", lambda gpu: asked.append(gpu) or drawing)
    assert doctor._renderer(smoke()) == text
    assert asked == [training]


@pytest.mark.slow
def test_without_a_renderer_the_status_is_3(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(gpu: gl.Gpu | None) -> gl.Renderer:
        raise NoRenderer("no OpenGL renderer works (egl: gone); run: apt-get install -y libegl1")

    monkeypatch.setattr(gl, "select_backend", fail)
    assert examine(smoke()) == 3
    output = capsys.readouterr().out
    assert (
        "PROBLEM  OpenGL         no OpenGL renderer works (egl: gone); run: apt-get install -y libegl1"
        in output
    )
    assert "golden" not in output


@pytest.mark.usefixtures("renderer", "without_rendering")
def test_every_clip_that_evaluations_show_is_decoded(tmp_path: Path) -> None:
    (tmp_path / "video_easy").mkdir()
    for number in range(3):
        write_clip(tmp_path / "video_easy" / f"video{number}.mp4", [flat(9)] * 3)
    # Steps and evaluations of the preset: 2 evaluations of 1 episode show video1 and video2.
    config = smoke(f"data.root={tmp_path}", "eval.shifts=[video_easy]", "eval.episodes=1")
    assert -(-config.train.steps // config.eval.every) == 2
    found = {finding.name: finding for finding in diagnose(config)}["backgrounds"]
    assert found.ok and found.text.endswith("the 2 clips that evaluations show decode")
    (tmp_path / "video_easy" / "video2.mp4").write_bytes(b"no clip")
    assert "video2.mp4 is corrupt or not a video" in problems(config)["backgrounds"]
