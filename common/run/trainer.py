"""Training: the loop that joins environment, replay, agent, evaluation, records and checkpoints.

At agent step t the policy chooses an action from o_t; the update runs on what the replay held before
that action; the transition is stored. The environment therefore has nothing to wait for while the
update runs, and with `env.ahead: 1` it steps and renders in a process of its own beside it. Both ways
give the same numbers.
"""

from __future__ import annotations

import math
import time
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common import gl
from common.config.schema import Config
from common.data.replay import Replay
from common.envs.backgrounds import data_summary
from common.envs.processes import EnvironmentDied
from common.errors import UserError
from common.explain.files import save_picture
from common.explain.sheet import Sheet
from common.rl.diagnosis import Diagnosis
from common.run import checkpoint
from common.run.build import Parts, build, episode_length, replay_size
from common.run.clock import Clock
from common.run.console import Console
from common.run.device import apply_switches, concrete
from common.run.evaluate import summary_table
from common.run.foreground import measured
from common.run.records import JsonLines, Record, read_json_lines
from common.run.run_folder import EPISODE, RunFolder, provenance, sheet_of
from common.run.shifts import hardly_shown, recorded_shares, shift_shares
from common.run.signals import Interruption, Signals
from common.run.wandb_mirror import Mirror


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

    def __init__(
        self, config: Config, folder: RunFolder, parts: Parts, console: Console, signals: Signals
    ) -> None:
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
        self.action: list[float] | None = None  # chosen at this step, if its updates were interrupted
        self.updates = 0  # done at this step
        self.burst_done = False
        self.env_restarts = 0
        self.seconds = 0.0
        self.latest: dict[str, Tensor] = {}
        self.diagnosis = Diagnosis(self.agent, config.train.log_every)
        self.sheet = Sheet(self.agent, config, episode_length(config)) if config.eval.sheet else None
        self.clock = Clock()
        self.metrics = JsonLines(folder.metrics)
        self.evaluation_log = JsonLines(folder.evaluations)
        self.mirror = Mirror(config, folder.path)

    # Running

    def run(self) -> None:
        """Train to the last step, evaluate, save.

        Raises:
            Interruption: a signal asked to stop; everything is saved.
            Diverged: a loss or weight became NaN or infinite; the last good checkpoint stays.
            UserError: the run cannot go on, from a full disk to a missing clip; the last checkpoint stays.
        """
        try:
            self.restore()
            while True:
                if self.evaluation_due():
                    self.evaluate()
                self.save_when_due()
                if self.step == self.config.train.steps:
                    break
                self.advance()
                self.signals.check()
            if not self.save(finished=True):
                raise UserError(f"make room, then let the run finish with --resume {self.folder.path}")
        except Interruption as stop:
            saved = " and saved" if self.save() else ""
            self.console.say(
                f"stopped by {stop}{saved}; continue with: smg train --resume {self.folder.path}"
            )
            raise
        finally:
            self.metrics.close()
            self.evaluation_log.close()
            self.mirror.finish()

    def evaluation_due(self) -> bool:
        """Whether this step's evaluation is still to be done."""
        at_interval = self.step % self.config.eval.every == 0 or self.step == self.config.train.steps
        return at_interval and self.evaluated < self.step

    def save_when_due(self) -> None:
        """Write a checkpoint if the last one, or the start, is `checkpoint.every` ago."""
        every = self.config.checkpoint
        if every.steps is not None:
            due = self.step - self.saved_step >= every.steps
        else:
            due = time.monotonic() - self.saved_at >= (every.seconds or math.inf)
        if due:
            self.save()
            self.saved_at, self.saved_step = time.monotonic(), self.step

    def advance(self) -> None:
        """One agent step: act, update beside the environment, store; log and reset when due."""
        with self.clock("act"):
            if self.action is None:
                self.action = self.choose()
            action = np.asarray(self.action, np.float32)
        # The burst may take minutes. It can be interrupted and resumed, so its action waits until it is over.
        burst = self.learning() and not self.burst_done
        try:
            if not burst:
                self.env.send(action)
            self.update(burst)
            if burst:
                self.burst_done = True
                self.env.send(action)
            with self.clock("wait"):
                outcome = self.env.receive()
        except EnvironmentDied as error:
            self.restart_environment(error)
            return
        with self.clock("store"):
            self.replay.add(action, outcome.reward, outcome.obs[-3:], outcome.terminated)
            self.obs = outcome.obs
        self.action = None
        self.updates = 0
        self.step += 1
        self.episode["return"] += outcome.reward
        self.episode["length"] += 1
        if outcome.terminated or outcome.truncated:
            self.end_episode()
        if self.step % self.config.train.log_every == 0:
            self.log()
        self.console.step(self.step)

    def choose(self) -> list[float]:
        """The next action: uniform in the first `train.random_steps`, then drawn from the policy."""
        if self.step < self.config.train.random_steps:
            return (torch.rand(self.agent.action_size) * 2 - 1).tolist()
        obs = torch.from_numpy(self.obs)[None].to(self.agent.device, non_blocking=True)
        action = self.agent.act(obs, sample=True)[0].tolist()
        self.check_finite({"the policy's action": sum(action)})
        return action

    def update(self, burst: bool) -> None:
        """The updates of this step that are still to be done."""
        # The burst's updates belong to the step that it is due at, even if it had to wait for a batch.
        step = self.config.train.random_steps if burst else self.step
        while self.updates < self.updates_due():
            with self.clock("update"):
                batch = self.replay.sample(self.agent.batch_size(step))
                # Of a burst, only the last update can still be the newest when a line is written.
                last = self.updates + 1 == self.updates_due()
                examine = self.diagnosis.examine if last and self.diagnosis.due(step) else None
                self.latest |= self.agent.update(batch, step, examine)
            self.updates += 1
            if burst:
                self.console.burst(self.updates, self.updates_due())
                self.signals.check()
                self.save_when_due()

    def updates_due(self) -> int:
        """Updates that belong to this agent step: none, once the burst, then one each."""
        if not self.learning():
            return 0
        return 1 if self.burst_done else self.config.train.burst_updates

    def learning(self) -> bool:
        """Whether the random steps are over and the replay holds a batch."""
        return self.step >= self.config.train.random_steps and len(self.replay) >= self.config.train.batch

    def end_episode(self) -> None:
        """Record the episode and begin the next."""
        self.record({"step": self.step} | {f"episode/{name}": value for name, value in self.episode.items()})
        self.console.episode(self.episode["return"])
        length = self.episode["length"]
        # The policy's own steps throughout, and all of them in the replay, which a resume may have emptied.
        if self.burst_done and length <= min(self.step - self.config.train.random_steps, len(self.replay)):
            with self.clock("diagnose"):
                self.latest |= self.diagnosis.episode(self.replay.newest(length), seed=self.step)
        self.begin_episode()

    def begin_episode(self) -> None:
        """Reset the environment and open an episode in the replay."""
        try:
            self.obs = self.env.reset()
        except EnvironmentDied as error:
            self.restart_environment(error)
            return
        self.replay.start_episode(self.obs[-3:])
        self.episode = {"episode": self.episode["episode"] + 1, "return": 0.0, "length": 0}

    def restart_environment(self, error: EnvironmentDied) -> None:
        """Replace a dead environment process once, with a fresh episode; the lost step is not stored.

        Raises:
            Diverged: a policy of NaN was its end.
            UserError: it had died before.
        """
        self.check_finite(self.newest())
        if self.env_restarts > 0:
            raise UserError(
                f"the environment died again ({error}); continue with --resume {self.folder.path}"
            )
        self.env_restarts += 1
        self.console.say(f"the environment died ({error}); restarted with a fresh episode")
        self.record({"step": self.step, "environment_restarted": str(error)})
        self.env.restart()
        self.action = None
        self.begin_episode()

    # Recording

    def record(self, line: Record) -> None:
        """Append a line to metrics.jsonl."""
        self.metrics.write(line)

    def log(self) -> None:
        """Write the newest metrics.

        Raises:
            Diverged: one of them is not finite.
        """
        metrics = self.newest()
        self.check_finite(metrics)
        ratios, warnings = self.diagnosis.judge(metrics)
        metrics |= ratios
        for warning in warnings:
            self.console.say(f"warning at step {self.step}: {warning}")
        self.record(
            {"step": self.step} | metrics | self.clock.shares() | {"seconds": round(self.elapsed(), 3)}
        )

    def newest(self) -> dict[str, float]:
        """The newest metrics as numbers, for which the device is waited for."""
        values = [value.float() for value in self.latest.values()]
        return dict(zip(self.latest, torch.stack(values).tolist() if values else [], strict=True))

    def check_finite(self, numbers: dict[str, float]) -> None:
        """Raise `Diverged`, naming metrics and a weight, if a number is NaN or infinite."""
        if all(map(math.isfinite, numbers.values())):
            return
        names = [name for name, value in (self.newest() | numbers).items() if not math.isfinite(value)]
        weights = self.sick_weights()
        if weights:
            names.append(weights[0] + (f" and {len(weights) - 1} more weights" if len(weights) > 1 else ""))
        raise Diverged(
            f"at step {self.step} not finite: {', '.join(names)}; the last good checkpoint stays in "
            f"{self.folder.checkpoint}"
        )

    def sick_weights(self) -> list[str]:
        """Names of the weights that hold a NaN or an infinity."""
        return [
            f"{name}.{key}"
            for name, network in self.agent.networks.items()
            for key, value in network.state_dict().items()
            if not value.isfinite().all()
        ]

    def elapsed(self) -> float:
        """Seconds of training so far, those before a resume included."""
        return self.seconds + self.clock.total()

    def evaluate(self) -> None:
        """Evaluate under every shift, append each episode to eval.jsonl and draw the evaluation's sheet."""
        try:
            with self.clock("evaluate"):
                records = self.evaluator.run(
                    self.agent, self.evaluations, self.signals.check, self.console.evaluating, self.sheet
                )
        except (UserError, EnvironmentDied):
            # What evaluation lacks, such as a clip, can be brought: no step of training is lost for it.
            self.save()
            raise
        if self.sheet is not None:
            with self.clock("explain"):
                self.explain(self.sheet, records)
        for record in records:
            self.evaluation_log.write({"step": self.step, "evaluation": self.evaluations} | record)
        self.evaluations += 1
        self.evaluated = self.step
        self.console.evaluation(records)

    def explain(self, sheet: Sheet, records: list[Record]) -> None:
        """Add what the agent saw in each shift's first episode to its record, and store the picture of it."""
        numbers, picture = sheet.finish()
        for record in records:
            if record["episode"] == 0:
                record["explained"] = numbers[record["shift"]]
        try:
            save_picture(sheet_of(self.folder.path, self.step), picture)
        except UserError as error:  # a full disk costs a picture, not the run
            self.console.say(f"no sheet at step {self.step}: {error}")

    # Saving and resuming

    def save(self, finished: bool = False) -> bool:
        """Write a checkpoint and say whether that succeeded; a full disk costs a message, not the run.

        Raises:
            Diverged: a metric or a weight is not finite, so nothing was written.
        """
        with self.clock("save"):
            self.check_finite(self.newest() | dict.fromkeys(self.sick_weights(), math.nan))
            try:
                state = self.state_dict()
            except EnvironmentDied as error:
                self.restart_environment(error)
                state = self.state_dict()
            try:
                self.metrics.sync()
                self.evaluation_log.sync()
                checkpoint.save(
                    self.folder.checkpoint, self.step, state | {"finished": finished}, self.saved_replay()
                )
            except OSError as error:
                self.console.say(
                    f"no checkpoint written at step {self.step} ({error}); the one before is intact"
                )
                return False
        # Only what this checkpoint made final, so that a resumed run repeats nothing.
        self.mirror.update(self.folder.records())
        return True

    def saved_replay(self) -> Replay | None:
        """The replay, if checkpoints are to hold it."""
        return self.replay if self.config.checkpoint.replay == "full" else None

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides how the run goes on."""
        return {
            "step": self.step,
            "evaluations": self.evaluations,
            "evaluated": self.evaluated,
            "episode": self.episode,
            "action": self.action,
            "updates": self.updates,
            "burst_done": self.burst_done,
            "env_restarts": self.env_restarts,
            "seconds": self.elapsed(),
            "offsets": [self.metrics.offset, self.evaluation_log.offset],
            "latest": self.latest,
            "warned": self.diagnosis.warned,
            "obs": torch.from_numpy(self.obs.copy()),
            "agent": self.agent.state_dict(),
            "replay": self.replay.state_dict(),
            "env": self.env.state_dict(),
            "images": self.images.state_dict(),
            "random": random_state(self.agent.device),
        }

    def restore(self) -> None:
        """Take up the folder's checkpoint, or begin.

        Raises:
            CorruptFile: no checkpoint is readable, or it is not one of this configuration.
        """
        if checkpoint.exists(self.folder.checkpoint):
            state, problem = checkpoint.load(self.folder.checkpoint, self.saved_replay())
            if problem:
                self.console.say(f"using the previous checkpoint: {problem}")
                checkpoint.fall_back(self.folder.checkpoint)
            with checkpoint.must_fit(self.folder.checkpoint):
                self.load_state_dict(state)
            self.folder.keep(self.config, self.step)
        else:
            self.metrics.cut(0)
            self.evaluation_log.cut(0)
            self.begin_episode()
        self.clock = Clock()
        self.saved_at, self.saved_step = time.monotonic(), self.step
        self.console.start(self.step, self.config.train.steps)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`."""
        self.step = state["step"]
        self.evaluations = state["evaluations"]
        self.evaluated = state["evaluated"]
        self.episode = state["episode"]
        self.action = state["action"]
        self.updates = state["updates"]
        self.burst_done = state["burst_done"]
        self.env_restarts = state["env_restarts"]
        self.seconds = state["seconds"]
        self.latest = {name: value.to(self.agent.device) for name, value in state["latest"].items()}
        self.diagnosis.warned = state["warned"]
        self.obs = state["obs"].numpy()
        self.agent.load_state_dict(state["agent"])
        self.env.load_state_dict(state["env"])
        self.images.load_state_dict(state["images"])
        self.replay.load_state_dict(state["replay"])
        if not len(self.replay):  # it was not saved, or not asked for
            self.replay.enter_episode(self.obs)
        load_random_state(state["random"], self.agent.device)
        for log, offset in zip((self.metrics, self.evaluation_log), state["offsets"], strict=True):
            if log.offset < offset:
                self.console.say(f"{log.path} lacks its last {offset - log.offset} bytes: lines are missing")
            log.cut(min(log.offset, offset))


def random_state(device: torch.device) -> dict[str, Any]:
    """PyTorch's global generators, which action noise, policy noise, shifts and Kornia draw from."""
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def load_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Take up a `random_state`; a GPU's generator stays as it is after a run on a CPU."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and isinstance(state["cuda"], torch.Tensor):
        torch.cuda.set_rng_state(state["cuda"], device)


def train(config: Config, resume: Path | None = None) -> int:
    """Train a configuration in a new run folder, or continue the run in `resume`; returns an exit status.

    Raises:
        UserError: the run cannot start or go on; nothing half-written is left.
    """
    if resume is not None and finished(resume):
        print(f"{resume}: this run is finished; smg eval {resume} evaluates it further")
        return 0
    renderer = gl.select_backend()
    config = measured(concrete(config))
    apply_switches(config)
    console = Console()
    data = data_summary(config.data.root)
    for name, source in (("video and colour shifts", data["source"]), ("overlays", overlay_source(config))):
        if source == "procedural":
            console.say(f"{name}: procedural images, as no folder is set (see README, Data)")
    shares = shift_shares(config, console.say)
    try:
        with (
            closing(build(config, console.say)) as parts,
            open_folder(config, resume, parts, renderer, data, shares) as folder,
            Signals() as signals,
        ):
            console.say(f"{folder.path}: {config.agent} on {config.task}, {renderer.name}, {config.device}")
            Trainer(config, folder, parts, console, signals).run()
            console.close()
            print(final_report(config, folder))
            return 0
    except Interruption as stop:
        return stop.status
    except (Diverged, EnvironmentDied) as error:
        raise UserError(str(error)) from error
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise UserError(
            f"{config.device}'s memory is full ({(str(error).splitlines() or ['out of memory'])[0]}): lower "
            "train.batch, network.filters or replay.capacity"
            + (", or set replay.device=cpu" if config.device != "cpu" else "")
        ) from error
    finally:
        console.close()


def finished(run_folder: Path) -> bool:
    """Whether the newest checkpoint is that of a run that reached its last step."""
    folder = run_folder / "checkpoint"
    if not checkpoint.exists(folder):
        return False
    state, _ = checkpoint.load(folder, None)
    return state.get("finished") is True


def out_of_memory(error: Exception) -> bool:
    """Whether NumPy, or PyTorch on either kind of device, could not allocate."""
    kinds = (MemoryError, torch.cuda.OutOfMemoryError)
    return isinstance(error, kinds) or "can't allocate memory" in str(error)


def open_folder(
    config: Config,
    resume: Path | None,
    parts: Parts,
    renderer: gl.Renderer,
    data: dict[str, Any],
    shares: dict[str, float],
) -> RunFolder:
    """The run's folder, new or as it was left. `shares` are the `shift_shares`."""
    found = provenance(
        renderer=asdict(renderer),
        device=device_name(config),
        data=data,
        shifts=shares,
        overlay=parts.images.describe(),
    )
    if resume is not None:
        return RunFolder.reopen(resume, found)
    # Two checkpoints share the replay's chunks but for the newest; weights and optimisers are small beside.
    needed = replay_size(config, parts.env.action_size) if config.checkpoint.replay == "full" else 0
    return RunFolder.create(config, found, needed)


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
    records = read_json_lines(folder.evaluations, EPISODE)
    last = [record for record in records if record["step"] == records[-1]["step"]]
    heading = f"{config.agent} on {config.task} after {last[0]['step']} agent steps"
    warning = hardly_shown(config.task, recorded_shares(folder.provenance or {}))
    return f"\n{heading}\n{summary_table(last, config, warning)}\n\nrun folder: {folder.path}"
