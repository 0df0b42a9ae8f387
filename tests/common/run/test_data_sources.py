"""Whose overlay images and clips count, and which changes of them are told."""

from typing import Any

import pytest

from common.config.loading import load
from common.run.data_sources import data_sources, other_data

OVERLAY = {"overlay": {"source": "photographs", "images": 9, "sha256": "0123456789abcdef0"}}
CLIPS = {"data": {"source": "files", "video_hard": {"clips": 50, "hash": "aa"}}}


@pytest.mark.parametrize(
    ("agent", "augmentation", "drawn"),
    [
        ("smg", "random_convolution", True),  # ε of τ_attrib, whatever τ is
        ("smg_lite", "random_shift", True),
        ("svea", "overlay", True),
        ("svea", "random_shift", False),
        ("sgqn", "{name: random_convolution}", False),
    ],
)
def test_overlay_images_are_of_the_agents_that_draw_them(agent: str, augmentation: str, drawn: bool) -> None:
    config = load(agent, "walker_walk", "smoke", overrides=[f"augmentation={augmentation}"])
    expected = {"overlay images": "9 files, names' hash 0123456789abcdef"} if drawn else {}
    assert data_sources(config, OVERLAY, ["train"]) == expected


def test_what_was_not_recorded_is_not_compared() -> None:
    config = load("svea", "walker_walk", "smoke", overrides=["eval.shifts=[train,video_hard]"])

    def told(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
        return other_data(config, before, now)

    now = OVERLAY | CLIPS
    assert told({}, now) == told(OVERLAY, now) == told(CLIPS, now) == told(now, now) == []
    others = {"data": {"source": "files", "video_hard": {"clips": 50, "hash": "bb"}}}
    assert told(OVERLAY | others, now) == [
        "backgrounds of video_hard: files, 50 clips, hash bb, not files, 50 clips, hash aa"
    ]
