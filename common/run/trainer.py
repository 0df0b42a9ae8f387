"""Training: the loop that joins environment, replay, agent, evaluation, records and checkpoints.

At agent step t the policy chooses an action from o_t; the update runs on what the replay held before
that action; the transition is stored. The environment therefore has nothing to wait for while the
update runs, and with `env.ahead: 1` it steps and renders in a process of its own beside it. Both ways
give the same numbers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from common.config.schema import Config
from common.data.replay import Replay
from common.envs.processes import EnvironmentDied, SimulationFailed, Step
from common.errors import UserError
from common.rl.diagnosis import Diagnosis
from common.rl.soundness import check_single
from common.run import checkpoint
from common.run.build import Parts
from common.run.clock import Clock
from common.run.console import Console
from common.run.device import load_random_state, random_state
from common.run.evaluate import FrameObserver
from common.run.forecast import Forecast, Kind, time_updates, work_left
from common.run.progress import Progress
from common.run.records import JsonLines, Record, diverged_among
from common.run.run_folder import REPLAY_EMPTIED, RunFolder, sheet_of
from common.run.signals import Interruption, Signals
from common.run.wandb_mirror import WandbMirror


class Diverged(Exception):
    """A loss or a weight is no longer a finite number."""


class Sheet(FrameObserver, Protocol):
    """Shows what the agent saw in an evaluation."""

    def write(self, path: Path) -> tuple[dict[str, Record], str | None]:
        """Draw what was observed since the last time.

        Returns:
            Numbers by shift, and why there is no picture at `path`, if it could not be written.
        """
        ...


def to_host(values: Tensor) -> Callable[[], Tensor]:
    """Send a device's values to the host; what is returned waits for them and gives them."""
    if values.device.type != "cuda":
        return lambda: values
    arriving = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    arriving.copy_(values, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record()

    def wait() -> Tensor:
        arrived.synchronize()
        return arriving

    return wait


def _diverged(outcome: Step) -> bool:
    """Whether the simulation itself ended the episode."""
    return outcome.info.get("diverged", False)


class Trainer:
    """One run, from wherever its folder's checkpoint stands to its last step.

    Args:
        config: the resolved configuration, without any `auto` left.
        folder: the run's folder, locked by this process.
        parts: environment, agent, replay, overlay bank and evaluation environments.
        console: progress and messages.
        signals: says when to stop early.
        sheet: draws what the agent saw in each evaluation; None draws nothing.
    """

    def __init__(
        self,
        config: Config,
        folder: RunFolder,
        parts: Parts,
        console: Console,
        signals: Signals,
        sheet: Sheet | None = None,
    ) -> None:
        self.config = config
        self.folder = folder
        self.resume_command = folder.resume_command(config)
        self.console = console
        self.signals = signals
        self.sheet = sheet
        self.env, self.agent, self.replay, self.images = parts.env, parts.agent, parts.replay, parts.images
        self.evaluator = parts.evaluator
        self.progress = Progress()
        self.env_restarts = 0  # in this session
        # A GPU computes the action while the update that follows is being prepared and enqueued. A CPU would
        # lose the time in which the environment steps beside the update.
        self.policy_answers_later = parts.agent.device.type == "cuda"
        self.findings = 0  # of the agent's graphed updates, those already told
        self.latest: dict[str, Tensor] = {}
        self.diagnosis = Diagnosis(self.agent, config.train.log_every)
        self.clock = Clock()
        self.metrics = JsonLines(folder.metrics)
        self.evaluation_log = JsonLines(folder.evaluations)
        self.mirror = WandbMirror(config, folder.path)
        # `restore` gives these their values.
        self.obs = np.empty(0, np.uint8)
        self.forecast = Forecast(config, {}, update=None)
        self.saved_at, self.saved_step = 0.0, 0

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
                if self.progress.step == self.config.train.steps:
                    break
                self.advance()
                self.signals.check()
            if not self.save(finished=True):
                raise UserError(f"make room, then let the run finish: {self.resume_command}")
        except Interruption as stop:
            saved = " and saved" if self.save() else ""
            self.console.say(f"stopped by {stop}{saved}; continue with: {self.resume_command}")
            raise
        finally:
            self.close()

    def advance(self) -> None:
        """One agent step: act, update beside the environment, store; log and reset when due."""
        progress = self.progress
        chosen = self.choose_action()
        if self.learning() and not progress.burst_done:
            progress.action = chosen()
            self.burst()
            # Anew, if the environment died meanwhile. The burst stands for this step's update.
            chosen, updates = self.choose_action(), False
        else:
            due = progress.step % self.config.train.update_every == 0
            updates = self.learning() and due and not progress.updates
        try:
            outcome = self.step_environment(chosen, updates)
        except EnvironmentDied as error:
            self.restart_environment(error)
            return
        self.store(outcome)
        if outcome.terminated or outcome.truncated:
            self.end_episode(_diverged(outcome))
        if progress.step % self.config.train.log_every == 0:
            self.log()
        self.console.step(progress.step)
        waiting = progress.step <= progress.updates_from(self.config.train.random_steps)
        self.lap("random" if waiting else "step")

    def choose_action(self) -> Callable[[], list[float]]:
        """Choose the next step's action, unless that is done: uniform in the first `train.random_steps`, then
        drawn from the policy.

        Returns:
            What gives the action, and waits for it if the device has not computed it yet.
        """
        action = self.progress.action
        if action is not None:
            return lambda: action
        with self.clock("act"):
            if self.progress.step < self.config.train.random_steps:
                drawn = (torch.rand(self.agent.action_size) * 2 - 1).tolist()
                return lambda: drawn
            obs = torch.from_numpy(self.obs)[None].to(self.agent.device, non_blocking=True)
            answer = to_host(self.agent.act(obs, sample=True)[0])

        def finite() -> list[float]:
            with self.clock("act"):
                action = answer().tolist()
            self.check_finite({"the policy's action": sum(action)})
            return action

        return finite

    def step_environment(self, chosen: Callable[[], list[float]], updates: bool) -> Step:
        """Send the action to the environment and wait for its step; with `updates`, learn once beside it.

        Raises:
            EnvironmentDied: its process ended, or the simulation failed.
        """
        step = self.progress.step
        if updates and self.policy_answers_later:
            self.update(step, last=True)
        self.progress.action = chosen()
        self.env.send(np.asarray(self.progress.action, np.float32))
        if updates and not self.policy_answers_later:
            self.update(step, last=True)
        with self.clock("wait"):
            return self.env.receive()

    def store(self, outcome: Step) -> None:
        """Add the step to the replay and count it."""
        progress = self.progress
        with self.clock("store"):
            if not _diverged(outcome):  # what is seen then does not follow from the action
                self.replay.add(
                    np.asarray(progress.action, np.float32), outcome.reward, outcome.obs, outcome.terminated
                )
            self.obs = outcome.obs
        progress.step, progress.updates, progress.action = progress.step + 1, 0, None
        progress.episode["return"] += outcome.reward
        progress.episode["length"] += 1

    def learning(self) -> bool:
        """Whether the replay has filled, by the random steps or anew, and holds a batch."""
        train, progress = self.config.train, self.progress
        filled = progress.step >= progress.updates_from(train.random_steps)
        return filled and len(self.replay) >= train.batch

    def burst(self) -> None:
        """The updates that make up for the random steps, in place of one step's update.

        They may take minutes, so they are saved on the way and can be stopped and resumed anywhere. The
        environment waits for them, as its state is saved with them.
        """
        train, progress = self.config.train, self.progress
        while progress.updates < train.burst_updates:
            # All belong to the step that the burst is due at, even if it had to wait for a batch. Only the
            # last one can still be the newest when a line is written.
            self.update(train.random_steps, last=progress.updates + 1 == train.burst_updates)
            self.console.burst(progress.updates, train.burst_updates)
            self.lap("burst")
            self.signals.check()
            self.save_when_due()
        progress.burst_done = True

    def update(self, step: int, last: bool) -> None:
        """One update as of agent step `step`; `last` says that no other comes before the next line is due."""
        with self.clock("update"):
            batch = self.replay.sample(self.agent.batch_size(step))
            examine = self.diagnosis.examine if last and self.diagnosis.due(step) else None
            self.latest |= self.agent.update(batch, step, examine)
        self.progress.updates += 1
        for finding in self.agent.graphed_update.findings[self.findings :]:
            self.findings += 1
            self.console.say(f"CUDA graph of {finding}")
            self.folder.note("cuda_graphs", finding)

    # Episodes

    def begin_episode(self) -> None:
        """Reset the environment and open an episode in the replay."""
        try:
            self.obs = self.env.reset()
        except EnvironmentDied as error:
            self.restart_environment(error)
            return
        self.replay.start_episode(self.obs)
        self.progress.episode = {"episode": self.progress.episode["episode"] + 1, "return": 0.0, "length": 0}

    def end_episode(self, diverged: bool) -> None:
        """Record the episode and begin the next; `diverged` says that the simulation itself ended it."""
        progress, episode = self.progress, self.progress.episode
        line = {f"episode/{name}": value for name, value in episode.items()}
        if diverged:
            line["episode/diverged"] = True
            self.console.say(
                f"the simulation diverged at step {progress.step}: episode {episode['episode']} ends there"
            )
        self.metrics.write({"step": progress.step} | line)
        self.console.episode(episode["return"])
        length = episode["length"]
        # The policy's own steps throughout, and all of them in the replay, which a resume may have emptied.
        own = length <= min(progress.step - self.config.train.random_steps, len(self.replay))
        if progress.burst_done and own and not diverged:
            with self.clock("diagnose"):
                self.latest |= self.diagnosis.episode(self.replay.newest(length), seed=progress.step)
        self.begin_episode()

    def restart_environment(self, error: EnvironmentDied) -> None:
        """Replace a dead environment once a session, with a fresh episode; the lost step is not stored.

        Raises:
            Diverged: a policy of NaN was its end.
            UserError: it had died in this session before.
        """
        self.check_finite(self.newest())
        if self.env_restarts > 0 and isinstance(error, SimulationFailed):
            raise UserError(f"the environment failed again ({error}); a resumed run would fail likewise")
        if self.env_restarts > 0:
            raise UserError(f"the environment died again ({error}); continue with: {self.resume_command}")
        self.env_restarts += 1
        self.console.say(f"the environment died ({error}); restarted with a fresh episode")
        self.metrics.write({"step": self.progress.step, "environment_restarted": str(error)})
        entropy = np.random.SeedSequence((self.config.seed, self.progress.step))
        self.env.restart(seed=int(entropy.generate_state(1)[0]))
        self.progress.action = None
        self.begin_episode()

    # Evaluation

    def evaluation_due(self) -> bool:
        """Whether this step's evaluation is still to be done."""
        step = self.progress.step
        at_interval = step % self.config.eval.every == 0 or step == self.config.train.steps
        return at_interval and self.progress.evaluated < step

    def evaluate(self) -> None:
        """Evaluate under every shift, append each episode to eval.jsonl and draw the evaluation's sheet."""
        step = self.progress.step
        # A run that is prolonged goes on with the numbers of one that was never shorter.
        number = (step - 1) // self.config.eval.every
        try:
            with self.clock("evaluate"):
                records = self.evaluator.run(
                    self.agent, number, self.signals.check, self.console.evaluating, self.sheet
                )
        except (UserError, EnvironmentDied):
            # What evaluation lacks, such as a clip, can be brought: no step of training is lost for it.
            self.save()
            raise
        if self.sheet is not None:
            with self.clock("explain"):
                self.explain(self.sheet, records)
        for record in records:
            self.evaluation_log.write({"step": step, "evaluation": number} | record)
        if diverged := diverged_among(records):
            self.console.say(f"the simulation diverged in {diverged} of {len(records)} evaluation episodes")
        self.progress.evaluated = step
        self.console.evaluation(records)
        self.lap("evaluation")

    def explain(self, sheet: Sheet, records: list[Record]) -> None:
        """Add what the agent saw in each shift's first episode to its record, and store the picture of it."""
        numbers, problem = sheet.write(sheet_of(self.folder.path, self.progress.step))
        if problem is not None:  # a full disk costs a picture, not the run
            self.console.say(f"no sheet at step {self.progress.step}: {problem}")
        for record in records:
            if record["episode"] == 0:
                record["explained"] = numbers[record["shift"]]

    # Recording

    def log(self) -> None:
        """Write the newest metrics.

        Raises:
            Diverged: one of them is not finite.
        """
        step, metrics = self.progress.step, self.newest()
        self.check_finite(metrics)
        ratios, warnings = self.diagnosis.judge(metrics)
        for warning in warnings:
            self.console.say(f"warning at step {step}: {warning}")
        times = self.clock.shares() | {"seconds": round(self.clock.total(), 3)}
        self.metrics.write({"step": step} | metrics | ratios | times)

    def newest(self) -> dict[str, float]:
        """The newest metrics as numbers, for which the device is waited for.

        Raises:
            UserError: the agent returned something else than a single number in a tensor.
        """
        for name, value in self.latest.items():
            check_single(f"the metric '{name}'", value)
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
            f"at step {self.progress.step} not finite: {', '.join(names)}; the last good checkpoint stays in "
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

    def lap(self, kind: Kind) -> None:
        """Note that one of a kind of work is done, and show how long the rest will take."""
        self.forecast.lap(kind)
        self.console.expect(self.forecast.left(work_left(self.config, self.progress)))

    # Saving and resuming

    def save_when_due(self) -> None:
        """Write a checkpoint if the last one, or the start, is `checkpoint.every` ago."""
        every = self.config.checkpoint
        if every.steps is not None:
            due = self.progress.step - self.saved_step >= every.steps
        else:
            due = time.monotonic() - self.saved_at >= (every.seconds or math.inf)
        if due:
            self.save()
            self.saved_at, self.saved_step = time.monotonic(), self.progress.step

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
            step = self.progress.step
            try:
                self.metrics.sync()
                self.evaluation_log.sync()
                checkpoint.save(
                    self.folder.checkpoint, step, state | {"finished": finished}, self.saved_replay()
                )
            except OSError as error:
                self.console.say(f"no checkpoint written at step {step} ({error}); the one before is intact")
                return False
        # Only what this checkpoint made final, so that a resumed run repeats nothing.
        self.mirror.update(self.folder.records())
        return True

    def saved_replay(self) -> Replay | None:
        """The replay, if checkpoints are to hold it."""
        return self.replay if self.config.checkpoint.replay == "full" else None

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides how the run goes on."""
        self.progress.seconds = self.clock.total()
        return asdict(self.progress) | {
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
            progress = self.progress
            if progress.learnt and (changed := self.folder.other_data(self.config)):
                self.console.say(f"this run goes on with other data: {changed}")
            self.folder.keep(self.config, progress.step, progress.learnt)
            if 0 < progress.step < self.config.train.steps and not len(self.replay):
                self.refill()
        else:
            self.folder.keep(self.config, step=0, learnt=False)
            self.metrics.cut(0)
            self.evaluation_log.cut(0)
            self.begin_episode()
            train = self.config.train
            if train.steps <= max(train.random_steps, train.batch):
                self.console.say(
                    f"nothing will be learnt in train.steps={train.steps}: updates begin after "
                    f"train.random_steps={train.random_steps} and with train.batch={train.batch} transitions"
                )
        self.console.start(self.progress.step, self.config.train.steps)
        each = self.progress.seconds_each
        timed = None if "step" in each else time_updates(self.config, self.agent.action_size)
        self.forecast = Forecast(self.config, each, timed)
        self.clock = Clock(before=self.progress.seconds)
        self.saved_at, self.saved_step = time.monotonic(), self.progress.step

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`."""
        counted = {each.name for each in fields(Progress)}
        self.progress = Progress(**{name: value for name, value in state.items() if name in counted})
        self.latest = {name: value.to(self.agent.device) for name, value in state["latest"].items()}
        if any(f"loss/{term}" in self.latest and not self.agent.active(term) for term in self.agent.weights):
            self.latest = {}  # of a loss that is switched off now the last values would be logged to the end
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

    def refill(self) -> None:
        """Let updates wait for as many steps as a run begins with; the first are all of one episode."""
        progress = self.progress
        progress.learn_from = progress.step + self.config.train.random_steps
        then = f"updates go on at step {progress.learn_from}"
        if progress.learn_from >= self.config.train.steps:
            then = f"no update is left, as the run ends at step {self.config.train.steps}"
        self.console.say(
            f"the checkpoint at step {progress.step} comes without the replay, which has to fill with "
            f"{self.config.train.random_steps} new steps: {then}"
        )
        # Of the first new step: W&B has the rows of this one.
        self.metrics.write({"step": progress.step + 1, "replay_refills_until": progress.learn_from})
        self.folder.note(REPLAY_EMPTIED, f"at step {progress.step}")

    def close(self) -> None:
        """Close the records and let W&B have the rest of them."""
        self.metrics.close()
        self.evaluation_log.close()
        self.mirror.finish()
