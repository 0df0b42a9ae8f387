"""`smg doctor`: can training start on this machine, and with what?"""

import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import torch

from common import gl
from common.config.schema import Config
from common.config.shifts import COLOR_SHIFTS, VIDEO_SHIFTS, clips_of, presets_of
from common.data.free_memory import available_memory
from common.data.overlay_bank import ImageSequence
from common.envs import golden
from common.envs.backgrounds import data_summary
from common.envs.processes import TrainingEnv
from common.errors import UserError
from common.run.build import check_clips, replay_size, replay_storage
from common.run.derived import env_arguments, evaluations
from common.run.device import resolve_auto
from common.run.nvidia import training_gpu
from common.run.run_folder import check_disk

PYTHONS = ((3, 11), (3, 12))
PINNED = {"mujoco": "3.11.0", "dm_control": "1.0.44"}
"""The versions that draw the published benchmark's frames; setup.py requires them."""

TIMED_STEPS = 40


RENDERER = "OpenGL"


@dataclass(frozen=True)
class Finding:
    """What a check found out: a line for the user, and whether training can start in spite of it."""

    name: str
    text: str
    ok: bool


def examine(config: Config) -> int:
    """Print one line per finding; return 0 if training can start, 3 without a renderer, 1 otherwise."""
    findings = []
    for finding in diagnose(config):
        print(f"{'ok     ' if finding.ok else 'PROBLEM'}  {finding.name:<14} {finding.text}", flush=True)
        findings.append(finding)
    problems = [finding.name for finding in findings if not finding.ok]
    if not problems:
        print(f"\nTraining can start: {config.agent} on {config.task}, preset {config.preset}.")
        return 0
    print(f"\nTraining cannot start before this is solved: {', '.join(problems)}.")
    return 3 if RENDERER in problems else 1


def diagnose(config: Config) -> Iterator[Finding]:
    """All findings for a run with this configuration, one at a time."""
    yield _finding("Python", _python)
    yield _finding("PyTorch", lambda: _torch(config))
    yield _finding("simulator", _versions)
    renderer = _finding(RENDERER, lambda: _renderer(config))
    yield renderer
    if renderer.ok:
        yield _finding("speed", lambda: _speed(config))
        yield _finding("golden frames", _golden_frames)
    yield _finding("backgrounds", lambda: _backgrounds(config))
    yield _finding("overlay images", lambda: _overlay_images(config))
    yield _finding("W&B", lambda: _wandb(config))
    if renderer.ok:
        yield _finding("replay", lambda: _replay(config))


def _finding(name: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name, check(), ok=True)
    except UserError as error:
        return Finding(name, str(error), ok=False)


def _python() -> str:
    if sys.version_info[:2] not in PYTHONS:
        raise UserError(f"{platform.python_version()}; this package needs Python 3.11 or 3.12")
    return platform.python_version()


def _torch(config: Config) -> str:
    device = resolve_auto(config).device
    if device.startswith("cuda"):
        name = torch.cuda.get_device_name(device)
    else:
        name = f"CPU, {torch.get_num_threads()} threads"
    return f"{torch.__version__} on {device} ({name})"


def _versions() -> str:
    found = {package: version(package) for package in PINNED}
    text = ", ".join(f"{package} {number}" for package, number in found.items())
    if found != PINNED:
        needed = " ".join(f"{package}=={number}" for package, number in PINNED.items())
        raise UserError(f"{text}; other versions draw other pixels: pip install {needed}")
    return text


def _wandb(config: Config) -> str:
    """No obstacle where it is missing: a run's own files are complete without."""
    try:
        return f"{config.wandb.mode}, version {version('wandb')}"
    except PackageNotFoundError:
        return f"{config.wandb.mode}, not installed: runs are not mirrored (pip install wandb)"


def _renderer(config: Config) -> str:
    """What draws, and on which GPU if it is one."""
    try:
        training = training_gpu(resolve_auto(config).device)
    except UserError:  # which is a finding of its own
        training = None
    renderer = gl.select_backend(training)
    text = f"{renderer.backend}: {renderer.name}"
    if renderer.software and gl.has_nvidia_gpu():
        return f"{text} - SOFTWARE RENDERING although there is an NVIDIA GPU; see the warning above"
    if renderer.software:
        return f"{text} (software)"
    where = f"GPU {renderer.gpu}" if renderer.gpu else "EGL does not tell on which GPU"
    if training is None:
        return f"{text}, {where}"
    same = renderer.gpu == training.pci
    return f"{text}, {where}, which trains" if same else f"{text}, {where}; {training.pci} trains"


def _speed(config: Config) -> str:
    """Frames per second of the task's own environment, its simulation included."""
    env = TrainingEnv(env_arguments(config) | {"action_repeat": 1}, own_process=False)
    env.reset()
    action = np.zeros(env.action_size, np.float32)
    begin = time.perf_counter()
    for _ in range(TIMED_STEPS):
        env.send(action)
        env.receive()
    rate = TIMED_STEPS / (time.perf_counter() - begin)
    env.close()
    size = config.env.frame_size
    return f"{rate:.0f} frames/s of {config.task} at {size}x{size}, simulation included"


def _golden_frames() -> str:
    share = golden.golden_check()
    text = f"{share:.2%} of the pixels away from edges are those of the published benchmark"
    if share < golden.LEAST_SHARE:
        raise UserError(
            f"{text}, not {golden.LEAST_SHARE:.0%}: check the versions above and the OpenGL driver"
        )
    return text


def _backgrounds(config: Config) -> str:
    found = data_summary(config.data.root)
    clips = ", ".join(f"{found[shift]['clips']} {shift} clips" for shift in VIDEO_SHIFTS)
    presets = ", ".join(f"{found[shift]['presets']} {shift} presets" for shift in COLOR_SHIFTS)
    source = found["root"] or "procedural, as neither data.root nor $SMG_DATA is set"
    for shift in config.eval.shifts:
        needed = (found[name] for name in (clips_of(shift), presets_of(shift)) if name is not None)
        if not all(each.get("clips", each.get("presets")) for each in needed):
            raise UserError(
                f"{found['root']} holds nothing for {shift}: add it, or leave it out of eval.shifts"
            )
    text = f"{clips}, {presets} ({source})"
    shown = check_clips(config, evaluations(config))
    return f"{text}; the {shown} clips that evaluations show decode" if found["root"] and shown else text


def _overlay_images(config: Config) -> str:
    folder = config.data.overlay_folder()
    if folder is None:
        return "procedural, as neither data.overlay nor $SMG_OVERLAY is set"
    return f"{len(ImageSequence(folder, config.seed).names)} images in {folder}"


def _replay(config: Config) -> str:
    """Memory that the replay takes and disk that its checkpoints take, beside what there is."""
    config = resolve_auto(config)
    env = TrainingEnv(env_arguments(config), own_process=False)
    action_size = env.action_size
    env.close()
    size = replay_size(config, action_size)
    storage = replay_storage(config, action_size)
    free = available_memory(storage)
    there = "" if free is None else f" of {free / 1e9:.1f} GB free"
    on_disk = size if config.checkpoint.replay == "full" else 0
    check_disk(config.run_folder(), on_disk)
    capacity = config.replay.capacity
    return (
        f"{capacity} transitions take {size / 1e9:.2f} GB{there} on {storage}; "
        f"checkpoints up to {on_disk / 1e9:.2f} GB of disk, which is there"
    )
