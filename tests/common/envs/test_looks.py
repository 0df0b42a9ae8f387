"""Rendered looks against reference frames, and the check that an installed package makes."""

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common import gl
from common.envs import golden
from common.envs.presets import read_presets

gl.select_backend()

# These import MuJoCo, which reads MUJOCO_GL at import.
from dm_control import suite  # noqa: E402

from common.envs import looks  # noqa: E402
from common.envs.camera import Camera  # noqa: E402

TASKS = ("walker_walk", "cartpole_swingup", "ball_in_cup_catch", "finger_spin", "cheetah_run")

Draw = Callable[[looks.Look], np.ndarray]


@pytest.fixture(scope="module")
def reference() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parents[2] / "fixtures" / "frames.npz") as content:
        return dict(content)


@pytest.fixture(params=TASKS)
def task(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def draw(task: str, reference: dict[str, np.ndarray]) -> Draw:
    """Frames of the reference states under a look: uint8 (2, 84, 84, 3)."""
    # No episode is begun: that would hide finger_spin's target, which the references show.
    domain, name = task.rsplit("_", 1)
    physics = suite.load(domain, name).physics
    camera = Camera(physics, 0, 84)

    def render(look: looks.Look) -> np.ndarray:
        looks.wear(physics, look)
        frames = []
        for state in reference[f"state/{task}"]:
            with physics.reset_context():
                physics.set_state(state)
            frames.append(camera.frame().transpose(1, 2, 0))
        return np.stack(frames)

    return render


def share_within_two_levels(frames: np.ndarray, expected: np.ndarray) -> float:
    return float((np.abs(frames.astype(int) - expected).max(axis=-1) <= 2).mean())


def test_train_and_green_screens(task: str, draw: Draw, reference: dict[str, np.ndarray]) -> None:
    # Back to train at the end: nothing of a look may stay behind.
    for shift, name in (
        ("video_hard", "video_hard_green"),
        ("video_easy", "video_easy_green"),
        ("train", "train"),
    ):
        expected = reference[f"frame/{task}/{name}"]
        assert share_within_two_levels(draw(looks.look(shift, None)), expected) >= 0.99, name


@pytest.mark.slow
def test_colour_presets(task: str, draw: Draw, reference: dict[str, np.ndarray], real_data: Path) -> None:
    names = [name.split("/")[2] for name in reference if name.startswith(f"frame/{task}/color")]
    assert len(names) == 4
    for name in names:
        shift, number = name.rsplit("_", 1)
        preset = read_presets(real_data / f"{shift}.pt")[int(number)]
        expected = reference[f"frame/{task}/{name}"]
        assert share_within_two_levels(draw(looks.look(shift, preset)), expected) >= 0.99, name


def test_the_comparison_tells_looks_apart(reference: dict[str, np.ndarray]) -> None:
    for task in TASKS:
        green, train = (reference[f"frame/{task}/{look}"] for look in ("video_easy_green", "train"))
        assert share_within_two_levels(green, train) < 0.8


def prepare_camera(monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], None]) -> None:
    """Change each model of the golden check before it is drawn."""
    make = Camera.__init__

    def changed(self: Camera, physics: Any, **arguments: Any) -> None:
        change(physics.model.ptr)
        make(self, physics, **arguments)

    monkeypatch.setattr(Camera, "__init__", changed)


@pytest.mark.slow
def test_golden_check_passes_here_and_on_a_renderer_with_other_edges(monkeypatch: pytest.MonkeyPatch) -> None:
    assert golden.golden_check() >= 0.995

    def without_multisampling(model: Any) -> None:
        model.vis.quality.offsamples = 0

    prepare_camera(monkeypatch, without_multisampling)
    assert golden.golden_check() >= 0.99


@pytest.mark.slow
def test_golden_check_fails_where_the_floors_texture_lies_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with the MuJoCo versions that anchor it anew."""

    def moved(model: Any) -> None:
        texture, pixels = looks._texture(model, "grid")
        side = int(model.tex_width[texture])
        image = model.tex_data[pixels].reshape(side, side, 3)
        model.tex_data[pixels] = np.roll(image, side // 4, axis=(0, 1)).ravel()

    prepare_camera(monkeypatch, moved)
    assert golden.golden_check() < 0.9


@pytest.mark.slow
def test_golden_check_fails_on_a_moved_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = Camera.frame
    monkeypatch.setattr(Camera, "frame", lambda camera: np.roll(frame(camera), 3, axis=2))
    assert golden.golden_check() < golden.LEAST_SHARE


def test_edges_are_where_neighbours_differ() -> None:
    image = np.full((5, 6, 3), 100, np.uint8)
    image[:, 4:, 1] += 17  # more than 16 levels, in one colour
    image[0, 0] += 16  # just not more
    expected = np.ones((5, 6), bool)
    expected[:, 3:5] = False  # one pixel on either side
    np.testing.assert_array_equal(golden.away_from_edges(image), expected)
    # The references have enough to compare.
    with np.load(str(files("common.envs").joinpath("golden", "frames.npz"))) as content:
        shares = [golden.away_from_edges(content[key]).mean() for key in content.files if "frame" in key]
    assert len(shares) == 5 and min(shares) > 0.6 and np.mean(shares) == pytest.approx(0.8, abs=0.02)
