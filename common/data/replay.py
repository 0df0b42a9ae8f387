"""Replay memory: every rendered frame once, as uint8, and the stacks gathered from it by index."""

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError
from torch import Tensor

from common.data.free_memory import available_memory
from common.data.replay_files import Chunk, load_rows, prune, save_rows
from common.errors import CorruptFile, UserError
from common.rl.batch import Batch

# Rows of one file on disk: about 11 MB of 84x84 frames, 1.3 MB of transitions. A save rewrites at most
# one unfinished file of each kind.
FRAMES_PER_CHUNK = 512
TRANSITIONS_PER_CHUNK = 16_384
# Device memory that `choose_device` leaves to networks, activations and overlay images.
DEVICE_RESERVE = 6 * 2**30


class Manifest(BaseModel):
    """What a saved replay consists of: its shape, its counters, and the files with its rows."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
    capacity: int
    frame_shape: list[int]
    action_size: int
    frames_per_observation: int
    frame_slots: int
    first_frame: NonNegativeInt = 0  # saved replays from before this key existed have lost none
    frame_count: NonNegativeInt
    transition_count: NonNegativeInt
    oldest: NonNegativeInt
    episode: list[int]
    frames: list[Chunk]
    transitions: list[Chunk]


def frame_slots(capacity: int, episode_steps: int, frames: int = 3) -> int:
    """Frames that `capacity` transitions need when an episode has `episode_steps` of them.

    Each transition adds one frame and each episode its first one.
    """
    return capacity + -(-capacity // episode_steps) + frames + 1


def replay_bytes(
    capacity: int, frame_shape: tuple[int, ...], action_size: int, episode_steps: int, frames: int = 3
) -> int:
    """Bytes that a `Replay` with these arguments allocates, host-side bookkeeping included."""
    frame_bytes = frame_slots(capacity, episode_steps, frames) * int(np.prod(frame_shape))
    values = 4 * (action_size + 2)
    windows = (4 + 8) * (frames + 1)  # slots as int32 beside the frames, frame numbers as int64 on the host
    return frame_bytes + capacity * (values + windows)


def choose_device(size: int, preference: str, device: torch.device) -> torch.device:
    """Where a replay of `size` bytes lies: `preference` is auto, cpu or cuda, `device` the training device.

    auto takes the training device if the replay fits there and leaves `DEVICE_RESERVE` free, else the host.
    """
    if device.type != "cuda":
        if preference == "cuda":
            raise UserError("replay.device is cuda but training is on the CPU; set replay.device=auto")
        return torch.device("cpu")
    if preference == "auto":
        free = available_memory(device)
        fits = free is not None and size + DEVICE_RESERVE <= free
        return device if fits else torch.device("cpu")
    return device if preference == "cuda" else torch.device("cpu")


def check_memory(size: int, device: torch.device) -> None:
    """Raise UserError with the numbers if `size` bytes are more than `device` has free."""
    free = available_memory(device)
    if free is not None and size > free:
        raise UserError(
            f"the replay takes {size / 1e9:.2f} GB but {device} has {free / 1e9:.2f} GB free; "
            "lower replay.capacity or choose another replay.device"
        )


class Replay:
    """A ring of frames and a ring of transitions whose stacks are gathered from it.

    A transition's stacks overlap in all but one frame, so one gather of `frames + 1` frames per transition
    fetches both. Which frames these are is settled when the transition is added (an episode's first frame
    stands in for those before it), so sampling is two look-ups, across episode starts, episode ends and the
    ring's end alike. A transition is dropped before the first of its frames is overwritten.

    Args:
        capacity: transitions kept.
        frame_shape: one RGB frame, (3, H, W).
        action_size: numbers in an action.
        episode_steps: transitions in a whole episode; sizes the room for first frames. Episodes that end
            earlier are held too, at the cost of the oldest transitions.
        device: where batches are wanted.
        storage: where frames lie, `device` or the CPU (see `choose_device`).
        seed: of the generator that samples.
        frames: frames in an observation.
    """

    def __init__(
        self,
        capacity: int,
        frame_shape: tuple[int, int, int],
        action_size: int,
        *,
        episode_steps: int,
        device: torch.device,
        storage: torch.device,
        seed: int,
        frames: int = 3,
    ) -> None:
        self.capacity = capacity
        self.frame_shape = frame_shape
        self.action_size = action_size
        self.frames = frames
        self.device = device
        self.storage = storage
        self._slots = frame_slots(capacity, episode_steps, frames)
        self._frames = torch.empty(
            (self._slots, int(np.prod(frame_shape))), dtype=torch.uint8, device=storage
        )
        # One row per transition: action, reward, not_done.
        self._values = torch.empty((capacity, action_size + 2), device=storage)
        # One row per transition: its frames + 1 frames, oldest first, as slots of the ring (where they are
        # gathered) and as numbers since the beginning (on the host, where their age is known).
        self._window_slots = torch.empty((capacity, frames + 1), dtype=torch.int32, device=storage)
        self._window_numbers = np.empty((capacity, frames + 1), dtype=np.int64)
        self._generator = torch.Generator(device=storage).manual_seed(seed)
        self._first_frame = 0  # number of the first frame that was not lost to a smaller replay
        self._frame_count = 0  # frames ever written
        self._transition_count = 0  # transitions ever added
        self._oldest = 0  # number of the oldest transition still held
        self._episode: deque[int] = deque(maxlen=frames + 1)  # the current episode's newest frame numbers
        self._saved: dict[Path, tuple[list[Chunk], list[Chunk]]] = {}  # what the last folder saved to holds

    def __len__(self) -> int:
        """Transitions that can be sampled."""
        return self._transition_count - self._oldest

    def start_episode(self, frame: np.ndarray) -> None:
        """Begin an episode with its first frame, uint8 (3, H, W)."""
        self._episode.clear()
        self._write_frame(frame)

    def enter_episode(self, obs: np.ndarray) -> None:
        """Begin in the midst of an episode, with its newest observation, uint8 (3 · frames, H, W)."""
        self._episode.clear()
        for frame in np.split(obs, self.frames):
            self._write_frame(frame)

    def add(self, action: np.ndarray, reward: float, frame: np.ndarray, terminated: bool) -> None:
        """Add the step that took `action` (A,), earned `reward` and showed `frame`, uint8 (3, H, W).

        `terminated` is true only where the task itself ended, not at a time limit.
        """
        if not self._episode:
            raise RuntimeError("start_episode must come before the first add")
        self._write_frame(frame)
        missing = self.frames + 1 - len(self._episode)
        window = np.array([self._episode[0]] * missing + list(self._episode))
        row = self._transition_count % self.capacity
        self._window_numbers[row] = window
        self._write(self._window_slots, row, torch.from_numpy(window % self._slots).int())
        values = np.array([*action, reward, not terminated], dtype=np.float32)
        self._write(self._values, row, torch.from_numpy(values))
        self._transition_count += 1
        self._oldest = max(self._oldest, self._transition_count - self.capacity)

    def sample(self, batch: int) -> Batch:
        """`batch` transitions drawn uniformly with replacement, on the training device.

        Nothing here waits for the device.
        """
        if not len(self):
            raise RuntimeError("the replay is empty")
        rows = torch.randint(len(self), (batch,), generator=self._generator, device=self.storage)
        return self._batch((rows + self._oldest % self.capacity) % self.capacity)

    def newest(self, count: int) -> Batch:
        """The `count` transitions added last, in order."""
        if not 0 < count <= len(self):
            raise ValueError(f"the replay holds {len(self)} transitions, not {count}")
        rows = torch.arange(self._transition_count - count, self._transition_count, device=self.storage)
        return self._batch(rows % self.capacity)

    def _batch(self, rows: Tensor) -> Batch:
        """The transitions in these rows of the ring, on the training device."""
        batch = len(rows)
        values = self._gather(self._values, rows)
        slots = self._window_slots.index_select(0, rows).flatten()
        frames = self._gather(self._frames, slots)
        channels, height, width = self.frame_shape
        stack = frames.view(batch, (self.frames + 1) * channels, height, width)
        return Batch(
            obs=stack[:, :-channels],
            action=values[:, : self.action_size],
            reward=values[:, -2:-1],
            next_obs=stack[:, channels:],
            not_done=values[:, -1:],
        )

    def _gather(self, source: Tensor, rows: Tensor) -> Tensor:
        """`source[rows]` on the training device."""
        if self.storage.type == self.device.type:
            return source.index_select(0, rows)
        # Only the gathered batch is page-locked, not the whole memory: that is what an asynchronous
        # transfer needs, and locking many gigabytes takes them from every other process.
        staging = torch.empty((len(rows), source.shape[1]), dtype=source.dtype, pin_memory=True)
        torch.index_select(source, 0, rows, out=staging)
        return staging.to(self.device, non_blocking=True)

    def _write_frame(self, frame: np.ndarray) -> None:
        pixels = torch.tensor(frame)  # a copy: the environment may reuse its array, or forbid writing to it
        if pixels.dtype != torch.uint8 or tuple(pixels.shape) != self.frame_shape:
            raise ValueError(f"a frame is uint8 {self.frame_shape}, not {pixels.dtype} {tuple(pixels.shape)}")
        self._write(self._frames, self._frame_count % self._slots, pixels.reshape(-1))
        self._episode.append(self._frame_count)
        self._frame_count += 1
        self._drop_incomplete()

    def _drop_incomplete(self) -> None:
        """Forget the oldest transitions whose first frame is not held any more."""
        first_held = max(self._first_frame, self._frame_count - self._slots)
        while len(self) and self._window_numbers[self._oldest % self.capacity, 0] < first_held:
            self._oldest += 1

    def _write(self, target: Tensor, row: int, content: Tensor) -> None:
        if self.storage.type == "cuda":
            # A copy from pageable memory would wait for the update that the device is busy with.
            content = content.pin_memory()
        target[row].copy_(content, non_blocking=True)

    def state_dict(self) -> dict[str, Any]:
        """The sampling generator. The contents are saved by `save`."""
        return {"device": self.storage.type, "generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue the saved generator; on another kind of device, a generator seeded from it."""
        if state["device"] == self.storage.type:
            self._generator.set_state(state["generator"])
        else:
            digest = hashlib.sha256(state["generator"].numpy().tobytes()).digest()
            self._generator.manual_seed(int.from_bytes(digest[:7], "little"))

    def save(self, folder: Path) -> dict[str, Any]:
        """Write what `folder` lacks and return a manifest that `load` restores everything from.

        Files that earlier manifests list stay until `prune`.

        Raises:
            OSError: the disk is full or cannot be written; earlier manifests stay valid.
        """
        known_frames, known_transitions = self._saved.get(folder.resolve(), ([], []))
        frames = (max(self._first_frame, self._frame_count - self._slots), self._frame_count)
        transitions = (self._oldest, self._transition_count)
        manifest = Manifest(
            **self._geometry(),
            capacity=self.capacity,
            frame_slots=self._slots,
            first_frame=frames[0],
            frame_count=self._frame_count,
            transition_count=self._transition_count,
            oldest=self._oldest,
            episode=list(self._episode),
            frames=save_rows(folder, "frames", frames, FRAMES_PER_CHUNK, self._frame_rows, known_frames),
            transitions=save_rows(
                folder,
                "transitions",
                transitions,
                TRANSITIONS_PER_CHUNK,
                self._transition_rows,
                known_transitions,
            ),
        )
        self._saved = {folder.resolve(): (manifest.frames, manifest.transitions)}
        return manifest.model_dump()

    def load(self, folder: Path, manifest: dict[str, Any]) -> None:
        """Replace the contents by those that `save` described in `manifest`, or the newest that fit.

        Raises:
            CorruptFile: a file is missing, truncated, altered or not the one that was saved, or the manifest
                is no manifest. The replay is then empty.
            UserError: the manifest is of a replay with other shapes.
        """
        self._first_frame = self._frame_count = self._transition_count = self._oldest = 0
        self._episode.clear()
        self._saved = {}
        saved = _parse(folder, manifest)
        for name, value in self._geometry().items():
            if getattr(saved, name) != value:
                raise UserError(
                    f"the saved replay has {name} {getattr(saved, name)} but this run has {value}; "
                    "resume with the configuration it was saved with"
                )
        first_frame = max(saved.first_frame, saved.frame_count - saved.frame_slots)
        in_ring = all(first_frame <= number < saved.frame_count for number in saved.episode)
        if not in_ring or not 0 <= saved.transition_count - saved.oldest <= saved.capacity:
            raise CorruptFile(
                f"the replay manifest in {folder} is damaged: its counters contradict each other"
            )

        frames = (first_frame, saved.frame_count)
        loaded = load_rows(folder, "frames", saved.frames, frames, self._frames.shape[1])
        for first, rows in _from(saved.frame_count - self._slots, loaded):
            slots = torch.arange(first, first + len(rows)) % self._slots
            self._frames[slots.to(self.storage)] = torch.from_numpy(rows).to(self.storage)
        transitions = (saved.oldest, saved.transition_count)
        values_bytes = self._values.shape[1] * self._values.itemsize
        row_bytes = values_bytes + self._window_numbers.itemsize * (self.frames + 1)
        loaded = load_rows(folder, "transitions", saved.transitions, transitions, row_bytes)
        for first, rows in _from(saved.transition_count - self.capacity, loaded):
            places = torch.arange(first, first + len(rows)) % self.capacity
            values = torch.from_numpy(rows[:, :values_bytes].copy().view(np.float32))
            windows = rows[:, values_bytes:].copy().view(np.int64)
            self._window_numbers[places.numpy()] = windows
            self._values[places.to(self.storage)] = values.to(self.storage)
            slots = torch.from_numpy(windows % self._slots).int()
            self._window_slots[places.to(self.storage)] = slots.to(self.storage)
        self._first_frame, self._frame_count = first_frame, saved.frame_count
        self._transition_count = saved.transition_count
        self._oldest = max(saved.oldest, saved.transition_count - self.capacity)
        self._drop_incomplete()
        self._episode.extend(saved.episode)
        self._saved = {folder.resolve(): (saved.frames, saved.transitions)}

    @staticmethod
    def prune(folder: Path, *manifests: dict[str, Any]) -> None:
        """Delete the files in `folder` that none of `manifests` lists.

        Call it only when those manifests are on disk for good.

        Raises:
            CorruptFile: one of them is no manifest; nothing is deleted on its account.
        """
        kept = [_parse(folder, manifest) for manifest in manifests]
        prune(folder, "frames", [chunk for manifest in kept for chunk in manifest.frames])
        prune(folder, "transitions", [chunk for manifest in kept for chunk in manifest.transitions])

    def _geometry(self) -> dict[str, Any]:
        return {
            "frame_shape": list(self.frame_shape),
            "action_size": self.action_size,
            "frames_per_observation": self.frames,
        }

    def _frame_rows(self, first: int, last: int) -> np.ndarray:
        """Frames number `first` to `last`, the latter excluded, as bytes (rows, bytes per frame)."""
        slots = torch.arange(first, last, device=self.storage) % self._slots
        return self._frames.index_select(0, slots).cpu().numpy()

    def _transition_rows(self, first: int, last: int) -> np.ndarray:
        """Transitions number `first` to `last`, the latter excluded, as bytes: values, then frame numbers."""
        rows = np.arange(first, last) % self.capacity
        values = self._values.index_select(0, torch.from_numpy(rows).to(self.storage)).cpu().numpy()
        return np.concatenate((values.view(np.uint8), self._window_numbers[rows].view(np.uint8)), axis=1)


def _from(wanted: int, loaded: Iterable[tuple[int, np.ndarray]]) -> Iterator[tuple[int, np.ndarray]]:
    """(number of the first row, rows), without the rows before number `wanted`."""
    for first, rows in loaded:
        surplus = max(0, wanted - first)
        if surplus < len(rows):
            yield first + surplus, rows[surplus:]


def _parse(folder: Path, manifest: dict[str, Any]) -> Manifest:
    try:
        return Manifest.model_validate(manifest)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise CorruptFile(f"the replay manifest in {folder} is damaged ({place}: {first['msg']})") from error
