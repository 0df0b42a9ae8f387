"""Clips checked before anything is learnt."""

import os
from pathlib import Path

import numpy as np
import pytest

from common.envs import clips
from common.envs.backgrounds import check_clips, video_clips
from common.errors import UserError
from tests.common.envs.written_clips import flat, write_clip


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMG_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("episodes", "numbers", "shown"),
    [
        (2, None, ["video2.mp4", "video3.mp4"]),  # of 0, 2, 3, 7 in order, beginning with the second
        (4, None, ["video0.mp4", "video2.mp4", "video3.mp4", "video7.mp4"]),
        (500, (2, 3), ["video2.mp4", "video3.mp4"]),
    ],
)
def test_clips_that_evaluations_show_are_decoded_once(
    episodes: int, numbers: tuple[int, int] | None, shown: list[str], data_folder: Path, decoded: list[str]
) -> None:
    for _ in range(2):
        assert check_clips(data_folder, "video_hard", numbers, range(episodes), 20) == len(shown)
        assert sorted(decoded) == shown
    first = video_clips(data_folder, "video_hard", numbers)[1].frames(20)
    assert sorted(decoded) == shown and isinstance(first, np.memmap)


def test_another_decoder_decodes_anew(
    data_folder: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    check_clips(data_folder, "video_easy", None, [0], 20)
    monkeypatch.setattr(clips, "DECODER", "another")
    check_clips(data_folder, "video_easy", None, [0], 20)
    assert decoded == ["video1.mp4"] * 2


def test_every_clip_that_cannot_be_shown_is_named(tmp_path: Path) -> None:
    (tmp_path / "video_hard").mkdir()
    for number in range(4):
        write_clip(tmp_path / "video_hard" / f"video{number}.mp4", [flat(0)] * 2)
    for number in (1, 2):
        os.truncate(tmp_path / "video_hard" / f"video{number}.mp4", 100 * (2 - number))
    with pytest.raises(
        UserError, match=r"video1\.mp4 is corrupt or not a video: .*\(nor can these be shown: video2\.mp4\)$"
    ):
        check_clips(tmp_path, "video_hard", None, range(4), 20)


def test_procedural_clips_need_no_check(decoded: list[str]) -> None:
    assert check_clips(None, "video_hard", None, range(3), 20) == 3
    assert decoded == []
