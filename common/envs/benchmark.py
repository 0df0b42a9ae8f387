"""Benchmark tasks as gymnasium environments: those of DMControl-GB and the robotic ones."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import gymnasium
import numpy as np

from common import gl
from common.config.shifts import (
    GEOMETRIC_SHIFTS,
    VIEW_SHIFTS,
    clips_of,
    presets_of,
    remedy,
    shifts_of,
)
from common.envs import backgrounds, chroma, turns
from common.envs.backgrounds import Clip, NamedPreset
from common.envs.random_states import derived, load_random_state_dict, random_state_dict
from common.errors import UserError

# Words that keep the streams drawn from one evaluation episode apart.
_INITIAL_STATE, _LOOK = 0, 1


class BenchmarkEnv(gymnasium.Env):
    """A task seen through a camera, under a visual shift that changes pixels only.

    Observations are the last `frames` RGB frames, oldest first: uint8 (3 * frames, image_size, image_size).
    Actions are float32 in [-1, 1], repeated `action_repeat` simulator steps whose rewards add up. An episode
    is truncated after `episode_steps` simulator steps (the last action is repeated less often if they do not
    divide); it terminates only where the task itself ends it. `info["background"]` names the clip's file, the
    colour preset's number, "procedural/<number>" for either without data, or is None where the shift shows
    neither. Under color_video_* it names the clip and `info["colours"]` the preset; under geometric shifts
    `info["turn"]` numbers the turn.

    Where MuJoCo's simulation diverges, which is rare and ordinary, the episode is truncated: the last good
    frame is shown once more, the failed simulator step is worth nothing, and `info["diverged"]` is True (and
    absent otherwise).

    `reset()` draws the initial state and the colour preset or view from generators seeded with `seed` and
    moves on by one clip. `reset(options={"evaluation": n, "episode": k, "episodes": K})` instead makes all
    three a function of (seed, n, k), whatever was played before: episode k of K in evaluation number n shows
    clip (n * K + k + 1) modulo the number of clips, as the benchmark's wrapper does when it runs them in
    order. DMC-GB2's color_video_* and geometric shifts draw nothing anew: preset, clip or turn of an episode
    follow from `order_seed` and n * K + k, in evaluation and training alike.

    Args:
        task: "walker_walk" or another task of dm_control's suite, "robot_reach" or "robot_peg_in_box".
        shift: a name in `common.config.shifts.shifts_of` the task.
        seed: at least 0.
        order_seed: at least 0; fixes the order of the turns of geometric shifts, and with which clip and
            preset color_video_* begins. None for `seed`, also for that of a `reset`.
        model: "dmcgb" for the suite's models, "smg" for those of SMG's released code (cartpole, cheetah).
        data_root: folder with the benchmark's clips and presets; None takes `$SMG_DATA`, and if that is not
            set either, backgrounds and colours are procedural.
        clips: inclusive range of the numbers of video_hard's clips to show; None for all.
        action_axes: what an action moves in a robotic task, xy or xyz; None for the task's own.
        camera: number or name of one of a suite task's cameras, third_person or first_person in a robotic
            task; None for the task's usual one.
        view_strength: multiplies the sizes of the view shifts; at least 0.
        shadow_size: side of the shadow map [texels]; None for the model's own.

    Raises:
        UserError: unknown name, impossible number, missing data, or no way to render.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 25}  # noqa: RUF012 - gymnasium's own convention

    def __init__(
        self,
        task: str,
        shift: str = "train",
        *,
        seed: int = 0,
        order_seed: int | None = None,
        model: str = "dmcgb",
        action_repeat: int = 4,
        frames: int = 3,
        image_size: int = 84,
        episode_steps: int = 1000,
        data_root: str | None = None,
        clips: tuple[int, int] | None = None,
        action_axes: str | None = None,
        camera: int | str | None = None,
        view_strength: float = 1.0,
        shadow_size: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        for name, value, least in (
            ("seed", seed, 0),
            ("order_seed", order_seed, 0),
            ("env.action_repeat", action_repeat, 1),
            ("env.frames", frames, 1),
            ("env.image_size", image_size, 8),
            ("env.episode_steps", episode_steps, 1),
            ("env.view_strength", view_strength, 0),
            ("env.shadow_size", shadow_size, 1),
        ):
            if value is not None and value < least:
                raise UserError(f"{name} is {value}; it must be at least {least}")
        gl.select_backend()
        # These import MuJoCo, which reads MUJOCO_GL at import.
        from common.envs import tasks
        from common.envs.camera import Camera
        from common.envs.views import Turns, View

        self.task = task
        self.shift = shift
        self.seed = seed
        self.order_seed = order_seed
        self.action_repeat = action_repeat
        self.episode_steps = episode_steps
        self.render_mode = render_mode

        self._simulator = tasks.build(task, model, np.random.RandomState(seed), action_axes, camera)
        if shift not in (known := shifts_of(task)):
            raise UserError(f"unknown shift '{shift}' for {task}: {remedy(shift, task, known)}")
        self._camera = Camera(self._simulator.physics, self._simulator.camera, image_size, shadow_size)
        self._look_random = np.random.RandomState(seed)
        self._clips: list[Clip] = []
        self._presets: list[NamedPreset] = []
        self._view: View | None = None
        self._turns: Turns | None = None
        if source := clips_of(shift):
            self._clips = backgrounds.video_clips(backgrounds.data_root(data_root), source, clips)
        physics, number = self._simulator.physics, self._simulator.camera
        if source := presets_of(shift):
            self._presets = backgrounds.color_presets(backgrounds.data_root(data_root), source)
        elif shift in VIEW_SHIFTS:
            self._view = View(shift, physics, number, view_strength)
        elif shift in GEOMETRIC_SHIFTS:
            self._turns = Turns(turns.turns_of(shift, task), physics, number)
        elif shift != "train":
            self._simulator.appearance.wear(physics, shift, None)

        self.obs_shape = (3 * frames, image_size, image_size)
        self.action_size = self._simulator.action_size
        self.observation_space = gymnasium.spaces.Box(0, 255, self.obs_shape, np.uint8)
        self.action_space = gymnasium.spaces.Box(-1, 1, (self.action_size,), np.float32)
        self._stack = np.zeros(self.obs_shape, np.uint8)
        self._episodes = 0  # begun since the seed was set
        self._steps = 0  # simulator steps of this episode
        self._clip: int | None = None  # index into the clips
        self._preset: int | None = None  # index into the presets
        self._video: np.ndarray | None = None
        self._view_draw = 0  # what the episode's view is a function of
        self._turn = 0  # index into the turns
        self._position = 0  # of the clip and the view: agent steps of this episode
        self._report: dict[str, Any] = {}  # of the task, in the last state that did not diverge

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode; see the class for what `options` does. Returns observation and info."""
        super().reset(seed=seed)
        if seed is not None:
            self.seed = seed
            self._episodes = 0
            self._simulator.random.seed(seed)
            self._look_random.seed(seed)
        number = self._episodes
        if options:
            evaluation, episode = options["evaluation"], options["episode"]
            number = evaluation * options["episodes"] + episode
            words = self.seed, evaluation, episode
            self._simulator.random.set_state(derived(*words, _INITIAL_STATE).get_state())
            self._look_random.set_state(derived(*words, _LOOK).get_state())
        self._episodes += 1
        self._steps = 0
        self._position = 0
        self._simulator.reset()
        order_seed = self.seed if self.order_seed is None else self.order_seed
        if self._presets and self._clips:
            number += backgrounds.first_number(order_seed)
            self._wear_preset(number % len(self._presets))
        elif self._presets:
            self._wear_preset(int(self._look_random.randint(len(self._presets))))
        if self._clips:
            self._show_clip(backgrounds.clip_of_episode(number, len(self._clips)))
        if self._view is not None:
            self._view_draw = int(self._look_random.randint(2**31))
        if self._turns is not None:
            self._turn = turns.turn_of_episode(order_seed, number)
        self._stack[:] = np.concatenate([self._frame()] * (len(self._stack) // 3))
        self._report = self._simulator.appearance.info(self._simulator.physics)
        return self._stack.copy(), self._info()

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Repeat an action (A,) and return observation, summed reward, terminated, truncated, info."""
        reward = 0.0
        terminated = truncated = diverged = False
        for _ in range(self.action_repeat):
            outcome = self._simulator.step(action)
            reward += outcome.reward
            self._steps += 1
            terminated, diverged = outcome.terminated, outcome.diverged
            truncated = outcome.truncated or (not terminated and self._steps >= self.episode_steps)
            if terminated or truncated:
                break
        self._position += 1
        self._stack[:-3] = self._stack[3:]
        if diverged:
            return self._stack.copy(), reward, terminated, truncated, self._info() | {"diverged": True}
        self._stack[-3:] = self._frame()
        self._report = self._simulator.appearance.info(self._simulator.physics)
        return self._stack.copy(), reward, terminated, truncated, self._info()

    def render(self) -> np.ndarray | None:
        """The newest frame as the agent sees it, uint8 (image_size, image_size, 3), in mode rgb_array."""
        return self._stack[-3:].transpose(1, 2, 0).copy() if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Free the simulation and its rendering context."""
        self._simulator.close()

    def simulator_state(self) -> np.ndarray:
        """MuJoCo's complete integration state, float64; equal under every shift for the same actions."""
        return self._simulator.simulation_state()

    def segmentation(self) -> np.ndarray:
        """The true foreground, bool (image_size, image_size): pixels that show neither sky nor scene.

        The scene is floor, walls and terrain, in the robotic tasks also table and pedestals. What remains are
        the geoms, tendons and sites that are left when video_hard keys out sky and scene; a rangefinder's
        rays, which MuJoCo draws as decoration, are not counted.
        """
        with self._seen():
            return self._simulator.foreground(self._camera.objects())

    def state_dict(self) -> dict[str, Any]:
        """All that the coming steps, frames and episodes depend on, in plain types and arrays."""
        clip, preset = self._names()
        return {
            "task": self.task,
            "shift": self.shift,
            "seed": self.seed,
            "simulator": self._simulator.state_dict(),
            "look_random": random_state_dict(self._look_random),
            "stack": self._stack.copy(),
            "episodes": self._episodes,
            "steps": self._steps,
            "clip": clip,
            "preset": preset,
            "view_draw": self._view_draw,
            "turn": self._turn,
            "position": self._position,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue, bit for bit, where an environment built with the same arguments was saved.

        Raises:
            UserError: the state is of another task or shift, or its clip or preset is no longer there.
        """
        for name, own in (("task", self.task), ("shift", self.shift)):
            if state[name] != own:
                raise UserError(f"the saved environment's {name} is {state[name]}, not {own}; resume with it")
        self.seed = state["seed"]
        self._simulator.load_state_dict(state["simulator"])
        load_random_state_dict(self._look_random, state["look_random"])
        self._stack[:] = state["stack"]
        self._episodes = state["episodes"]
        self._steps = state["steps"]
        for key, choices, show in (
            ("clip", self._clips, self._show_clip),
            ("preset", self._presets, self._wear_preset),
        ):
            if choices and state[key] is not None:
                names = [choice.name for choice in choices]
                if state[key] not in names:
                    raise UserError(f"the saved background {state[key]} is no longer in the data root")
                show(names.index(state[key]))
        self._view_draw = state["view_draw"]
        self._turn = state.get("turn", 0)  # runs recorded before geometric shifts existed have none
        self._position = state["position"]
        self._report = self._simulator.appearance.info(self._simulator.physics)

    def _wear_preset(self, choice: int) -> None:
        self._simulator.appearance.wear(self._simulator.physics, self.shift, self._presets[choice].colours)
        self._preset = choice

    def _show_clip(self, choice: int) -> None:
        if choice != self._clip:
            self._video = self._clips[choice].frames(self._camera.size)
        self._clip = choice

    def _frame(self) -> np.ndarray:
        """The next frame, uint8 (3, image_size, image_size): rendered, then with the clip behind."""
        with self._seen():
            frame = self._camera.frame()
        if self._video is not None:
            backdrop = self._video[self._position % len(self._video)]
            if self._presets:
                # A body may wear the key's green here, so the sky is told by what the pixels show.
                np.copyto(frame, backdrop, where=self._camera.sky())
            else:
                chroma.key(frame, backdrop)
        return frame

    def _seen(self) -> AbstractContextManager[None]:
        """Where the camera is while a frame is drawn."""
        if self._turns is not None:
            return self._turns.seen(self._turn)
        return nullcontext() if self._view is None else self._view.seen(self._view_draw, self._position)

    def _names(self) -> tuple[str | None, str | int | None]:
        """What results call the clip and the colour preset of the episode; None for what it does not show."""
        clip = None if self._clip is None else self._clips[self._clip].name
        return clip, None if self._preset is None else self._presets[self._preset].name

    def _info(self) -> dict[str, Any]:
        clip, preset = self._names()
        info: dict[str, Any] = {"background": preset if clip is None else clip}
        if clip is not None and preset is not None:
            info["colours"] = preset
        if self._turns is not None:
            info["turn"] = self._turn
        return info | self._report
