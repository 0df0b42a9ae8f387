"""`smg eval`: the newest weights of a run, evaluated again."""

import sys
from pathlib import Path

from common import gl
from common.config.schema import Config
from common.envs.processes import EnvironmentDied
from common.errors import UserError
from common.run import weights
from common.run.build import build_agent, build_evaluator, build_images, check_clips
from common.run.device import apply_switches, for_trained
from common.run.evaluate import summary_table
from common.run.nvidia import training_gpu
from common.run.records import JsonLines
from common.run.shifts import hardly_shown, shift_shares


def evaluate_run(config: Config, folder: Path) -> int:
    """Evaluate a run's newest weights, print the table and append its episodes to evaluations.jsonl.

    Raises:
        UserError: the run has none that can be read.
    """
    trained = weights.read(folder, "evaluate")
    config = for_trained(config)
    gl.select_backend(training_gpu(config.device))
    apply_switches(config)
    check_clips(config, evaluations=1)
    shares = shift_shares(config, lambda line: print(line, file=sys.stderr))
    evaluator = build_evaluator(config)
    try:
        agent = build_agent(config, evaluator.action_size, build_images(config))
        trained.give_to(agent)
        records = evaluator.run(
            agent, 0, progress=lambda done, of: print(f"\r{done}/{of} episodes", end="", file=sys.stderr)
        )
    except EnvironmentDied as error:
        raise UserError(str(error)) from error
    finally:
        evaluator.close()
    with JsonLines(folder / "evaluations.jsonl") as log:
        for record in records:
            log.write({"step": trained.step, "evaluation": 0} | record)
    print(f"\n{config.agent} on {config.task} after {trained.step} agent steps")
    print(summary_table(records, config, hardly_shown(config.task, shares)))
    return 0
