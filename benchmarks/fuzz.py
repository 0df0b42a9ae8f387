"""Feeds hostile input to the readers of files that may come from strangers: a result or the documented error.

python -m benchmarks.fuzz [--inputs 100000] [--seed 0] [--json results/reliability/fuzz.json]

Each reader gets an equal share of the inputs, which hypothesis derives from valid files and from nothing. An
input counts as handled if the reader returns, or raises `UserError` with a text of one line. Starting a
process, connecting to anything, writing outside the folder of the input and taking much memory fail as any
other exception does.
"""

import io
import json
import os
import pickletools
import resource
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import torch
from hypothesis import strategies as st

import common.config.loading
from benchmarks.machine import command_line, machine, write_json
from common.config.loading import load, load_run_config, to_yaml, yaml_files
from common.config.schema import Config
from common.data.replay import Replay
from common.envs.presets import read_presets
from common.errors import UserError
from common.run import checkpoint
from common.run.run_folder import RunFolder
from common.run.wandb_mirror import _read_state
from common.study import folders
from common.study.definition import PlannedRun

MEMORY = 256 * 2**20
"""Bytes that reading one input may take; the largest input has a few thousand."""
# What tends to break readers, besides what hypothesis thinks of.
NASTY = [
    *("", ".", "..", "../../x", "/etc/passwd", "a\x00b", "\ud800", "état/走る", "x" * 300),
    *("1e400", "-1", "nan", "0x10", "1:30", "no", "~", "null", "[", "{", "*a", "&a [*a]"),
    *("!!python/name:os.system", "!!python/object/apply:os.system [id]", "__import__('os')"),
    *(2**31, 2**63, 2**64, -(2**70), 10**400, 1e308, float("inf"), float("nan"), -0.0, True, None),
]  # fmt: skip
values = st.recursive(
    st.one_of(st.sampled_from(NASTY), st.integers(), st.floats(), st.text(max_size=8), st.booleans()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def mutated(base: bytes) -> st.SearchStrategy[bytes]:
    """`base` with a few stretches replaced, and possibly cut off."""
    edit = st.tuples(st.integers(0, len(base)), st.integers(0, 8), st.binary(max_size=8))

    def apply(edits: list[tuple[int, int, bytes]], length: int) -> bytes:
        content = base
        for place, count, new in edits:
            content = content[:place] + new + content[place + count :]
        return content[:length]

    lengths = st.just(2 * len(base)) | st.integers(0, len(base))
    return st.builds(apply, st.lists(edit, min_size=1, max_size=4), lengths)


def replaced(base: Any) -> st.SearchStrategy[Any]:
    """Plain data with some of its values, at any depth, replaced, removed or added."""
    places = list(_places(base))
    edit = st.tuples(st.sampled_from(places), st.sampled_from(["replace", "remove", "add"]), values)

    def apply(edits: list[tuple[tuple[Any, ...], str, Any]]) -> Any:
        content = json.loads(json.dumps(base))
        for place, action, value in edits:
            content = _edited(content, place, action, value)
        return content

    return st.builds(apply, st.lists(edit, min_size=1, max_size=3))


def _places(value: Any, at: tuple[Any, ...] = ()) -> Any:
    yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from _places(inner, (*at, key))


def _edited(content: Any, place: tuple[Any, ...], action: str, value: Any) -> Any:
    """`content` with one edit; as it is where an earlier edit has removed the place."""
    if not place:
        return value
    key, *rest = place
    if not isinstance(content, dict | list):
        return content
    try:
        inner = content[key]
    except (KeyError, IndexError, TypeError):
        return content
    if rest:
        content[key] = _edited(inner, tuple(rest), action, value)
    elif action == "remove":
        del content[key]
    elif action == "add" and isinstance(content, dict):
        content[str(value)[:20]] = value
    else:
        content[key] = value
    return content


def as_json(base: Any) -> st.SearchStrategy[bytes]:
    """JSON near that of `base`, or near enough to its text, or anything."""
    text = json.dumps(base).encode()
    return st.one_of(
        replaced(base).map(lambda value: json.dumps(value).encode()),
        mutated(text),
        values.map(lambda value: json.dumps(value).encode()),
        st.binary(max_size=40),
    )


# The readers. Each pair is a strategy for inputs and a function that reads one.

Target = tuple[st.SearchStrategy[Any], Callable[[Any], object]]


def configuration(folder: Path) -> Target:
    """`load` on a user's file and overrides."""
    config = yaml_files.parse(to_yaml(smoke()), "smoke")
    text = to_yaml(smoke()).encode()
    # A module path is code by the user's own word, which is not what is tested.
    harmless = values.filter(lambda value: not (isinstance(value, str) and ":" in value))
    keys = st.sampled_from([".".join(map(str, place)) for place in _places(config) if place])
    overrides = st.builds(
        lambda key, value: f"{key}={value if isinstance(value, str) else json.dumps(value)}",
        keys | st.text(max_size=12),
        harmless,
    )
    files = st.one_of(
        replaced(config).map(lambda value: json.dumps(value).encode()),
        replaced(config).map(lambda value: _dumped(value)),
        mutated(text),
        st.text(max_size=60).map(lambda text: text.encode(errors="surrogatepass")),
        st.binary(max_size=40),
    )
    path = folder / "user.yaml"

    def read(given: tuple[bytes, list[str]]) -> object:
        content, texts = given
        path.write_bytes(content)
        return load("smg", "walker_walk", "smoke", files=[path] if content else [], overrides=texts)

    return st.tuples(files | st.just(b""), st.lists(overrides, max_size=3)), read


def run_folder(folder: Path) -> Target:
    """Everything that reads a run folder's text files."""
    config = yaml_files.parse(to_yaml(smoke()), "smoke")
    metric = {"step": 10, "loss/bellman": 0.5, "time/update": 0.1, "seconds": 3.5}
    episode = {
        "step": 30,
        "evaluation": 0,
        "shift": "train",
        "seed": 42,
        "episode": 0,
        "return": 4.5,
        "length": 20,
        "explained": {"mask/iou": 0.5, "attribution/pointing": None},
    }
    lines = st.lists(as_json(metric) | as_json(episode), max_size=4).map(b"\n".join)
    state = {"id": "0123abcd", "rows": 3, "sessions": ["offline-run-20260101_000000-0123abcd"]}
    contents = {
        "config.yaml": replaced(config).map(_dumped) | mutated(to_yaml(smoke()).encode()),
        "metrics.jsonl": lines,
        "eval.jsonl": lines,
        "provenance.json": as_json({"git_commit": "a", "data": {"source": "files"}}),
        "mirrored.json": as_json(state),
        "checkpoint/latest.json": as_json(
            {"step": 30, "state": "state-30-aa.pt", "sha256": "aa", "replay": None}
        ),
    }
    (folder / "checkpoint").mkdir()
    choices = st.one_of([st.tuples(st.just(name), content) for name, content in contents.items()])
    whole = {"config.yaml": to_yaml(smoke()).encode()}
    planned = PlannedRun("walker_walk", "smg", 0, folder, smoke(), ())

    def read(given: tuple[str, bytes]) -> None:
        for name in contents:
            (folder / name).unlink(missing_ok=True)
        for name, content in (whole | dict([given])).items():
            (folder / name).write_bytes(content)
        readings: list[Callable[[], object]] = [
            lambda: load_run_config(folder),
            lambda: folders.read(planned),
            lambda: checkpoint.exists(folder / "checkpoint") and checkpoint.load(folder / "checkpoint", None),
            lambda: _read_state(folder / "mirrored.json"),
            lambda: [record["step"] + 0 for record in opened.records()],
        ]
        refusal = None
        with RunFolder(folder) as opened:
            for reading in readings:
                try:
                    reading()
                except UserError as error:
                    refusal = error
        if refusal is not None:
            raise refusal

    return choices, read


def checkpoint_state(folder: Path) -> Target:
    """The tensors of a checkpoint whose manifest was made to match them."""
    buffer = io.BytesIO()
    tensors = {"weight": torch.arange(6.0).view(2, 3), "noise": torch.zeros(3, dtype=torch.uint8)}
    torch.save({"step": 3, "agent": tensors, "words": [1, 2.5, None, "x", b"y"]}, buffer)
    valid = buffer.getvalue()
    with zipfile.ZipFile(buffer) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
        pickled = next(name for name in parts if name.endswith("data.pkl"))
    opcodes = [opcode.code.encode("latin1") for opcode in pickletools.opcodes]
    words = [
        b"os\nsystem\n",
        b"builtins\neval\n",
        b"torch._utils\n_rebuild_tensor_v2\n",
        b"\x05hello",
        b"\x80\x02",
    ]
    piece = st.sampled_from(opcodes) | st.sampled_from(words) | st.binary(max_size=4)
    program = st.lists(piece, max_size=20).map(b"".join)

    def packed(content: bytes) -> bytes:
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w") as archive:
            for name, part in parts.items():
                archive.writestr(name, content if name == pickled else part)
        return target.getvalue()

    contents = st.one_of(
        mutated(valid),
        mutated(parts[pickled]).map(packed),
        program.map(packed),
        program,
        st.binary(max_size=40),
    )
    name = "state-3-aaaa.pt"

    def read(content: bytes) -> object:
        (folder / name).write_bytes(content)
        manifest = {"step": 3, "state": name, "sha256": checkpoint.sha256(folder / name), "replay": None}
        (folder / "latest.json").write_text(json.dumps(manifest))
        return checkpoint.load(folder, None)

    return contents, read


def replay_files(folder: Path) -> Target:
    """The manifest and chunks of a replay."""
    device = torch.device("cpu")

    def replay() -> Replay:
        return Replay(40, (3, 4, 4), 2, episode_steps=10, device=device, storage=device, seed=0)

    original = replay()
    original.start_episode(np.zeros((3, 4, 4), np.uint8))
    for number in range(30):
        original.add(np.zeros(2, np.float32), 1.0, np.full((3, 4, 4), number, np.uint8), False)
    manifest = json.loads(json.dumps(original.save(folder)))
    chunks = {path.name: path.read_bytes() for path in folder.iterdir()}
    damages = st.sampled_from(sorted(chunks)).flatmap(
        lambda name: st.tuples(st.just(name), mutated(chunks[name]))
    )
    manifests = as_json(manifest).map(lambda content: _parsed(content, manifest))

    def read(given: tuple[Any, tuple[str, bytes] | None]) -> object:
        edited, damage = given
        for name, content in (chunks | dict([damage] if damage else [])).items():
            (folder / name).write_bytes(content)
        restored = replay()
        restored.load(folder, edited)
        return restored.sample(8) if len(restored) else None

    return st.tuples(st.just(manifest) | manifests, st.none() | damages), read


def colour_presets(folder: Path) -> Target:
    """The benchmark's pickle of colours."""
    buffer = io.BytesIO()
    colours = {name: np.full(3, 0.5) for name in ("grid_rgb1", "grid_rgb2", "self_rgb", "skybox_rgb")}
    torch.save([colours, colours], buffer, _use_new_zipfile_serialization=False)
    path = folder / "color_hard.pt"

    def read(content: bytes) -> object:
        path.write_bytes(content)
        return read_presets(path)

    return mutated(buffer.getvalue()), read


TARGETS = (configuration, run_folder, checkpoint_state, replay_files, colour_presets)


@cache
def smoke() -> Config:
    return load("smg", "walker_walk", "smoke")


def _dumped(value: Any) -> bytes:
    return yaml_files.dump(value).encode()


def _parsed(content: bytes, otherwise: Any) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return otherwise


# Running


def documented(read: Callable[[], object]) -> str:
    """Call a reader; "valid" or "refused", and any other exception as it is."""
    before = largest_memory()
    try:
        read()
    except UserError as error:
        assert len(str(error).splitlines()) == 1, f"not one line: {error}"
        return "refused"
    else:
        return "valid"
    finally:
        taken = largest_memory() - before
        assert taken < MEMORY, f"took {taken / 2**20:.0f} MiB"


def largest_memory() -> int:
    """The most bytes that this process has held."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class Guard:
    """Fails what no reader may do, while it is in force: start processes, connect, write elsewhere."""

    FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect")

    def __init__(self) -> None:
        self.folder: str | None = None
        sys.addaudithook(self._watch)

    def _watch(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None:
            return
        if event in self.FORBIDDEN:
            raise AssertionError(f"{event} {arguments}")
        if event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR):
            path = os.path.abspath(os.fsdecode(arguments[0])) if not isinstance(arguments[0], int) else ""
            if not path.startswith((self.folder, "/dev/")):
                raise AssertionError(f"write to {path}")


def fuzz(
    target: Callable[[Path], Target], inputs: int, seed: int, folder: Path, guard: Guard
) -> Counter[str]:
    """How many inputs a reader took and how many it refused.

    Raises:
        Exception: an undocumented one, after hypothesis has printed the smallest input that causes it.
    """
    strategy, read = target(folder)
    outcomes: Counter[str] = Counter()

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=inputs,
        database=None,
        deadline=None,
        suppress_health_check=tuple(hypothesis.HealthCheck),  # type: ignore[arg-type]
        phases=[hypothesis.Phase.generate, hypothesis.Phase.shrink],
    )
    @hypothesis.given(strategy)
    def check(given: Any) -> None:
        guard.folder = str(folder)
        try:
            outcomes[documented(lambda: read(given))] += 1
        finally:
            guard.folder = None

    check()
    return outcomes


def main() -> int:
    parser = command_line(__doc__)
    parser.add_argument("--inputs", type=int, default=100_000, help="of all readers together")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    # Asking dm_control for its tasks starts a process; once is enough.
    known = cache(common.config.loading._suite_tasks)
    known()
    common.config.loading._suite_tasks = known
    guard = Guard()
    began = time.monotonic()
    readers = {}
    for target in TARGETS:
        with tempfile.TemporaryDirectory() as folder:
            share = -(-arguments.inputs // len(TARGETS))
            outcomes = fuzz(target, share, arguments.seed, Path(folder).resolve(), guard)
        readers[target.__name__] = dict(outcomes)
        print(target.__name__, dict(outcomes), flush=True)
    report = {
        "inputs": sum(sum(outcomes.values()) for outcomes in readers.values()),
        "seed": arguments.seed,
        "readers": readers,
        "minutes": round((time.monotonic() - began) / 60, 1),
        "machine": machine(("hypothesis", "torch", "pyyaml", "pydantic")),
    }
    print(json.dumps(report, indent=2))
    if arguments.json is not None:
        write_json(report, arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
