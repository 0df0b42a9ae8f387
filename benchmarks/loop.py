"""Agent steps per second of real training, split into what they are spent on.

    python -m benchmarks.loop --agent sac --preset paper --steps 200

Runs the trainer itself on real frames, past its start-up, without evaluation. The overhead is all the time of
a step that is not its update: as wall time and, over as many steps again, as processor time of the learner's
own thread. Where the environment shares the cores, wall time includes what that takes from the learner. A GPU
works on while the trainer goes on, so there the split is of as many steps more, each update waited for.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import command_line, machine, on_gpu, write_json
from common import gl
from common.config.loading import load
from common.rl.batch import Batch, Metrics
from common.rl.sac import Examination
from common.run.build import build
from common.run.clock import Clock
from common.run.console import Console
from common.run.device import apply_switches, resolve_auto
from common.run.run_folder import RunFolder, provenance
from common.run.signals import Signals
from common.run.trainer import Trainer


def main() -> None:
    """Measure and print."""
    parser = command_line(__doc__)
    parser.add_argument("--agent", default="sac")
    parser.add_argument("--preset", default="laptop")
    parser.add_argument("--steps", type=int, default=200, help="agent steps that are timed")
    parser.add_argument("--warm-up", type=int, default=32, help="agent steps with updates before these")
    parser.add_argument("overrides", nargs="*", help="key=value")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = measure(arguments, Path(folder) / "run")
    print("\n".join(f"{name}: {value}" for name, value in report["machine"].items()))
    print(f"{report['agent']}, {report['preset']}: {report['steps_per_second']:.2f} agent steps/s")
    for name, milliseconds in report["milliseconds"].items():
        print(f"  {name:<8} {milliseconds:8.2f} ms per step")
    print(f"  overhead {report['overhead_ms']:8.2f} ms per step beyond the update")
    if report["overhead_cpu_ms"] is not None:
        print(f"           {report['overhead_cpu_ms']:8.2f} ms of it the learner's own processor time")
    if arguments.json:
        write_json(report, arguments.json)


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Train past the start-up, then time whole steps."""
    fixed = [
        "wandb.mode=disabled",
        "checkpoint.every=24h",
        "eval.every=1000000000",
        f"train.steps={10**6}",
        "train.random_steps=130",  # so that every agent's batch can be drawn
        "train.burst_updates=1",
        "replay.capacity=10000",
        f"run.dir={folder}",
    ]
    config = resolve_auto(
        load(arguments.agent, "walker_walk", arguments.preset, overrides=[*fixed, *arguments.overrides])
    )
    renderer = gl.select_backend()
    apply_switches(config)
    parts = build(config)
    try:
        with RunFolder.create(config, provenance(), 0) as run_folder, Signals() as signals:
            trainer = Trainer(config, run_folder, parts, Console(), signals)
            trainer.restore()
            while trainer.progress.step < config.train.random_steps + arguments.warm_up:
                trainer.advance()
            captured_all(trainer)
            wall = split = timed(trainer, arguments.steps, Clock())
            own = None
            if on_gpu(config.device):
                wait_for_updates(trainer)
                split = timed(trainer, arguments.steps, Clock())
            else:  # a thread that waits for a GPU is busy too
                own = timed(trainer, arguments.steps, Clock(time.thread_time))
            trainer.close()
    finally:
        parts.close()
    return {
        "machine": machine(("torch", "mujoco", "dm_control"), config.device) | {"renderer": renderer.name},
        "agent": config.agent,
        "preset": config.preset,
        "ahead": config.env.ahead,
        "batch": config.train.batch,
        "steps_per_second": 1000 / wall["total"],
        "milliseconds": {name: spent for name, spent in split.items() if name != "total"},
        "overhead_ms": split["total"] - split["update"],
        "overhead_cpu_ms": own and own["total"] - own["update"],
    }


def captured_all(trainer: Trainer, quiet: int = 60) -> None:
    """Train until so many steps in a row captured no CUDA graph: an agent may draw which one it needs."""
    findings, since = trainer.agent.graphed_update.findings, 0
    while trainer.agent.graphed_update.graphs and since < quiet:
        before = len(findings)
        trainer.advance()
        since = since + 1 if len(findings) == before else 0


def wait_for_updates(trainer: Trainer) -> None:
    """Make every update last until the device has done it."""
    update = trainer.agent.update

    def waited_for(batch: Batch, step: int, examine: Examination | None = None) -> Metrics:
        metrics = update(batch, step, examine)
        torch.cuda.synchronize(trainer.agent.device)
        return metrics

    trainer.agent.update = waited_for


def timed(trainer: Trainer, steps: int, clock: Clock) -> dict[str, float]:
    """Milliseconds of an agent step by activity and in total, by the given clock."""
    trainer.clock = clock
    for _ in range(steps):
        trainer.advance()
    spent = clock.spent | {"total": clock.total()}
    return {name: 1000 * seconds / steps for name, seconds in spent.items()}


if __name__ == "__main__":
    main()
