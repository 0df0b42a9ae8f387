"""`env.camera`: a number or a name, what null stands for, and what runs recorded earlier meant by it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.config.loading import load, load_run_config, to_yaml
from common.envs.benchmark import BenchmarkEnv
from common.errors import UserError
from common.run.derived import env_arguments


def camera(task: str, *overrides: str) -> Any:
    return env_arguments(load("sac", task, "smoke", overrides=overrides))["camera"]


def test_null_is_each_domains_usual_one() -> None:
    assert camera("quadruped_walk") == camera("quadruped_fetch") == 2
    assert camera("walker_walk") == camera("dog_run") == camera("cartpole_swingup") == 0
    assert camera("robot_reach") == "third_person"


def test_numbers_and_names() -> None:
    assert camera("walker_walk", "env.camera=1") == 1
    assert camera("walker_walk", "env.camera='1'") == 1
    assert camera("walker_walk", "env.camera=back") == "back"
    for value in ("-1", "1.5", "true", "[1]", "''"):
        with pytest.raises(UserError, match=r"env\.camera: should be a camera's number or name, got"):
            camera("walker_walk", f"env.camera={value}")
    for value in ("0", "side"):
        with pytest.raises(UserError, match=r"env\.camera: should be 'third_person' or 'first_person', got"):
            camera("robot_reach", f"env.camera={value}")


def test_the_camera_is_recorded_and_null_in_an_older_run_was_the_first(tmp_path: Path) -> None:
    for task, recorded, older in (
        ("quadruped_walk", "2", 0),
        ("walker_walk", "0", 0),
        ("robot_reach", "third_person", "third_person"),
    ):
        text = to_yaml(load("sac", task, "smoke"))
        assert f"  camera: {recorded}\n" in text
        (tmp_path / "config.yaml").write_text(text)
        assert str(load_run_config(tmp_path).env.camera) == recorded
        (tmp_path / "config.yaml").write_text(text.replace(f"camera: {recorded}", "camera: null"))
        assert load_run_config(tmp_path).env.camera == older


@pytest.mark.slow
def test_the_environment_looks_through_it() -> None:
    def frame(task: str, **arguments: Any) -> np.ndarray:
        env = BenchmarkEnv(task, seed=3, **arguments)
        obs, _ = env.reset()
        share = env.segmentation().mean()
        env.close()
        return np.append(obs[-3:].ravel(), share)

    quadruped = [frame("quadruped_walk", camera=number) for number in (0, 1, 2)]
    np.testing.assert_array_equal(frame("quadruped_walk"), quadruped[2])
    np.testing.assert_array_equal(frame("quadruped_walk", camera="y"), quadruped[2])
    np.testing.assert_array_equal(frame("quadruped_walk", camera="x"), quadruped[1])
    # Camera 0 shows it on some 22 of 7,056 pixels, the usual one on a twentieth of them.
    assert quadruped[0][-1] < 0.005
    assert 0.03 < quadruped[2][-1] < 0.07
    assert not np.array_equal(frame("walker_walk"), frame("walker_walk", camera=1))


def test_wrong_ones_are_refused_with_the_list() -> None:
    known = r"choose from 0 \(global\), 1 \(x\), 2 \(y\), 3 \(egocentric\)"
    for wrong in (4, "z", -1):
        with pytest.raises(UserError, match=rf"env\.camera: quadruped_walk has no camera {wrong!r}; {known}"):
            BenchmarkEnv("quadruped_walk", camera=wrong)
    with pytest.raises(
        UserError, match=r"unknown env\.camera 'side': choose from third_person, first_person"
    ):
        BenchmarkEnv("robot_reach", camera="side", action_repeat=1, episode_steps=50)
