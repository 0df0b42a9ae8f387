"""The benchmark environment: interface, episodes, shifts, and the order of evaluation."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from common.config.shifts import SHIFTS, shifts_of
from common.envs import BENCHMARK_TASKS, chroma, tasks
from common.envs.backgrounds import data_summary
from common.envs.benchmark import BenchmarkEnv
from common.errors import UserError

Make = Callable[..., BenchmarkEnv]

# Of the data folder's clips and presets, made in conftest.py.
CLIP_FRAMES = 6
HARD_CLIPS = ["video0.mp4", "video2.mp4", "video3.mp4", "video7.mp4"]


@pytest.fixture
def make(data_folder: Path) -> Iterator[Make]:
    """Environments on the small data folder, closed afterwards."""
    made = []

    def build(task: str = "walker_walk", shift: str = "train", **arguments: Any) -> BenchmarkEnv:
        arguments.setdefault("data_root", str(data_folder))
        env = BenchmarkEnv(task, shift, **arguments)
        made.append(env)
        return env

    yield build
    for env in made:
        env.close()


def actions(env: BenchmarkEnv, count: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (count, env.action_size)).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("shift", [*SHIFTS, "color_video_hard", "rotate_shift_hard"])
def test_passes_gymnasiums_checker(make: Make, shift: str) -> None:
    # Warnings are errors here.
    env = make(shift=shift, episode_steps=20, render_mode="rgb_array")
    check_env(env, skip_render_check=True)


def test_ids_are_registered(data_folder: Path) -> None:
    for task in BENCHMARK_TASKS:
        for shift in shifts_of(task):
            spec = gymnasium.spec(f"DMCGB/{task}-{shift}-v0")
            assert spec.kwargs == {"task": task, "shift": shift}
    env = gymnasium.make("DMCGB/cartpole_swingup-video_hard-v0", data_root=str(data_folder))
    obs, info = env.reset(seed=0)
    assert obs.shape == (9, 84, 84) and obs.dtype == np.uint8
    assert info["background"] == "video2.mp4"
    assert env.action_space == gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    env.close()


@pytest.mark.slow
@pytest.mark.parametrize("task", [task for task in BENCHMARK_TASKS if task != "walker_stand"])
def test_simulation_and_reward_are_equal_to_the_bit_under_every_shift(make: Make, task: str) -> None:
    trajectories = []
    for shift in (*SHIFTS, "color_video_hard", "shift_hard"):
        env = make(task, shift, seed=5, action_repeat=8)
        frames = [env.reset()[0]]
        states, rewards = [env.simulator_state()], []
        for action in actions(env, 3):
            obs, reward, *_ = env.step(action)
            frames.append(obs)
            states.append(env.simulator_state())
            rewards.append(reward)
        trajectories.append((np.stack(states), rewards, np.stack(frames)))
    states, rewards, frames = trajectories[0]
    assert not np.array_equal(states[0], states[-1])
    for other_states, other_rewards, other_frames in trajectories[1:]:
        np.testing.assert_array_equal(other_states, states)
        assert other_rewards == rewards
        assert (other_frames != frames).mean() > 0.3


def test_equals_dm_control_stepped_and_rendered_by_hand(make: Make) -> None:
    env = make("cartpole_swingup", seed=3, action_repeat=8, episode_steps=1000)
    obs, _ = env.reset()
    from dm_control import suite

    twin = suite.load("cartpole", "swingup", task_kwargs={"random": np.random.RandomState(3)})
    twin.reset()
    twin.reset()  # the first one was the environment's own, before anything was asked of it
    frames = [twin.physics.render(84, 84, camera_id=0)] * 3
    for action in actions(env, 4):
        np.testing.assert_array_equal(obs, np.concatenate(frames[-3:], axis=2).transpose(2, 0, 1))
        obs, reward, terminated, truncated, info = env.step(action)
        assert reward == sum(twin.step(action.astype(np.float64)).reward or 0.0 for _ in range(8))
        assert (terminated, truncated, info) == (False, False, {"background": None})
        frames.append(twin.physics.render(84, 84, camera_id=0))
    np.testing.assert_array_equal(obs, np.concatenate(frames[-3:], axis=2).transpose(2, 0, 1))


@pytest.mark.parametrize(("steps", "repeat"), [(12, 4), (10, 4), (3, 8), (5, 1)])
def test_an_episode_is_truncated_after_its_simulator_steps(make: Make, steps: int, repeat: int) -> None:
    env = make(action_repeat=repeat, episode_steps=steps, image_size=16)
    for _ in range(2):
        env.reset()
        ends = []
        while not (ends and ends[-1]):
            _, _, terminated, truncated, _ = env.step(np.zeros(6, np.float32))
            assert not terminated
            ends.append(truncated)
        assert len(ends) == math.ceil(steps / repeat)
        # 40 control steps of 0.0025 s x 10 a second
        assert env.simulator_state()[0] == pytest.approx(steps * 0.025)


def test_only_a_task_that_ends_itself_terminates(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    env = make(action_repeat=4, image_size=16)
    env.reset()
    task = env._simulator.environment.task
    results = iter([None, None, None, None, None, 0.0])
    monkeypatch.setattr(task, "get_termination", lambda physics: next(results))
    assert env.step(np.zeros(6, np.float32))[2:4] == (False, False)
    _, reward, terminated, truncated, _ = env.step(np.ones(6, np.float32))
    assert (terminated, truncated) == (True, False)
    assert env.simulator_state()[0] == pytest.approx(6 * 0.025)
    assert 0 <= reward <= 2  # two simulator steps of at most 1 each


def test_actions_are_scaled_to_the_tasks_range(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    env = make("walker_walk", image_size=16, action_repeat=1)
    env.reset()
    simulator = env._simulator
    simulator._centre, simulator._reach = np.full(6, 3.0), np.arange(6.0)
    sent = []
    step = simulator.environment.step
    monkeypatch.setattr(simulator.environment, "step", lambda action: sent.append(action) or step(action * 0))
    env.step(np.array([1, 1, -1, 0.5, 0, 7], np.float32))
    np.testing.assert_array_equal(sent[0], [3, 4, 1, 4.5, 3, 8])


def test_unlimited_actuators_take_the_action_as_it_is(make: Make) -> None:
    env = make("lqr_lqr_2_1", image_size=16)
    np.testing.assert_array_equal(env._simulator._centre, [0.0])
    np.testing.assert_array_equal(env._simulator._reach, [1.0])


DOMAINS = {task.partition("_")[0]: task for task in reversed(tasks.SUITE_TASKS)}


DYNAMICS = (
    "body_mass", "body_inertia", "jnt_stiffness", "dof_damping", "dof_armature", "dof_frictionloss",
    "actuator_gainprm", "actuator_biasprm", "actuator_gear", "tendon_stiffness", "geom_friction",
)  # fmt: skip


@pytest.mark.parametrize("task", ["lqr_lqr_6_2", *DOMAINS.values()])
def test_a_task_has_one_plant_whatever_the_seed(task: str) -> None:
    one, two = (tasks.build(task, "dmcgb", np.random.RandomState(seed)).physics.model for seed in (0, 42))
    for name in DYNAMICS:
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name), name)


def test_observations_hold_three_frames_oldest_first(make: Make) -> None:
    env = make("cheetah_run", seed=1)
    obs, _ = env.reset()
    np.testing.assert_array_equal(obs[:3], obs[3:6])
    np.testing.assert_array_equal(obs[:3], obs[6:])
    previous = obs
    for action in actions(env, 4):
        obs = env.step(action)[0]
        np.testing.assert_array_equal(obs[:6], previous[3:])
        assert not np.array_equal(obs[6:], previous[6:])
        previous = obs
    assert make("cheetah_run", frames=1).reset()[0].shape == (3, 84, 84)


def test_a_clip_advances_one_frame_per_agent_step_and_wraps(make: Make) -> None:
    env = make("walker_walk", "video_hard", seed=0, action_repeat=2)
    sky = (slice(None), 2, 40)  # a pixel far above the walker
    levels = [env.reset()[0][-3:][sky]]
    levels += [env.step(np.zeros(6, np.float32))[0][-3:][sky] for _ in range(7)]
    # Clip number 2 begins at level 40 and rises by 3 a frame; JPEG moves a level by one or two.
    expected = [40 + 3 * (time % CLIP_FRAMES) for time in range(8)]
    np.testing.assert_allclose(np.mean(levels, axis=1), expected, atol=2)


def test_video_frames_are_the_green_render_with_the_clip_behind(make: Make) -> None:
    """Frame and key computed once more, from dm_control's renders and a float64 key."""
    for shift in ("video_easy", "video_hard"):
        env = make("finger_spin", shift, seed=2)
        obs, _ = env.reset()
        clip = env._clips[1].frames(84)
        for time in range(2):
            physics = env._simulator.physics
            green = physics.render(84, 84, camera_id=0).transpose(2, 0, 1)
            expected = np.where(chroma.is_green(*green), clip[time], green)
            np.testing.assert_array_equal(obs[-3:], expected)
            obs = env.step(np.full(2, 0.3, np.float32))[0]


def test_training_episodes_move_on_by_one_clip(make: Make) -> None:
    env = make(shift="video_hard", image_size=16)
    seen = [env.reset()[1]["background"] for _ in range(5)]
    assert seen == HARD_CLIPS[1:] + HARD_CLIPS[:2]  # the first one shows clip 1, clip 0 comes last
    assert env.reset(seed=0)[1]["background"] == HARD_CLIPS[1]


def test_evaluation_goes_through_the_clips_in_the_benchmarks_order(make: Make) -> None:
    env = make(shift="video_hard", image_size=16)
    seen = []
    for evaluation in range(2):
        for episode in range(3):
            options = {"evaluation": evaluation, "episode": episode, "episodes": 3}
            seen.append(env.reset(options=options)[1]["background"])
    assert seen == [HARD_CLIPS[index] for index in (1, 2, 3, 0, 1, 2)]
    easy = make(shift="video_easy", image_size=16)
    assert len(easy._clips) == len(make(shift="video_easy", image_size=16, clips=(2, 3))._clips) > 0
    chosen = make(shift="video_hard", image_size=16, clips=(2, 3))
    assert [chosen.reset()[1]["background"] for _ in range(3)] == ["video3.mp4", "video2.mp4", "video3.mp4"]


@pytest.mark.parametrize("shift", ["color_hard", "video_hard"])
def test_evaluation_episodes_depend_on_seed_and_numbers_only(make: Make, shift: str) -> None:
    def episode(env: BenchmarkEnv, evaluation: int, number: int) -> tuple[Any, ...]:
        obs, info = env.reset(options={"evaluation": evaluation, "episode": number, "episodes": 5})
        return obs.tobytes(), info["background"], env.simulator_state().tobytes()

    fresh = make(shift=shift, seed=42)
    used = make(shift=shift, seed=42)
    used.reset()
    used.step(np.ones(6, np.float32))
    backwards = {number: episode(used, 3, number) for number in (4, 3, 2, 1, 0)}
    forwards = {number: episode(fresh, 3, number) for number in range(5)}
    assert backwards == forwards
    assert len({state for _, _, state in forwards.values()}) == 5
    assert episode(fresh, 4, 0)[2] != forwards[0][2]
    assert episode(make(shift=shift, seed=43), 3, 0)[2] != forwards[0][2]


def test_colour_presets_are_drawn_with_replacement_from_the_seed(make: Make) -> None:
    env = make(shift="color_easy", seed=9, image_size=16)
    drawn = [env.reset()[1]["background"] for _ in range(8)]
    random = np.random.RandomState(9)
    assert drawn == [random.randint(5) for _ in range(8)]
    assert len(set(drawn)) < 8


def test_reset_with_a_seed_starts_over(make: Make) -> None:
    env = make(shift="color_hard", seed=1)
    first, info = env.reset(seed=7)
    env.step(np.ones(6, np.float32))
    env.reset()
    again, info_again = env.reset(seed=7)
    np.testing.assert_array_equal(first, again)
    assert info == info_again
    np.testing.assert_array_equal(make(shift="color_hard", seed=2).reset(seed=7)[0], first)


def test_smgs_models_have_its_cart_pole_and_camera(make: Make) -> None:
    cartpole = make("cartpole_swingup", model="smg", image_size=16)._simulator.physics.named.model
    np.testing.assert_array_equal(cartpole.geom_size["cart"], [0.3, 0.15, 0.2])
    assert cartpole.geom_size["pole_1"][0] == 0.1
    cheetah = make("cheetah_run", model="smg", image_size=16)._simulator.physics.named.model
    np.testing.assert_array_equal(cheetah.cam_pos["side"], [0, -2.2, 0.8])
    half = np.radians(35)
    np.testing.assert_allclose(cheetah.cam_quat["side"], [np.cos(half), np.sin(half), 0, 0], atol=1e-12)
    standard = make("cartpole_swingup", image_size=16)._simulator.physics.named.model
    np.testing.assert_array_equal(standard.geom_size["cart"], [0.2, 0.15, 0.1])
    assert standard.geom_size["pole_1"][0] == 0.045
    for task in ("walker_walk", "finger_spin"):
        one, other = (make(task, seed=1, model=model) for model in ("smg", "dmcgb"))
        np.testing.assert_array_equal(one.reset()[0], other.reset()[0])


@pytest.mark.parametrize(
    ("task", "share"),
    [
        ("walker_walk", 0.067),
        ("walker_stand", 0.068),
        ("cartpole_swingup", 0.037),
        ("ball_in_cup_catch", 0.010),  # 0.008 without the string, some 13 of 7,056 pixels
        ("finger_spin", 0.069),
        ("cheetah_run", 0.042),
    ],
)
def test_foreground_shares_equal_the_measured_ones(make: Make, task: str, share: float) -> None:
    env = make(task, "train", seed=0, action_repeat=8)
    masks = []
    for _ in range(6):
        env.reset()
        for action in actions(env, 2):
            env.step(action)
            masks.append(env.segmentation())
    assert masks[0].dtype == bool and masks[0].shape == (84, 84)
    assert np.mean(masks) == pytest.approx(share, rel=0.12)


@pytest.mark.parametrize("task", ["walker_walk", "finger_spin", "cheetah_run", "ball_in_cup_catch"])
def test_foreground_is_what_the_key_leaves_standing(make: Make, task: str) -> None:
    env = make(task, "video_hard", seed=4)
    obs, _ = env.reset()
    standing = (obs[-3:] != env._clips[1].frames(84)[0]).any(axis=0)
    truth = env.segmentation()
    # Antialiased edges and the ball's string are a blend with green, so the two differ along outlines.
    assert (standing & truth).sum() / (standing | truth).sum() > 0.75


def test_rendering_shows_the_newest_frame(make: Make) -> None:
    env = make(shift="video_easy", render_mode="rgb_array")
    env.reset()
    obs = env.step(np.zeros(6, np.float32))[0]
    frame = env.render()
    assert frame is not None
    np.testing.assert_array_equal(frame, obs[-3:].transpose(1, 2, 0))


def test_without_data_backgrounds_are_procedural_and_say_so(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SMG_DATA", raising=False)
    for shift, first in (("video_easy", "procedural/1"), ("video_hard", "procedural/1")):
        assert make(shift=shift, data_root=None, image_size=16).reset()[1]["background"] == first
    drawn = np.random.RandomState(0).randint(100)
    colour = make(shift="color_easy", data_root=None, image_size=16).reset()[1]["background"]
    assert colour == f"procedural/{drawn}"
    summary = data_summary(None)
    assert (summary["root"], summary["source"]) == (None, "procedural")
    assert (summary["video_easy"]["clips"], summary["video_hard"]["clips"]) == (10, 100)


def test_only_the_clip_an_episode_needs_is_decoded(make: Make, decoded: list[str]) -> None:
    env = make(shift="video_easy", image_size=20)
    assert decoded == []
    env.reset()
    assert decoded == ["video1.mp4"]
    make(shift="video_easy", image_size=20).reset()  # shared through the cache
    assert decoded == ["video1.mp4"]


def test_bad_arguments_are_named(make: Make, tmp_path: Path, data_folder: Path) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"task": "walker_wlak"}, "unknown task 'walker_wlak': did you mean 'walker_walk'"),
        ({"shift": "video_hrad"}, "unknown shift 'video_hrad'.*did you mean 'video_hard'"),
        ({"model": "smgg"}, "unknown env.model 'smgg': did you mean 'smg'"),
        ({"action_repeat": 0}, "env.action_repeat is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"episode_steps": 0}, "env.episode_steps is 0"),
        ({"shift": "video_hard", "data_root": "/no/such"}, "data.root: no folder /no/such"),
        ({"shift": "video_hard", "data_root": str(tmp_path)}, "no clips in .*video_hard"),
        ({"shift": "color_hard", "data_root": str(tmp_path)}, r"color_hard\.pt: No such file"),
        ({"shift": "video_hard", "clips": (4, 6)}, "no clip of video_hard has a number from 4 to 6"),
    ]
    for arguments, message in cases:
        with pytest.raises(UserError, match=message):
            make(**{"data_root": str(data_folder)} | arguments)


def test_a_damaged_clip_is_named_when_its_episode_begins(make: Make, tmp_path: Path) -> None:
    (tmp_path / "video_hard").mkdir()
    for name in ("video5.mp4", "video11.mp4"):
        (tmp_path / "video_hard" / name).touch()
    env = make(shift="video_hard", data_root=str(tmp_path), image_size=16)
    with pytest.raises(UserError, match=r"video11\.mp4 is empty"):
        env.reset()


def test_data_summary_counts_and_fingerprints(data_folder: Path, tmp_path: Path) -> None:
    summary = data_summary(data_folder)
    assert summary["root"] == str(data_folder) and summary["source"] == "files"
    assert summary["video_hard"]["numbers"] == [0, 2, 3, 7]
    assert summary["video_hard"]["clips"] == 4
    assert summary["color_easy"]["presets"] == 5
    assert summary == data_summary(data_folder)
    hashes = {summary[shift]["hash"] for shift in SHIFTS[1:]}
    assert len(hashes) == 4 and None not in hashes
    (tmp_path / "video_hard").mkdir()
    for number in (10, 9):
        (tmp_path / "video_hard" / f"video{number}.mp4").write_bytes(b"x" * number)
    (tmp_path / "video_hard" / "notes.txt").touch()
    partial = data_summary(tmp_path)
    assert partial["video_hard"]["numbers"] == [9, 10]
    assert (partial["video_easy"]["clips"], partial["color_easy"]["presets"]) == (0, 0)
    before = partial["video_hard"]["hash"]
    (tmp_path / "video_hard" / "video9.mp4").write_bytes(b"y" * 9)
    assert data_summary(tmp_path)["video_hard"]["hash"] != before


def test_the_real_data_is_found(real_data: Path) -> None:
    summary = data_summary(real_data)
    assert summary["video_easy"]["numbers"] == [0, 1, 2, 6]
    assert summary["video_hard"]["numbers"] == list(range(50))
    assert (summary["color_easy"]["presets"], summary["color_hard"]["presets"]) == (100, 100)
