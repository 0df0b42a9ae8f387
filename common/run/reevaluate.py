"""`smg eval`: the newest weights of a run, evaluated again."""

import statistics
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from common import gl
from common.config.loading import load_run_config
from common.config.schema import Config
from common.envs.backgrounds import data_summary
from common.envs.processes import EnvironmentDied
from common.errors import UserError
from common.rl.sac import SAC
from common.run.build import build_evaluator, check_clips
from common.run.console import returns_by_shift
from common.run.device import for_trained
from common.run.evaluate import Evaluator, Policy, summary_table
from common.run.foreground import mean_background
from common.run.masked import Masking, OwnMask, TrueMask, check_masks
from common.run.nvidia import training_gpu
from common.run.records import JsonLines, Record
from common.run.run_folder import earlier_settings, recorded_sessions
from common.run.shifts import hardly_shown, shift_shares
from common.run.trained import load_agent


def evaluate_run(config: Config, folder: Path, masks: Sequence[str] = ()) -> int:
    """Evaluate a run's newest weights, print the table and append its episodes to evaluations.jsonl.

    With `masks` the same episodes are played again with the foreground alone before the policy, by the
    agent's own mask (learned) or the simulator's (truth); their records say which in `mask`.

    Raises:
        UserError: the run has no weights that can be read, or the agent no such mask.
    """
    config = for_trained(config)
    gl.select_backend(training_gpu(config.device))
    agent, _, step = load_agent(config, folder, "evaluate")
    check_masks(masks, agent)
    check_clips(config, evaluations=1)
    # It learnt from the images of its sessions, and is shown the clips that there are now.
    shown = {"data": data_summary(config.data.root)}
    sessions = [session | shown for session in recorded_sessions(folder)]
    learnt = settings_learnt_with(folder, config)
    shares = shift_shares(config, lambda line: print(line, file=sys.stderr))
    records = _played(build_evaluator(config), agent)
    masked = _masked(config, agent, masks) if masks else {}
    with JsonLines(folder / "evaluations.jsonl") as log:
        for mask, found in {None: records, **masked}.items():
            how = {} if mask is None else {"mask": mask}
            for record in found:
                log.write({"step": step, "evaluation": 0} | how | record)
    print(report(records, config, step, sessions, hardly_shown(config.task, shares), learnt))
    if masked:
        print(masked_table(records, masked))
    return 0


def report(
    records: list[Record],
    config: Config,
    step: int,
    sessions: Sequence[Mapping[str, Any]],
    warning: str | None,
    learnt: Mapping[str, Config | str],
) -> str:
    """The table of an evaluation after `step` agent steps, which may be fewer than the run is to have."""
    trained = config.model_copy(update={"train": config.train.model_copy(update={"steps": step})})
    heading = f"\n{config.agent} on {config.task} after {step} agent steps\n"
    return heading + summary_table(records, trained, sessions, warning, learnt)


def settings_learnt_with(folder: Path, config: Config) -> dict[str, Config | str]:
    """What a run learnt with, which `config`, by which it is evaluated, may say otherwise; see `compared`."""
    # `config` is of the same run, whose agent's code is imported.
    recorded = load_run_config(folder, allow_code=True)
    return {"in training": recorded} | earlier_settings(folder, recorded)


def _masked(config: Config, agent: SAC, masks: Sequence[str]) -> dict[str, list[Record]]:
    """The episodes' records by mask."""
    background = mean_background(config, agent)
    records = {}
    for mask in dict.fromkeys(masks):
        if mask == "learned" and isinstance(agent, Masking):
            records[mask] = _played(build_evaluator(config), OwnMask(agent, background))
        else:
            pool = partial(TrueMask, background=background)
            records[mask] = _played(build_evaluator(config, pool), agent)
    return records


def _played(evaluator: Evaluator, policy: Policy) -> list[Record]:
    try:
        return evaluator.run(
            policy, 0, progress=lambda done, of: print(f"\r{done}/{of} episodes", end="", file=sys.stderr)
        )
    except EnvironmentDied as error:
        raise UserError(str(error)) from error
    finally:
        evaluator.close()


def masked_table(records: list[Record], masked: Mapping[str, list[Record]]) -> str:
    """Mean returns per shift as text: acting on the observation, and on the foreground by each mask.

    Behind a mask's mean stands its lead over acting on the observation, with the standard deviation over
    episodes of the differences.
    """
    plain = returns_by_shift(records)
    width = max(12, *map(len, plain))
    lines = ["", f"{'acting on':<{width}} {'observation':>11}" + "".join(f" {mask:>24}" for mask in masked)]
    for shift, returns in plain.items():
        line = f"{shift:<{width}} {statistics.fmean(returns):>11.1f}"
        for found in masked.values():
            theirs = returns_by_shift(found)[shift]
            differences = [one - two for one, two in zip(theirs, returns, strict=True)]
            lead = f"{statistics.fmean(differences):+.1f}"
            lead += f" ± {statistics.stdev(differences):.1f}" if len(differences) > 1 else ""
            line += f" {f'{statistics.fmean(theirs):.1f} ({lead})':>24}"
        lines.append(line)
    lines.append(
        "learned, truth: the policy sees the foreground alone, by the agent's own mask or the simulator's, "
        "before the mean training background; in brackets: lead over the observation, on the same episodes"
    )
    return "\n".join(lines)
