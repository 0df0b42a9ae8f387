"""`smg train`: from a configuration to a table, whether the run begins, goes on or has ended already."""

from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common import gl
from common.config.schema import Config
from common.envs.backgrounds import data_summary
from common.envs.processes import EnvironmentDied
from common.errors import UserError
from common.run.again import has_ended, is_run, refuse_changes, taken_up
from common.run.build import build, replay_size
from common.run.console import Console
from common.run.device import apply_switches, device_name, out_of_memory, resolve_auto
from common.run.evaluate import summary_table
from common.run.foreground import resolve_rho
from common.run.nvidia import training_gpu
from common.run.records import read_json_lines
from common.run.run_folder import (
    EPISODE,
    RunFolder,
    earlier_settings,
    own_code,
    provenance,
    recorded_provenance,
    recorded_sessions,
)
from common.run.shares import measured
from common.run.shifts import hardly_shown, recorded_shares, shift_shares
from common.run.signals import Interruption, Signals
from common.run.trainer import Diverged, Sheet, Trainer

SheetMaker = Callable[[Any, Config], Sheet]
"""Makes what draws an agent's evaluations, from the agent and the configuration of its run."""


def train(config: Config, resume: Path | None = None, make_sheet: SheetMaker | None = None) -> int:
    """Train a configuration: begin its run, go on with it, or find it finished; returns an exit status.

    Args:
        config: what to train; with `resume`, the configuration of the run there and what is to change in it.
        resume: the folder of a run to go on with; by default the configuration says which folder it is.
        make_sheet: draws the evaluations, if the configuration asks for it.

    Raises:
        UserError: the run cannot start or go on; nothing half-written is left.
    """
    console = Console()
    try:
        with ExitStack() as stack:
            path, folder = resume or config.run_folder(), None
            if resume is not None or is_run(path):
                folder = stack.enter_context(RunFolder.reopen(path, same_data=resume is None))
                config = config if resume is not None else taken_up(config, path)
                if has_ended(path, config):
                    if resume is not None:
                        refuse_changes(path, config)
                    console.result(final_report(config, path))
                    return 0
            config = resolve_auto(config, console.say)
            renderer = gl.select_backend(training_gpu(config.device))
            _train(config, folder, renderer, make_sheet, console, stack)
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


def _train(
    config: Config,
    folder: RunFolder | None,
    renderer: gl.Renderer,
    make_sheet: SheetMaker | None,
    console: Console,
    stack: ExitStack,
) -> None:
    """Train in the folder of a run that goes on, or else in a new one; `stack` will close what is opened."""
    asked, config = config, resolve_rho(config)
    apply_switches(config)
    data = data_summary(config.data.root)
    overlays = str(config.data.overlay_folder() or "procedural")
    for name, source in (("video and colour shifts", data["source"]), ("overlays", overlays)):
        if source == "procedural":
            console.say(f"{name}: procedural images, as no folder is set (see README, Data)")
    shares = shift_shares(config, console.say)
    parts = stack.enter_context(closing(build(config, console.say)))
    found = provenance(
        **own_code(config.agent),
        **measured(asked, config, recorded_provenance(folder.path) if folder is not None else None),
        renderer=asdict(renderer),
        device=device_name(config),
        data=data,
        shifts=shares,
        overlay=parts.images.describe(),
    )
    if folder is None:
        # Two checkpoints share the replay's chunks but for the newest; weights and optimisers are small.
        needed = replay_size(config, parts.env.action_size) if config.checkpoint.replay == "full" else 0
        folder = stack.enter_context(RunFolder.create(config, found, needed))
    folder.provenance = found
    sheet = make_sheet(parts.agent, config) if make_sheet is not None and config.eval.sheet else None
    signals = stack.enter_context(Signals())
    console.say(f"{folder.path}: {config.agent} on {config.task}, {renderer.name}, {config.device}")
    Trainer(config, folder, parts, console, signals, sheet).run()
    console.close()
    console.result(final_report(config, folder.path))


def final_report(config: Config, folder: Path) -> str:
    """The last evaluation as a table, and where everything is."""
    records = read_json_lines(folder / "eval.jsonl", EPISODE)
    last = [record for record in records if record["step"] == records[-1]["step"]]
    heading = f"{config.agent} on {config.task} after {config.train.steps} agent steps"
    sessions = recorded_sessions(folder)
    warning = hardly_shown(config.task, recorded_shares(sessions[-1]))
    learnt = earlier_settings(folder, config)
    table = summary_table(last, config, sessions, warning, learnt) if last else "its evaluations are lost"
    return f"\n{heading}\n{table}\n\nrun folder: {folder}"
