"""DMC-GB2's color_video_easy and color_video_hard: a preset and a clip at once."""

from pathlib import Path

import numpy as np
import pytest

from common.envs.backgrounds import NamedPreset, color_presets
from common.envs.benchmark import BenchmarkEnv

EASY, HARD = (
    ["video0.mp4", "video1.mp4", "video4.mp4"],
    ["video0.mp4", "video2.mp4", "video3.mp4", "video7.mp4"],
)
PRESETS = 5


def make(root: Path, shift: str = "color_video_hard", **arguments: object) -> BenchmarkEnv:
    return BenchmarkEnv("walker_walk", shift, data_root=str(root), **arguments)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize(("shift", "clips"), [("color_video_easy", EASY), ("color_video_hard", HARD)])
def test_preset_and_clip_begin_at_one_drawn_number_and_move_on_by_one(
    shift: str, clips: list[str], data_folder: Path
) -> None:
    env = make(data_folder, shift, seed=51, order_seed=9, image_size=16)
    start = np.random.RandomState(9).randint(100)
    # As in the video shifts, the first clip shown is the one after that of the number.
    expected = [(clips[(start + j + 1) % len(clips)], (start + j) % PRESETS) for j in range(6)]

    def shown(info: dict[str, object]) -> tuple[object, object]:
        return info["background"], info["colours"]

    assert [shown(env.reset()[1]) for _ in range(6)] == expected
    for number in reversed(range(6)):
        options = {"evaluation": number // 3, "episode": number % 3, "episodes": 3}
        assert shown(env.reset(options=options)[1]) == expected[number]
    colours = color_presets(data_folder, shift.replace("_video", ""))
    assert env._presets[expected[0][1]].colours.keys() == colours[0].colours.keys()
    for key, value in colours[expected[0][1]].colours.items():
        np.testing.assert_array_equal(env._presets[expected[0][1]].colours[key], value)
    env.close()


def test_the_clip_is_where_nothing_of_the_model_is_and_green_bodies_stay(data_folder: Path) -> None:
    env = make(data_folder, seed=2)
    green, floor = np.array([0.2, 0.8, 0.2]), np.array([0.3, 0.9, 0.3])
    preset = {"grid_rgb1": floor, "grid_rgb2": floor, "self_rgb": green, "skybox_rgb": green}
    env._presets = [NamedPreset(0, preset)]
    obs, info = env.reset()
    clip = next(clip for clip in env._clips if clip.name == info["background"]).frames(84)
    for time in range(2):
        physics = env._simulator.physics
        render = physics.render(84, 84, camera_id=0).transpose(2, 0, 1)
        objects = physics.render(84, 84, camera_id=0, segmentation=True)
        sky = objects[..., 1] == -1
        assert 0.3 < sky.mean() < 0.7
        np.testing.assert_array_equal(obs[-3:], np.where(sky, clip[time], render))
        # Body and floor are green, as the preset has them.
        body = env.segmentation()
        assert (np.argmax(obs[-3:], axis=0) == 1)[body].mean() > 0.9
        assert (np.argmax(obs[-3:], axis=0) == 1)[~sky & ~body].mean() > 0.9
        obs = env.step(np.full(6, 0.3))[0]
    env.close()


def test_of_the_hard_clips_those_chosen_are_shown(data_folder: Path) -> None:
    env = make(data_folder, clips=(2, 3), image_size=16)
    assert {env.reset()[1]["background"] for _ in range(4)} == {"video2.mp4", "video3.mp4"}
    env.close()
