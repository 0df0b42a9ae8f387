"""A dm_control environment as the benchmark uses it: dynamics, complete state, and changeable looks."""

# MuJoCo's names live in a compiled module without type stubs.
# pyright: reportAttributeAccessIssue=false

from typing import Any, NamedTuple, Protocol

import dm_env
import mujoco
import numpy as np
from dm_control.mujoco import Physics
from dm_control.rl.control import PhysicsError

from common.envs.presets import Preset
from common.envs.random_states import load_random_state_dict, random_state_dict

_STATE = mujoco.mjtState.mjSTATE_INTEGRATION

# Textures belong to the look, which is put on again; the rest of these never change after compilation.
_FIXED_ARRAYS = ("tex_data", "mesh_", "skin_", "names", "text_data", "paths")


class Outcome(NamedTuple):
    """What a control step gives: the reward, and whether the episode is over.

    The task ends it by terminating or truncating it; so does a simulation that `diverged`, whose state means
    nothing until the next reset.
    """

    reward: float
    terminated: bool
    truncated: bool
    diverged: bool = False


class Appearance(Protocol):
    """A task's visual shifts. They change pixels; never the simulation."""

    def wear(self, physics: Physics, shift: str, preset: Preset | None) -> None:
        """Make the model look as `shift` wants it, with the colours of `preset` in the colour shifts."""
        ...

    def background_geoms(self, physics: Physics) -> frozenset[int]:
        """Geom numbers that belong to the scene and not to what the agent must see: floor, walls, …"""
        ...

    def info(self, physics: Physics) -> dict[str, Any]:
        """What the task reports besides the reward, e.g. success."""
        ...


class Simulator:
    """Steps one dm_control environment (of the suite or a composer one) whose time limit is infinite.

    Args:
        environment: draws its initial states from `random`; keeps what it remembers within an episode in
            the physics, in arrays of the model, or in plain attributes of its task. Its model must not be
            recompiled between episodes.
        random: the very object the environment draws from.
        appearance: how its looks change.
        camera: number of the camera that observes it.
    """

    def __init__(
        self, environment: Any, random: np.random.RandomState, appearance: Appearance, camera: int = 0
    ) -> None:
        self.environment = environment
        self.camera = camera
        self.random = random
        self.appearance = appearance
        self._closed = False
        self.environment.reset()
        spec = environment.action_spec()
        limited = (spec.minimum > -mujoco.mjMAXVAL) & (spec.maximum < mujoco.mjMAXVAL)
        minimum, maximum = np.where(limited, spec.minimum, -1.0), np.where(limited, spec.maximum, 1.0)
        self.action_size = int(spec.shape[0])
        self._centre, self._reach = (maximum + minimum) / 2, (maximum - minimum) / 2
        self._compiled = {name: array.copy() for name, array in self._model_arrays().items()}

    @property
    def physics(self) -> Physics:
        """The simulation, whose model lives as long as the simulator."""
        return self.environment.physics

    def reset(self) -> None:
        """Start an episode from an initial state drawn from the random generator."""
        self.environment.reset()

    def step(self, action: np.ndarray) -> Outcome:
        """One control step under an action in [-1, 1], scaled to the task's range.

        Raises:
            ValueError: the action holds a NaN or an infinity, by which any simulation would diverge.
        """
        if not np.isfinite(action).all():
            raise ValueError(f"the action is not finite: {action}")
        try:
            step: dm_env.TimeStep = self.environment.step(self._centre + self._reach * np.clip(action, -1, 1))
        except PhysicsError:
            return Outcome(0.0, terminated=False, truncated=True, diverged=True)
        ended = step.last()
        return Outcome(float(step.reward or 0.0), ended and step.discount == 0, ended and step.discount != 0)

    def foreground(self, objects: np.ndarray) -> np.ndarray:
        """Which pixels of `Camera.objects` (H, W, 2) show something other than sky and scene: bool (H, W)."""
        number, kind = objects[..., 0], objects[..., 1]
        scene = np.isin(number, list(self.appearance.background_geoms(self.physics)))
        return (kind != -1) & ~((kind == mujoco.mjtObj.mjOBJ_GEOM) & scene)

    def simulation_state(self) -> np.ndarray:
        """MuJoCo's integration state, float64: time, positions, velocities, warm start, controls, ..."""
        return self.physics.get_state(sig=_STATE)

    def show(self, state: np.ndarray) -> None:
        """Let frames show a `simulation_state` of this episode, from which nothing goes on."""
        self.physics.set_state(state, sig=_STATE)
        self.physics.forward()

    def state_dict(self) -> dict[str, Any]:
        """All that the coming steps and frames depend on, texture pixels aside."""
        task = vars(self.environment.task)
        return {
            "integration": self.simulation_state(),
            "sensors": self.physics.data.sensordata.copy(),
            "model": {
                name: array.copy()
                for name, array in self._model_arrays().items()
                if not np.array_equal(array, self._compiled[name])
            },
            "task": {name: _plain(value) for name, value in task.items() if _is_plain(value)},
            "random": random_state_dict(self.random),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue bit for bit from where `state_dict` was taken, of the same task and model."""
        # Leaves the "reset on next step" state of a new environment; all else it does is overwritten.
        self.environment.reset()
        for name, array in self._model_arrays().items():
            array[:] = state["model"].get(name, self._compiled[name])
        self._upload_height_fields()
        for name, value in state["task"].items():
            setattr(self.environment.task, name, value.copy() if isinstance(value, np.ndarray) else value)
        self.physics.set_state(state["integration"], sig=_STATE)
        # dm_control begins a step with the position and velocity terms that the last one computed.
        mujoco.mj_step1(self.physics.model.ptr, self.physics.data.ptr)
        self.physics.set_state(state["integration"], sig=_STATE)
        self.physics.data.sensordata[:] = state["sensors"]
        # A warning counted here would hide the next of its kind from dm_control, which looks for more.
        self.physics.data.ptr.warning.number[:] = 0
        load_random_state_dict(self.random, state["random"])

    def close(self) -> None:
        """Free the rendering context."""
        # A composer environment fails to close twice, which gymnasium allows.
        if not self._closed:
            self.environment.close()
        self._closed = True

    def _upload_height_fields(self) -> None:
        """Give the renderer, which draws from a copy of its own, the model's height fields."""
        model, contexts = self.physics.model.ptr, self.physics.contexts
        assert contexts is not None  # dm_control makes them on first use
        for number in range(model.nhfield):
            with contexts.gl.make_current() as context:
                context.call(mujoco.mjr_uploadHField, model, contexts.mujoco.ptr, number)

    def _model_arrays(self) -> dict[str, np.ndarray]:
        model = self.physics.model.ptr
        names = (name for name in dir(model) if not name.startswith(("_", *_FIXED_ARRAYS)))
        values = ((name, getattr(model, name)) for name in names)
        return {name: value for name, value in values if isinstance(value, np.ndarray)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "biuf"
    return value is None or isinstance(value, bool | int | float | str | np.bool_ | np.number)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.copy()
    return value.item() if isinstance(value, np.generic) else value
