"""A small data folder of known content."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from common import gl
from common.envs import clips
from tests.common.envs.written_clips import flat, write_clip

CLIP_NUMBERS = {"video_easy": (0, 1, 4), "video_hard": (0, 2, 3, 7)}
CLIP_FRAMES = 6

# Test modules import MuJoCo, which reads MUJOCO_GL once.
gl.select_backend()


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips whose frame t has the grey level 10 * number + 3 * t, and five presets per colour shift."""
    root = tmp_path_factory.mktemp("data")
    for shift, numbers in CLIP_NUMBERS.items():
        (root / shift).mkdir()
        for number in numbers:
            frames = [flat(20 * number + 3 * time) for time in range(CLIP_FRAMES)]
            write_clip(root / shift / f"video{number}.mp4", frames)
    random = np.random.default_rng(0)
    for shift in ("color_easy", "color_hard"):
        keys = ("grid_rgb1", "grid_rgb2", "self_rgb", "skybox_rgb")
        presets = [{key: random.uniform(0, 1, 3) for key in keys} for _ in range(5)]
        torch.save(presets, root / f"{shift}.pt", _use_new_zipfile_serialization=False)
    return root


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The benchmark's own data."""
    root = os.environ.get("SMG_DATA")
    if not root:
        pytest.skip("SMG_DATA does not name the benchmark's data")
    return Path(root)


@pytest.fixture(scope="session")
def keyed_fixture() -> dict[str, np.ndarray]:
    """Green renders and what the benchmark's chroma key made of them."""
    folder = os.environ.get("SMG_FIXTURES")
    if not folder:
        pytest.skip("SMG_FIXTURES does not name the folder that holds keyed.npz")
    with np.load(Path(folder) / "keyed.npz") as content:
        return dict(content)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the clips decoded during the test, in order."""
    names: list[str] = []
    decode = clips.decode

    def record(path: Path, size: int) -> np.ndarray:
        names.append(path.name)
        return decode(path, size)

    monkeypatch.setattr(clips, "decode", record)
    return names
