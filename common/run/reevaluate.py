"""`smg eval`: the newest weights of a run, evaluated again."""

import sys
from pathlib import Path

from common import gl
from common.config.schema import Config
from common.envs.processes import EnvironmentDied
from common.errors import UserError
from common.run.build import build_evaluator, check_clips
from common.run.device import for_trained
from common.run.evaluate import summary_table
from common.run.nvidia import training_gpu
from common.run.records import JsonLines
from common.run.shifts import hardly_shown, shift_shares
from common.run.trained import load_agent


def evaluate_run(config: Config, folder: Path) -> int:
    """Evaluate a run's newest weights, print the table and append its episodes to evaluations.jsonl.

    Raises:
        UserError: the run has none that can be read.
    """
    config = for_trained(config)
    gl.select_backend(training_gpu(config.device))
    agent, _, step = load_agent(config, folder, "evaluate")
    check_clips(config, evaluations=1)
    shares = shift_shares(config, lambda line: print(line, file=sys.stderr))
    evaluator = build_evaluator(config)
    try:
        records = evaluator.run(
            agent, 0, progress=lambda done, of: print(f"\r{done}/{of} episodes", end="", file=sys.stderr)
        )
    except EnvironmentDied as error:
        raise UserError(str(error)) from error
    finally:
        evaluator.close()
    with JsonLines(folder / "evaluations.jsonl") as log:
        for record in records:
            log.write({"step": step, "evaluation": 0} | record)
    print(f"\n{config.agent} on {config.task} after {step} agent steps")
    print(summary_table(records, config, hardly_shown(config.task, shares)))
    return 0
