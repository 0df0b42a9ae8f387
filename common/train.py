"""Training: the loop that joins environment, replay, agent, evaluation, records and checkpoints.

At agent step t the policy chooses an action from o_t; the update runs on what the replay held before
that action; the transition is stored. The environment therefore has nothing to wait for while the
update runs, and with `env.ahead: 1` it steps and renders in a process of its own beside it. Both ways
give the same numbers.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common import checkpoint, gl
from common.build import Parts, build, replay_size
from common.config import Config
from common.console import Console
from common.envs.backgrounds import data_summary
from common.envs.processes import EnvironmentDied
from common.errors import UserError
from common.evaluate import summary_table
from common.foreground import measured
from common.hardware import apply_switches, concrete
from common.metrics import JsonLines, Mirror, Record, read_json_lines
from common.run_folder import RunFolder, provenance
from common.signals import Interruption, Signals


class Diverged(Exception):
    """A loss or a weight is no longer a finite number."""


class Trainer:
    """One run, from wherever its folder's checkpoint stands to its last step.

    Args:
        config: the resolved configuration, without any `auto` left.
        folder: the run's folder, locked by this process.
        parts: environment, agent, replay, overlay bank and evaluation environments.
        console: progress and messages.
        signals: says when to stop early.
    """

    def __init__(self, config: Config, folder: RunFolder, parts: Parts, console: Console, signals: Signals) -> None:
        self.config = config
        self.folder = folder
        self.console = console
        self.signals = signals
        self.env, self.agent, self.replay, self.images = parts.env, parts.agent, parts.replay, parts.images
        self.evaluator = parts.evaluator
        self.step = 0
        self.evaluations = 0
        self.evaluated = 0  # the step of the last evaluation
        self.episode: Record = {"episode": 0, "return": 0.0, "length": 0}
        self.pending: Record | None = None  # an action whose updates a checkpoint interrupted
        self.env_restarts = 0
        self.seconds = 0.0
        self.latest: dict[str, Tensor] = {}
        self.clock = Clock()
        self.metrics: JsonLines
        self.evaluation_log: JsonLines
        self.mirror: Mirror

    # Running

    def run(self) -> None:
        """Train to the last step, evaluate, save.

        Raises:
            Interruption: a signal asked to stop; everything is saved.
            Diverged: a loss or weight became NaN or infinite; the last good checkpoint stays.
        """
        self.restore()
        saved_at, saved_step = time.monotonic(), self.step
        try:
            while True:
                if self.evaluation_due():
                    self.evaluate()
                if self.due(saved_at, saved_step):
                    self.save()
                    saved_at, saved_step = time.monotonic(), self.step
                if self.step == self.config.train.steps:
                    break
                self.advance()
                self.signals.check()
            self.save(finished=True)
        except Interruption:
            self.save()
            raise
        finally:
            self.metrics.close()
            self.evaluation_log.close()
            self.mirror.finish()

    def finished(self) -> bool:
        """Whether the folder's checkpoint is that of a run that reached its last step."""
        if not checkpoint.exists(self.folder.checkpoint):
            return False
        state, _ = checkpoint.load(self.folder.checkpoint, None)
        return state["finished"]

    def evaluation_due(self) -> bool:
        """Whether this step's evaluation is still to be done."""
        at_interval = self.step % self.config.eval.every == 0 or self.step == self.config.train.steps
        return at_interval and self.evaluated < self.step

    def due(self, saved_at: float, saved_step: int) -> bool:
        """Whether a checkpoint is to be written now."""
        every = self.config.checkpoint
        if every.steps is not None:
            return self.step - saved_step >= every.steps
        return time.monotonic() - saved_at >= (every.seconds or math.inf)

    def advance(self) -> None:
        """One agent step: act, update beside the environment, store; log and reset when due."""
        train = self.config.train
        with self.clock("act"):
            if self.pending is None:
                self.pending = {"action": self.choose(), "updates": 0}
            action = np.asarray(self.pending["action"], np.float32)
        # The burst may take minutes. It can be interrupted and resumed, so its action waits until it is over.
        burst = self.updates_due() > 1
        if not burst:
            self.env.send(action)
        try:
            with self.clock("update"):
                while self.pending["updates"] < self.updates_due():
                    batch = self.replay.sample(self.agent.batch_size(self.step))
                    self.latest |= self.agent.update(batch, self.step)
                    self.pending["updates"] += 1
                    if burst:
                        self.console.burst(self.pending["updates"], self.updates_due())
                        self.signals.check()
            if burst:
                self.env.send(action)
            with self.clock("wait"):
                outcome = self.env.receive()
        except EnvironmentDied as error:
            self.restart_environment(error)
            return
        with self.clock("store"):
            self.replay.add(action, outcome.reward, outcome.obs[-3:], outcome.terminated)
            self.obs = outcome.obs
        self.pending = None
        self.step += 1
        self.episode["return"] += outcome.reward
        self.episode["length"] += 1
        if outcome.terminated or outcome.truncated:
            self.end_episode()
        if self.step % train.log_every == 0:
            self.log()
        self.console.step(self.step)

    def choose(self) -> list[float]:
        """The next action: uniform in the first `train.random_steps`, then drawn from the policy."""
        if self.step < self.config.train.random_steps:
            return (torch.rand(self.agent.action_size) * 2 - 1).tolist()
        obs = torch.from_numpy(self.obs)[None].to(self.agent.device, non_blocking=True)
        return self.agent.act(obs, sample=True)[0].tolist()

    def updates_due(self) -> int:
        """Updates that belong to this agent step: none, the burst, then one each."""
        train = self.config.train
        if self.step < train.random_steps or len(self.replay) < train.batch:
            return 0
        return train.burst_updates if self.step == train.random_steps else 1

    def end_episode(self) -> None:
        """Record the episode and begin the next."""
        self.record({"step": self.step} | {f"episode/{name}": value for name, value in self.episode.items()})
        self.console.episode(self.episode["return"])
        self.begin_episode()

    def begin_episode(self) -> None:
        """Reset the environment and open an episode in the replay."""
        self.obs = self.env.reset()
        self.replay.start_episode(self.obs[-3:])
        self.episode = {"episode": self.episode["episode"] + 1, "return": 0.0, "length": 0}

    def restart_environment(self, error: EnvironmentDied) -> None:
        """Replace a dead environment process once, with a fresh episode; the lost step is not stored.

        Raises:
            UserError: it had died before.
        """
        if self.env_restarts > 0:
            raise UserError(f"the environment process died again ({error}); resume with --resume {self.folder.path}")
        self.env_restarts += 1
        self.console.say(f"the environment process died ({error}); restarted with a fresh episode")
        self.record({"step": self.step, "environment_restarted": str(error)})
        self.env.restart()
        self.pending = None
        self.begin_episode()

    # Recording

    def record(self, line: Record) -> None:
        """Append a line to metrics.jsonl."""
        self.metrics.write(line)

    def log(self) -> None:
        """Write the newest metrics: the one place that waits for the device.

        Raises:
            Diverged: one of them is not finite.
        """
        names = list(self.latest)
        numbers = torch.stack([self.latest[name].float() for name in names]).tolist() if names else []
        metrics = dict(zip(names, numbers, strict=True))
        self.check_finite(metrics)
        self.record({"step": self.step} | metrics | self.clock.shares() | {"seconds": round(self.elapsed(), 3)})

    def check_finite(self, metrics: dict[str, float]) -> None:
        """Raise `Diverged`, naming metrics and weights, if a metric is NaN or infinite."""
        sick = [name for name, value in metrics.items() if not math.isfinite(value)]
        if not sick:
            return
        weights = [
            f"{name}.{key}"
            for name, network in self.agent.networks.items()
            for key, value in network.state_dict().items()
            if not value.isfinite().all()
        ]
        raise Diverged(
            f"at step {self.step} {', '.join(sick)} is not finite"
            + (f", nor is {weights[0]} and {len(weights) - 1} more weights" if weights else "")
            + f"; the last good checkpoint stays in {self.folder.checkpoint}"
        )

    def elapsed(self) -> float:
        """Seconds of training so far, those before a resume included."""
        return self.seconds + self.clock.total()

    def evaluate(self) -> None:
        """Evaluate under every shift and append each episode to eval.jsonl."""
        with self.clock("evaluate"):
            records = self.evaluator.run(self.agent, self.evaluations, self.signals.check, self.console.evaluating)
        for record in records:
            self.evaluation_log.write({"step": self.step, "evaluation": self.evaluations} | record)
        self.evaluations += 1
        self.evaluated = self.step
        self.console.evaluation(records)

    # Saving and resuming

    def save(self, finished: bool = False) -> None:
        """Write a checkpoint; a full disk costs a message, not the run."""
        self.metrics.sync()
        self.evaluation_log.sync()
        state = self.state_dict() | {"finished": finished}
        keep = self.replay if self.config.checkpoint.replay == "full" else None
        try:
            with self.clock("save"):
                checkpoint.save(self.folder.checkpoint, self.step, state, keep)
        except OSError as error:
            self.console.say(f"no checkpoint written at step {self.step} ({error}); the one before is intact")
            return
        self.mirror_records()

    def mirror_records(self) -> None:
        """Send W&B what this checkpoint made final, so that a resumed run repeats nothing."""
        for record in self.folder.take_unmirrored():
            self.mirror.log(record)

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides how the run goes on."""
        return {
            "step": self.step,
            "evaluations": self.evaluations,
            "evaluated": self.evaluated,
            "episode": self.episode,
            "pending": self.pending,
            "env_restarts": self.env_restarts,
            "seconds": self.elapsed(),
            "offsets": [self.metrics.offset, self.evaluation_log.offset],
            "latest": self.latest,
            "obs": torch.from_numpy(self.obs.copy()),
            "agent": self.agent.state_dict(),
            "replay": self.replay.state_dict(),
            "env": self.env.state_dict(),
            "images": self.images.state_dict(),
            "random": random_state(),
        }

    def restore(self) -> None:
        """Take up the folder's checkpoint, or begin."""
        offsets: list[int] | list[None] = [0, 0]
        state = None
        keep = self.replay if self.config.checkpoint.replay == "full" else None
        if checkpoint.exists(self.folder.checkpoint):
            state, problem = checkpoint.load(self.folder.checkpoint, keep)
            if problem:
                self.console.say(f"using the previous checkpoint: {problem}")
            offsets = state["offsets"]
        self.metrics = JsonLines(self.folder.metrics, offsets[0])
        self.evaluation_log = JsonLines(self.folder.evaluations, offsets[1])
        self.mirror = self.folder.mirror(self.config)
        if state is None:
            self.begin_episode()
        else:
            self.load_state_dict(state)
        self.clock = Clock()
        self.console.start(self.step, self.config.train.steps)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`."""
        self.step = state["step"]
        self.evaluations = state["evaluations"]
        self.evaluated = state["evaluated"]
        self.episode = state["episode"]
        self.pending = state["pending"]
        self.env_restarts = state["env_restarts"]
        self.seconds = state["seconds"]
        self.latest = {name: value.to(self.agent.device) for name, value in state["latest"].items()}
        self.obs = state["obs"].numpy()
        self.agent.load_state_dict(state["agent"])
        self.env.load_state_dict(state["env"])
        self.images.load_state_dict(state["images"])
        if self.config.checkpoint.replay == "full":
            self.replay.load_state_dict(state["replay"])
        else:
            self.replay.start_episode(self.obs[-3:])
        load_random_state(state["random"])


class Clock:
    """Wall time by activity, for the log and the benchmarks."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.spent: dict[str, float] = {}
        self._logged = dict(self.spent), self.started

    def __call__(self, name: str) -> _Timer:
        return _Timer(self.spent, name)

    def total(self) -> float:
        """Seconds since the clock was made."""
        return time.perf_counter() - self.started

    def shares(self) -> dict[str, float]:
        """`time/<activity>`: each activity's share of the wall time since the last call."""
        before, then = self._logged
        now = time.perf_counter()
        self._logged = dict(self.spent), now
        passed = max(now - then, 1e-9)
        return {f"time/{name}": round((s - before.get(name, 0)) / passed, 4) for name, s in self.spent.items()}


class _Timer:
    def __init__(self, spent: dict[str, float], name: str) -> None:
        self.spent, self.name = spent, name

    def __enter__(self) -> None:
        self.started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.spent[self.name] = self.spent.get(self.name, 0.0) + time.perf_counter() - self.started


def random_state() -> dict[str, Any]:
    """PyTorch's global generators, which action noise, policy noise, shifts and Kornia draw from."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def load_random_state(state: dict[str, Any]) -> None:
    """Take up a `random_state`."""
    torch.set_rng_state(state["cpu"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


def train(config: Config, resume: Path | None = None) -> int:
    """Train a configuration in a new run folder, or continue the run in `resume`; returns an exit status.

    Raises:
        UserError: the run cannot start or go on; nothing half-written is left.
    """
    renderer = gl.select_backend()
    if resume is None:
        config = measured(concrete(config))
    apply_switches(config)
    console = Console()
    data = data_summary(config.data.root)
    for name, source in (("video and colour shifts", data["source"]), ("overlays", overlay_source(config))):
        if source == "procedural":
            console.say(f"{name}: procedural images, as no folder is set (see README, Data)")
    parts = build(config)
    try:
        folder = open_folder(config, resume, parts, renderer, data)
        with folder, Signals() as signals:
            trainer = Trainer(config, folder, parts, console, signals)
            if trainer.finished():
                console.say(f"{folder.path}: this run is finished; smg eval {folder.path} evaluates it further")
                return 0
            console.say(f"{folder.path}: {config.agent} on {config.task}, {renderer.name}, {config.device}")
            trainer.run()
            console.close()
            print(final_report(config, folder))
            return 0
    except Interruption as stop:
        console.close()
        console.say(f"stopped by {stop} and saved; continue with: smg train --resume {resume or config.run_folder()}")
        return stop.status
    except Diverged as error:
        raise UserError(str(error)) from error
    except torch.cuda.OutOfMemoryError as error:
        raise UserError(
            f"the GPU's memory is full ({str(error).splitlines()[0]}): set replay.device=cpu, or lower train.batch "
            "or network.filters"
        ) from error
    finally:
        parts.close()


def open_folder(
    config: Config, resume: Path | None, parts: Parts, renderer: gl.Renderer, data: dict[str, Any]
) -> RunFolder:
    """The run's folder, new or as it was left."""
    if resume is not None:
        return RunFolder(resume)
    found = {"renderer": asdict(renderer), "device": device_name(config), "data": data}
    # Two checkpoints share the replay's chunks but for the newest; weights and optimisers are small beside.
    needed = replay_size(config, parts.env.action_size) if config.checkpoint.replay == "full" else 0
    return RunFolder.create(config, provenance(**found, overlay=parts.images.describe()), needed)


def overlay_source(config: Config) -> str:
    """Where overlay images come from: a folder's path, or "procedural"."""
    return str(config.data.overlay_folder() or "procedural")


def device_name(config: Config) -> str:
    """The training device as a person knows it."""
    if config.device.startswith("cuda"):
        return torch.cuda.get_device_name(config.device)
    return f"CPU, {torch.get_num_threads()} threads"


def final_report(config: Config, folder: RunFolder) -> str:
    """The last evaluation as a table, and where everything is."""
    records = read_json_lines(folder.evaluations)
    last = [record for record in records if record["step"] == records[-1]["step"]]
    table = summary_table(last, config.agent, config.task)
    return f"\n{config.agent} on {config.task} after {last[0]['step']} agent steps\n{table}\n\nrun folder: {folder.path}"
