import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from common.data import free_memory as memory
from common.data import replay
from common.data import replay_files as chunks_module
from common.data.replay import Replay, check_memory, choose_device, replay_bytes
from common.errors import CorruptFile, UserError
from common.rl.batch import Batch
from tests.synchronisation import ForbidSynchronisation

CPU = torch.device("cpu")
SHAPE = (3, 4, 5)


def make_replay(
    capacity: int = 20, episode_steps: int = 5, seed: int = 0, shape=SHAPE, frames: int = 3
) -> Replay:
    return Replay(
        capacity, shape, 2, episode_steps=episode_steps, device=CPU, storage=CPU, seed=seed, frames=frames
    )


class Episodes:
    """The oracle: whole episodes in lists, each observation stacked when it is asked for."""

    def __init__(self) -> None:
        self.transitions: list[tuple] = []

    def play(self, memory: Replay, lengths: list[int], rng: np.random.Generator) -> None:
        for length in lengths:
            pictures = [rng.integers(0, 256, memory.frame_shape, dtype=np.uint8) for _ in range(length + 1)]
            memory.start_episode(pictures[0])
            for step in range(length):
                action = rng.normal(size=2).astype(np.float32)
                reward, terminated = float(rng.normal()), bool(rng.integers(0, 2))
                memory.add(action, reward, pictures[step + 1], terminated)
                stack = [self.stack(pictures, at, memory.frames) for at in (step, step + 1)]
                self.transitions.append((stack[0], action, np.float32(reward), stack[1], 1.0 - terminated))

    @staticmethod
    def stack(pictures: list[np.ndarray], newest: int, frames: int) -> np.ndarray:
        return np.concatenate([pictures[max(0, newest - back)] for back in reversed(range(frames))])


def index_of(batch: Batch, row: int, transitions: list[tuple]) -> int:
    """The number of the oracle's transition that equals one row of a batch in all its parts."""
    for number, (obs, action, reward, next_obs, not_done) in enumerate(transitions):
        if np.array_equal(batch.action[row].numpy(), action):
            assert np.array_equal(batch.obs[row].numpy(), obs)
            assert np.array_equal(batch.next_obs[row].numpy(), next_obs)
            assert batch.reward[row].tolist() == [reward]
            assert batch.not_done[row].tolist() == [not_done]
            return number
    raise AssertionError("a sampled transition was never added")


@pytest.mark.parametrize(
    ("lengths", "held"),
    [
        ([1], 1),  # one step: both stacks are nearly all first frame
        ([2, 3, 1, 5], 11),
        ([5] * 4, 20),  # exactly full
        ([5] * 11 + [3], 20),  # wrapped around twice, in the middle of an episode
        ([7, 9, 30, 2], 20),  # an episode longer than the whole memory
    ],
)
def test_samples_equal_stacks_built_from_whole_episodes(lengths: list[int], held: int):
    memory, oracle = make_replay(), Episodes()
    oracle.play(memory, lengths, np.random.default_rng(1))
    assert len(memory) == held
    batch = memory.sample(600)
    assert batch.obs.dtype == batch.next_obs.dtype == torch.uint8
    assert (batch.obs.shape, batch.action.shape, batch.reward.shape) == ((600, 9, 4, 5), (600, 2), (600, 1))
    seen = {index_of(batch, row, oracle.transitions) for row in range(600)}
    total = len(oracle.transitions)
    assert seen == set(range(total - held, total))  # the newest ones, each of them, and no other


def test_the_newest_transitions_come_in_order_and_draw_nothing():
    memory, oracle = make_replay(), Episodes()
    oracle.play(memory, [5, 5, 5, 5, 5, 3], np.random.default_rng(1))
    before = memory.state_dict()["generator"]
    batch = memory.newest(13)
    total = len(oracle.transitions)
    assert [index_of(batch, row, oracle.transitions) for row in range(13)] == list(range(total - 13, total))
    assert torch.equal(memory.state_dict()["generator"], before)
    for count in (0, len(memory) + 1):
        with pytest.raises(ValueError, match="holds 20 transitions"):
            memory.newest(count)


def test_stacks_stay_right_after_every_single_step():
    memory, oracle = make_replay(capacity=6, episode_steps=3), Episodes()
    rng = np.random.default_rng(2)
    for length in (1, 2, 4, 1, 3, 8, 1, 1, 2):
        oracle.play(memory, [length], rng)
        batch = memory.sample(100)
        seen = {index_of(batch, row, oracle.transitions) for row in range(100)}
        assert seen == set(range(len(oracle.transitions) - len(memory), len(oracle.transitions)))


def test_episodes_shorter_than_foreseen_drop_the_oldest_transitions_never_mix_frames():
    memory, oracle = make_replay(capacity=20, episode_steps=20), Episodes()
    oracle.play(memory, [1] * 40, np.random.default_rng(3))
    # 20 + 1 + 4 slots hold the two frames of 12 one-step episodes.
    assert len(memory) == 12
    batch = memory.sample(200)
    seen = {index_of(batch, row, oracle.transitions) for row in range(200)}
    assert seen == set(range(28, 40))


def test_an_episode_entered_in_its_midst_shows_the_frames_before():
    memory = make_replay()
    *before, now = frames = np.random.default_rng(3).integers(0, 256, (4, *SHAPE), dtype=np.uint8)
    memory.enter_episode(np.concatenate(before))
    memory.add(np.zeros(2), 0.0, now, False)
    batch = memory.newest(1)
    assert np.array_equal(batch.obs[0], np.concatenate(frames[:3]))
    assert np.array_equal(batch.next_obs[0], np.concatenate(frames[1:]))


def test_starting_an_episode_drops_what_its_frame_overwrites():
    memory, oracle = make_replay(capacity=4, episode_steps=4), Episodes()
    oracle.play(memory, [4], np.random.default_rng(4))  # 5 of the 9 slots
    for _ in range(4):
        memory.start_episode(np.zeros(SHAPE, dtype=np.uint8))
    assert len(memory) == 4
    memory.start_episode(np.zeros(SHAPE, dtype=np.uint8))  # over the first frame of the first episode
    # Transitions 0, 1 and 2 show that frame: stacks of 3 and the next one reach 3 steps back.
    assert len(memory) == 1
    assert {index_of(memory.sample(20), row, oracle.transitions) for row in range(20)} == {3}


@pytest.mark.parametrize(("frames", "shape"), [(1, SHAPE), (2, SHAPE), (4, SHAPE), (3, (3, 100, 100))])
def test_other_stack_sizes_and_frame_sizes(frames: int, shape: tuple[int, int, int]):
    memory, oracle = make_replay(capacity=9, shape=shape, frames=frames), Episodes()
    oracle.play(memory, [3, 5, 6], np.random.default_rng(5))
    batch = memory.sample(80)
    assert batch.obs.shape == (80, 3 * frames, *shape[1:])
    assert {index_of(batch, row, oracle.transitions) for row in range(80)} == set(range(5, 14))


def test_sampling_is_uniform():
    memory, oracle = make_replay(), Episodes()
    oracle.play(memory, [5] * 7, np.random.default_rng(6))
    actions = torch.stack([torch.from_numpy(transition[1]) for transition in oracle.transitions])
    batch = memory.sample(40_000)
    counts = (batch.action[:, None] == actions).all(-1).sum(0)[-20:].double()
    chi_square = ((counts - 2000) ** 2 / 2000).sum()
    assert chi_square < 43.8  # 99.9% quantile for 19 degrees of freedom


def test_batches_depend_on_the_seed_and_nothing_else():
    def actions(seed: int, global_seed: int) -> torch.Tensor:
        memory = make_replay(seed=seed)
        Episodes().play(memory, [5] * 6, np.random.default_rng(7))
        torch.manual_seed(global_seed)
        return torch.cat([memory.sample(8).action for _ in range(3)])

    assert torch.equal(actions(1, 0), actions(1, 99))
    assert not torch.equal(actions(1, 0), actions(2, 0))


def test_sampling_never_waits_for_the_device():
    memory = make_replay()
    Episodes().play(memory, [5] * 6, np.random.default_rng(8))
    with ForbidSynchronisation():
        memory.sample(8)


def test_arrays_that_the_environment_reuses_or_protects_are_copied():
    memory, frame, action = make_replay(), np.full(SHAPE, 1, dtype=np.uint8), np.array([0.5, -0.5])
    frame.setflags(write=False)
    memory.start_episode(frame)
    memory.add(action, 1.0, frame, False)
    frame.setflags(write=True)
    frame[:], action[:] = 9, 9
    batch = memory.sample(1)
    assert (batch.obs == 1).all() and (batch.next_obs == 1).all()
    assert batch.action.tolist() == [[0.5, -0.5]]


def test_misuse_is_an_error():
    memory = make_replay()
    with pytest.raises(RuntimeError, match="empty"):
        memory.sample(1)
    with pytest.raises(RuntimeError, match="start_episode"):
        memory.add(np.zeros(2), 0.0, np.zeros(SHAPE, dtype=np.uint8), False)
    with pytest.raises(ValueError, match="uint8"):
        memory.start_episode(np.zeros(SHAPE, dtype=np.float32))
    with pytest.raises(ValueError, match="uint8"):
        memory.start_episode(np.zeros((9, 4, 5), dtype=np.uint8))


def test_bytes_match_what_is_allocated_and_the_promise():
    memory = make_replay(capacity=1000, episode_steps=250)
    allocated = sum(
        tensor.nbytes for tensor in vars(memory).values() if isinstance(tensor, torch.Tensor | np.ndarray)
    )
    assert replay_bytes(1000, SHAPE, 2, 250) == allocated
    for episode_steps in (125, 250, 500):  # action repeat 8, 4 and 2
        size = replay_bytes(500_000, (3, 84, 84), 6, episode_steps)
        assert size <= 10.8e9
        assert size / 500_000 <= 21_600


def test_too_little_memory_is_refused_with_the_numbers(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(replay, "available_memory", lambda device: 8_000_000_000)
    check_memory(7_999_999_999, CPU)
    with pytest.raises(UserError, match=r"10\.66 GB but cpu has 8\.00 GB free; lower replay\.capacity"):
        check_memory(10_660_000_000, CPU)


def test_device_of_the_frames(monkeypatch: pytest.MonkeyPatch):
    cuda = torch.device("cuda:0")
    monkeypatch.setattr(replay, "available_memory", lambda device: replay.DEVICE_RESERVE + 100)
    assert choose_device(100, "auto", cuda) == cuda
    assert choose_device(101, "auto", cuda) == CPU
    assert choose_device(101, "cuda", cuda) == cuda
    assert choose_device(1, "cpu", cuda) == CPU
    assert choose_device(1, "auto", CPU) == CPU
    with pytest.raises(UserError, match=r"replay\.device"):
        choose_device(1, "cuda", CPU)


def test_host_memory_counts_a_control_groups_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    files = {
        "/proc/meminfo": "MemTotal: 9000 kB\nMemAvailable: 5000 kB\n",
        "/proc/self/cgroup": "4:memory:/job\n3:cpu:/job\n0::/job\n",
        "/sys/fs/cgroup/memory/job/memory.limit_in_bytes": "3000000\n",
        "/sys/fs/cgroup/memory/job/memory.usage_in_bytes": "1000000\n",
        "/sys/fs/cgroup/memory/job/memory.stat": "cache 5\ninactive_file 250000\n",
        "/sys/fs/cgroup/job/memory.max": "max\n",
        "/sys/fs/cgroup/job/memory.current": "7\n",
        "/sys/fs/cgroup/job/memory.stat": "inactive_file 1\n",
    }

    def read_text(path: Path) -> str:
        if str(path) not in files:
            raise FileNotFoundError(path)
        return files[str(path)]

    monkeypatch.setattr(Path, "read_text", read_text)
    assert memory.available_memory(CPU) == 3_000_000 - 1_000_000 + 250_000
    files["/sys/fs/cgroup/memory/job/memory.limit_in_bytes"] = "9223372036854771712\n"
    assert memory.available_memory(CPU) == 5000 * 1024


def batches_equal(left: Batch, right: Batch) -> bool:
    return all(
        torch.equal(getattr(left, field.name), getattr(right, field.name))
        for field in dataclasses.fields(Batch)
    )


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "FRAMES_PER_CHUNK", 4)
    monkeypatch.setattr(replay, "TRANSITIONS_PER_CHUNK", 3)


@pytest.mark.parametrize("saves_after", [[5], [3, 4, 2], [5, 5, 5, 5, 5, 3], [30, 1, 30]])
@pytest.mark.usefixtures("small_chunks")
def test_restored_replay_samples_and_goes_on_like_the_original(saves_after: list[int], tmp_path: Path):
    memory, rng = make_replay(), np.random.default_rng(9)
    manifest: dict = {}
    for length in saves_after:
        Episodes().play(memory, [length], rng)
        manifest = memory.save(tmp_path)
        Replay.prune(tmp_path, manifest)
    memory.sample(3)
    restored = make_replay(seed=1)
    restored.load(tmp_path, manifest)
    restored.load_state_dict(memory.state_dict())
    assert len(restored) == len(memory)
    for _ in range(3):
        assert batches_equal(memory.sample(50), restored.sample(50))
    # The episode that the save interrupted goes on, and the next save builds on the restored files.
    for copy, generator in ((memory, np.random.default_rng(10)), (restored, np.random.default_rng(10))):
        for _ in range(4):
            pixels = generator.integers(0, 256, SHAPE, dtype=np.uint8)
            copy.add(generator.normal(size=2), 1.0, pixels, False)
        Episodes().play(copy, [2, 5], generator)
    assert batches_equal(memory.sample(50), restored.sample(50))
    again = make_replay()
    again.load(tmp_path, restored.save(tmp_path))
    again.load_state_dict(restored.state_dict())
    assert batches_equal(again.sample(50), restored.sample(50))


@pytest.mark.usefixtures("small_chunks")
def test_a_save_writes_only_what_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    written: list[str] = []
    write = chunks_module._write_file
    monkeypatch.setattr(
        chunks_module, "_write_file", lambda path, content: (written.append(path.name), write(path, content))
    )
    memory, rng = make_replay(), np.random.default_rng(11)
    Episodes().play(memory, [5, 5], rng)  # frames 0-11 fill three files, transitions 0-9 three and a third
    memory.save(tmp_path)
    assert len(written) == 3 + 4
    written.clear()
    memory.save(tmp_path)
    assert written == []
    Episodes().play(memory, [1], rng)  # frames 12 and 13, transition 10
    memory.save(tmp_path)
    assert [name.split("-")[:2] for name in written] == [
        ["frames", "0000000012"],
        ["transitions", "0000000009"],
    ]
    written.clear()
    memory.save(tmp_path / "elsewhere")  # another folder has nothing yet
    assert len(written) == 4 + 4


@pytest.mark.usefixtures("small_chunks")
def test_an_earlier_manifest_stays_loadable_until_pruned(tmp_path: Path):
    memory, rng = make_replay(), np.random.default_rng(12)
    Episodes().play(memory, [5, 4], rng)
    earlier, state = memory.save(tmp_path), memory.state_dict()
    expected = memory.sample(40)
    Episodes().play(memory, [5] * 9, rng)
    later = memory.save(tmp_path)
    restored = make_replay()
    restored.load(tmp_path, earlier)
    restored.load_state_dict(state)
    assert batches_equal(restored.sample(40), expected)
    (tmp_path / "frames-0000000099-0123456789abcdef.partial").write_bytes(b"left by a killed save")
    (tmp_path / "notes.txt").write_text("not ours")
    Replay.prune(tmp_path, later)
    listed = len(later["frames"]) + len(later["transitions"])
    assert len(list(tmp_path.glob("*.chunk"))) == listed
    assert {path.name for path in tmp_path.iterdir() if path.suffix != ".chunk"} == {"notes.txt"}
    make_replay().load(tmp_path, later)
    with pytest.raises(CorruptFile, match="cannot be read"):
        make_replay().load(tmp_path, earlier)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("damage", ["truncate", "extend", "flip", "swap", "delete", "empty"])
@pytest.mark.parametrize("kind", ["frames", "transitions"])
def test_damaged_files_are_detected(kind: str, damage: str, tmp_path: Path):
    memory = make_replay()
    Episodes().play(memory, [5, 4], np.random.default_rng(13))
    manifest = memory.save(tmp_path)
    first, second = sorted(tmp_path.glob(f"{kind}-*"))[:2]
    content = first.read_bytes()
    if damage == "truncate":
        first.write_bytes(content[:-1])
    elif damage == "extend":
        first.write_bytes(content + b"\0")
    elif damage == "flip":
        first.write_bytes(content[:7] + bytes([content[7] ^ 1]) + content[8:])
    elif damage == "swap":
        first.write_bytes(second.read_bytes())
        second.write_bytes(content)
    elif damage == "delete":
        first.unlink()
    else:
        first.write_bytes(b"")
    restored = make_replay()
    with pytest.raises(CorruptFile, match=str(first)):
        restored.load(tmp_path, manifest)
    assert len(restored) == 0


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize(
    "edit",
    [
        lambda manifest: manifest.pop("episode"),
        lambda manifest: manifest.pop("capacity"),
        lambda manifest: manifest["frames"].pop(1),
        lambda manifest: manifest["frames"].pop(),
        lambda manifest: manifest["frames"].reverse(),
        lambda manifest: manifest["transitions"].clear(),
        lambda manifest: manifest["frames"][0].update(sha256="../../etc/passwd"),
        lambda manifest: manifest["frames"][0].update(first="0"),
        lambda manifest: manifest.update(frames=None),
        lambda manifest: manifest.update(oldest=-100),
        lambda manifest: manifest.update(frame_count=10**12),
        lambda manifest: manifest.update(frame_count=float("inf")),
        lambda manifest: manifest.update(episode=[10**30]),
        lambda manifest: manifest.update(episode=[-1]),
        lambda manifest: (manifest["frames"][-1].update(count=10**30), manifest.update(frame_count=10**30)),
    ],
)
def test_damaged_manifests_are_detected(edit, tmp_path: Path):
    memory = make_replay()
    Episodes().play(memory, [5, 4], np.random.default_rng(14))
    manifest = memory.save(tmp_path)
    edit(manifest)
    with pytest.raises(CorruptFile, match=str(tmp_path)):
        make_replay().load(tmp_path, manifest)


def test_a_manifest_of_other_frames_is_refused(tmp_path: Path):
    memory = make_replay()
    Episodes().play(memory, [5], np.random.default_rng(15))
    manifest = memory.save(tmp_path)
    with pytest.raises(UserError, match=r"frame_shape \[3, 4, 5\] but this run has \[3, 5, 4\]"):
        make_replay(shape=(3, 5, 4)).load(tmp_path, manifest)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("played", [[5, 5, 3], [5] * 9 + [3]], ids=["partly filled", "wrapped around"])
@pytest.mark.parametrize("capacities", [(31, 50), (7, 20), (31, 7)])
def test_a_replay_of_another_capacity_takes_up_the_newest_that_fit(
    played: list[int], capacities: tuple[int, int], tmp_path: Path
):
    rng = np.random.default_rng(16)
    memory, oracle = make_replay(), Episodes()
    oracle.play(memory, played, rng)
    held = len(memory)
    for capacity in capacities:
        for _ in range(2):  # the second time from a save that lacks what a smaller replay lost
            other = make_replay(capacity=capacity)
            other.load(tmp_path, memory.save(tmp_path))
            memory = other
        held = min(held, capacity)
        for lengths in ([], [5, 5], [5, 5, 5]):
            oracle.play(memory, lengths, rng)
            held = min(held + sum(lengths), capacity)
            assert len(memory) == held
            batch, total = memory.newest(held), len(oracle.transitions)
            found = [index_of(batch, row, oracle.transitions) for row in range(held)]
            assert found == list(range(total - held, total))


@pytest.mark.usefixtures("small_chunks")
def test_a_full_disk_leaves_the_last_save_intact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    memory, rng = make_replay(), np.random.default_rng(16)
    Episodes().play(memory, [5], rng)
    manifest, state = memory.save(tmp_path), memory.state_dict()
    expected = memory.sample(30)
    Episodes().play(memory, [5, 5], rng)

    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(chunks_module.os, "fsync", no_space)
        with pytest.raises(OSError, match="No space left"):
            memory.save(tmp_path)
    assert not list(tmp_path.glob("*.partial"))
    restored = make_replay()
    restored.load(tmp_path, manifest)
    restored.load_state_dict(state)
    assert batches_equal(restored.sample(30), expected)
    later = memory.save(tmp_path)  # and the next save has everything
    restored.load(tmp_path, later)
    assert len(restored) == 15


def test_generator_of_another_kind_of_device_is_replaced_deterministically():
    memory = make_replay()
    Episodes().play(memory, [5, 5], np.random.default_rng(17))
    state = memory.state_dict() | {"device": "cuda"}
    memory.load_state_dict(state)
    first = memory.sample(10).action
    memory.load_state_dict(state)
    assert torch.equal(memory.sample(10).action, first)
