"""The `smg` command, also `python -m common.cli`.

Each subcommand is one function that adds its parser and names the function that runs it; heavy imports
happen there, so that `--help` answers at once.
"""

import argparse
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import UserError
from common.gl import NoRenderer
from common.threads import be_a_good_neighbour

if TYPE_CHECKING:
    from common.config.schema import Config

Commands = Any  # argparse keeps the type of add_subparsers' result private

STATUSES = """\
exit status: 0 done; 1 doctor found a problem, or a study gave up a run; 2 bad input, or the run cannot
go on; 3 no OpenGL renderer; 75 stopped by a scheduler's signal, 130 by Ctrl-C: smg train and study run
go on where they stopped when the command is given again"""

STDERR_NUMBER = 2

OVERRIDES = "set any key of configs/default.yaml; the value is YAML"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status; see `STATUSES`."""
    _make_streams_writable()
    be_a_good_neighbour()
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    # argparse fills a list of positional arguments only once; overrides may stand between the options.
    unknown = [text for text in rest if text.startswith("-") or not hasattr(arguments, "overrides")]
    if unknown:
        parser.error(
            f"{arguments.command}: unknown argument {unknown[0]} (see smg {arguments.command} --help)"
        )
    if rest:
        arguments.overrides += rest
    try:
        return arguments.run(arguments)
    except UserError as error:
        print(f"smg: {error}", file=sys.stderr)
        return 3 if isinstance(error, NoRenderer) else 2
    except KeyboardInterrupt:
        print("smg: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read the output has gone (`smg config … | head`); Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _make_streams_writable() -> None:
    """Let standard output and error take any text: what they cannot show is replaced."""
    # A file that is opened later must not get the number of a closed stream: libraries write there unasked.
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= STDERR_NUMBER:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for good
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="smg",
        description="Train SMG, SGQN and SAC from pixels and test them under visual shifts.",
        epilog=f"'smg COMMAND --help' explains each, with examples.\n\n{STATUSES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for add in (
        _add_train,
        _add_eval,
        _add_explain,
        _add_rho,
        _add_export,
        _add_config,
        _add_study,
        _add_doctor,
    ):
        add(commands)
    return parser


def _add_train(commands: Commands) -> None:
    parser = _command(
        commands,
        "train",
        "train and evaluate an agent, or continue a run",
        "smg train --agent smg --task walker_walk",
        "smg train --agent sgqn --task cartpole_swingup --preset laptop seed=1 data.root=~/dmcgb",
        "smg train --agent smg --task walker_walk --config configs/ablations/smg_no_background.yaml",
        "smg train --agent my_package.my_module:MyAgent --task walker_walk",
        "smg train --resume runs/walker_walk/smg/seed0",
        "smg train --resume runs/walker_walk/smg/seed0 train.steps=1_000_000",
    )
    _add_selection(parser)
    parser.add_argument(
        "--resume",
        metavar="RUN_DIR",
        help="continue this run, exactly where it stopped, as does the command that began it",
    )
    _add_allow_code(parser)
    parser.set_defaults(run=_train)


def _train(arguments: argparse.Namespace) -> int:
    from common.config.loading import load_run_config

    if arguments.resume is None:
        config = _selected(arguments)
        resume = None
    else:
        given = [f"--{name}" for name in ("agent", "task", "preset", "config") if getattr(arguments, name)]
        if given:
            raise UserError(
                f"{given[0]} does not go with --resume: a run keeps the configuration it began with"
            )
        resume = Path(arguments.resume)
        config = load_run_config(resume, arguments.overrides, arguments.allow_code)
    from common.explain.sheet import Sheet
    from common.run.train import train

    return train(config, resume, Sheet)


def _add_eval(commands: Commands) -> None:
    parser = _command(
        commands,
        "eval",
        "evaluate the agent of a run under visual shifts",
        "smg eval runs/walker_walk/smg/seed0",
        "smg eval runs/walker_walk/smg/seed0 --shifts video_easy,video_hard --episodes 20",
        "smg eval runs/walker_walk/smg/seed0 --shifts dmcgb2 --episodes 100",
        "smg eval downloaded_run --seed 7 data.root=~/dmcgb",
        "smg eval runs/walker_walk/smg/seed0 --masks learned,truth",
    )
    parser.add_argument("run_folder", metavar="RUN_DIR", help="folder of a run")
    parser.add_argument(
        "--shifts",
        metavar="A,B",
        help="visual shifts, or groups of them: all (the papers' benchmark), dmcgb2, photometric, geometric, "
        "views; by default the run's eval.shifts",
    )
    parser.add_argument(
        "--episodes", metavar="N", help="episodes per shift; by default the run's eval.episodes"
    )
    parser.add_argument(
        "--seed",
        metavar="S",
        help="environments are seeded with S + eval.seed_offset; by default the run's seed",
    )
    parser.add_argument(
        "--masks",
        metavar="A,B",
        help="act also on the foreground alone, before the mean training background, by the agent's own mask "
        "(learned) or the simulator's (truth)",
    )
    _add_overrides(parser)
    _add_allow_code(parser)
    parser.set_defaults(run=_eval)


def _eval(arguments: argparse.Namespace) -> int:
    from common.config.loading import load_run_config

    overrides = []
    if arguments.shifts is not None:
        overrides.append(f"eval.shifts=[{arguments.shifts}]")
    if arguments.episodes is not None:
        overrides.append(f"eval.episodes={arguments.episodes}")
    if arguments.seed is not None:
        overrides.append(f"seed={arguments.seed}")
    folder = Path(arguments.run_folder)
    config = load_run_config(folder, [*overrides, *arguments.overrides], arguments.allow_code)
    from common.run.reevaluate import evaluate_run

    masks = () if arguments.masks is None else tuple(arguments.masks.split(","))
    return evaluate_run(config, folder, masks)


def _add_explain(commands: Commands) -> None:
    parser = _command(
        commands,
        "explain",
        "show what runs' agents see under visual shifts: videos, contact sheets, numbers, a page",
        "smg explain runs/walker_walk/smg/seed0",
        "smg explain runs/walker_walk/smg/seed0 --shifts train,video_hard --html",
        "smg explain runs/walker_walk/{sac,svea,sgqn,smg}/seed0 --methods observation,binarised",
        "smg explain runs/walker_walk/sac/seed0 --methods observation,truth,gradient,occlusion --frames 10",
    )
    parser.add_argument(
        "run_folders",
        metavar="RUN_DIR",
        nargs="+",
        help="folders of runs; several are shown below each other, on the frames of the first one's episodes",
    )
    parser.add_argument(
        "--shifts", metavar="A,B", help="visual shifts or groups; by default the first run's eval.shifts"
    )
    parser.add_argument("--episodes", metavar="N", type=int, default=1, help="episodes per shift (1)")
    parser.add_argument(
        "--frames", metavar="N", type=int, default=50, help="frames of each episode, evenly spaced (50)"
    )
    parser.add_argument(
        "--methods",
        metavar="A,B",
        help="columns: observation, truth, attribution, gradient, guided_gradcam, occlusion, binarised, and "
        "what the agent has of its own (docs/explain.md)",
    )
    parser.add_argument("--html", action="store_true", help="also write one page to scrub through an episode")
    parser.add_argument("--output", metavar="DIR", help="by default RUN_DIR/explain")
    _add_allow_code(parser)
    # Behind several folders there is no place of their own for overrides; they are told by their =.
    parser.set_defaults(run=_explain, overrides=[])


def _explain(arguments: argparse.Namespace) -> int:
    from common.config.loading import load_run_config
    from common.explain.command import Options, explain

    given = [*arguments.run_folders, *arguments.overrides]
    overrides = [text for text in given if "=" in text and not Path(text).exists()]
    folders = [Path(text) for text in given if text not in overrides]
    if arguments.shifts is not None:
        overrides.insert(0, f"eval.shifts=[{arguments.shifts}]")
    configs = [load_run_config(folder, overrides, arguments.allow_code) for folder in folders]
    options = Options(
        episodes=arguments.episodes,
        frames=arguments.frames,
        methods=None if arguments.methods is None else tuple(arguments.methods.split(",")),
        output=None if arguments.output is None else Path(arguments.output),
        html=arguments.html,
    )
    return explain(configs, folders, options)


def _add_rho(commands: Commands) -> None:
    parser = _command(
        commands,
        "rho",
        "measure how much of a task's picture is foreground, and suggest smg.rho and sgqn.quantile",
        "smg rho walker_walk",
        "smg rho cartpole_swingup env.model=smg --run runs/cartpole_swingup/smg/seed0",
    )
    parser.add_argument("task", metavar="TASK", help="walker_walk, robot_reach or any suite DOMAIN_TASK")
    parser.add_argument(
        "--run", metavar="RUN_DIR", dest="run_folder", help="measure under this run's policy too"
    )
    parser.add_argument("--steps", metavar="N", type=int, default=500, help="agent steps per policy (500)")
    _add_overrides(parser)
    _add_allow_code(parser)
    parser.set_defaults(run=_rho)


def _rho(arguments: argparse.Namespace) -> int:
    from common.config.loading import load, load_run_config

    if arguments.steps < 1:
        raise UserError(f"--steps is {arguments.steps}; it must be at least 1")
    config = load("smg", arguments.task, "paper", overrides=arguments.overrides)
    run = None
    if arguments.run_folder is not None:
        folder = Path(arguments.run_folder)
        run = load_run_config(folder, arguments.overrides, arguments.allow_code), folder
        if run[0].task != config.task:
            raise UserError(f"{folder} is a run of {run[0].task}, not of {config.task}")
    from common.explain.rho import rho

    return rho(config, arguments.steps, run)


def _add_export(commands: Commands) -> None:
    parser = _command(
        commands,
        "export",
        "copy a run without what only training needs: records and, in half precision, weights",
        "smg export runs/walker_walk/smg/seed0 published/walker_walk-smg-seed0",
    )
    parser.add_argument("run_folder", metavar="RUN_DIR", help="folder of a run")
    parser.add_argument("folder", metavar="FOLDER", help="made; eval, explain and tables read it like a run")
    parser.add_argument(
        "--scores",
        action="store_true",
        help="only what tables read: configuration, provenance and every evaluated episode, some 20 kB",
    )
    parser.set_defaults(run=_export)


def _export(arguments: argparse.Namespace) -> int:
    from common.run.weights import export

    folder = Path(arguments.folder)
    export(Path(arguments.run_folder), folder, arguments.scores)
    print(folder)
    return 0


def _add_config(commands: Commands) -> None:
    parser = _command(
        commands,
        "config",
        "print the configuration that the same arguments would train with, before `auto` is decided",
        "smg config --agent smg --task walker_walk",
        "smg config --agent sgqn --task finger_spin --preset paper optim.critic.lr=3e-4",
    )
    _add_selection(parser)
    parser.set_defaults(run=_config)


def _config(arguments: argparse.Namespace) -> int:
    from common.config.loading import to_yaml

    print(to_yaml(_selected(arguments)), end="", flush=True)
    return 0


def _add_study(commands: Commands) -> None:
    parser = _command(
        commands,
        "study",
        "make a whole table: tasks x agents x seeds, on one machine or a cluster",
        "smg study run smg_video_hard --dry-run",
        "smg study run smg_video_hard",
        "smg study table smg_video_hard --format latex",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for add in (_add_study_run, _add_study_status, _add_study_table, _add_study_report):
        add(actions)


def _add_study_run(actions: Commands) -> None:
    parser = _command(
        actions,
        "run",
        "do the runs that are not done, then print the table and write it and the report beside them",
        "smg study run smg_video_hard",
        "smg study run laptop_video_hard tasks=[walker_stand] agents=[drq,smg] --jobs 2",
        "smg study run my_study.yaml --engine ray --address head:6379 resources.gpus=0.5",
        "smg study run sgqn_table1 --shard 3/16",
    )
    _add_study_selection(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="print the runs and what they will cost; start none"
    )
    parser.add_argument(
        "--engine", choices=("local", "ray"), default="local", help="this machine, or a Ray cluster"
    )
    parser.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="Ray cluster to use, or auto for this machine's; by default one is started here",
    )
    parser.add_argument(
        "--jobs",
        metavar="N",
        type=int,
        help="runs at a time on this machine, each with its share of threads (1)",
    )
    parser.add_argument("--shard", metavar="I/N", help="only every N-th run, from the I-th on (0 to N-1)")
    parser.add_argument(
        "--retries", metavar="N", type=int, default=2, help="times that a failed run is tried again (2)"
    )
    parser.set_defaults(run=_study_run)


def _study_run(arguments: argparse.Namespace) -> int:
    from common.study import command

    return command.run(
        arguments.study,
        arguments.overrides,
        arguments.engine,
        arguments.address,
        arguments.shard,
        arguments.jobs,
        arguments.retries,
        arguments.dry_run,
    )


def _add_study_status(actions: Commands) -> None:
    parser = _command(
        actions,
        "status",
        "print which runs are done, running, failed or missing",
        "smg study status smg_video_hard",
    )
    _add_study_selection(parser)
    parser.set_defaults(run=_study_status)


def _study_status(arguments: argparse.Namespace) -> int:
    from common.study import command

    return command.status(arguments.study, arguments.overrides)


def _add_study_table(actions: Commands) -> None:
    parser = _command(
        actions,
        "table",
        "print the finished runs' scores beside the published ones",
        "smg study table smg_video_hard",
        "smg study table smg_video_hard --format csv --output scores.csv",
    )
    _add_study_selection(parser)
    parser.add_argument("--format", choices=("markdown", "csv", "latex"), default="markdown")
    _add_study_output(parser)
    parser.set_defaults(run=_study_table)


def _study_table(arguments: argparse.Namespace) -> int:
    from common.study import command

    return command.table(
        arguments.study, arguments.overrides, arguments.format, arguments.output, arguments.mix
    )


def _add_study_report(actions: Commands) -> None:
    parser = _command(
        actions,
        "report",
        "write one HTML page: tables, learning curves, profiles, pictures, all runs",
        "smg study report smg_video_hard --output video_hard.html",
    )
    _add_study_selection(parser)
    _add_study_output(parser)
    parser.set_defaults(run=_study_report)


def _study_report(arguments: argparse.Namespace) -> int:
    from common.study import command

    return command.report(arguments.study, arguments.overrides, arguments.output, arguments.mix)


def _add_study_selection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", metavar="STUDY", help="YAML file, or the name of one in configs/studies/")
    parser.add_argument(
        "overrides",
        metavar="key=value",
        nargs="*",
        default=[],
        help="tasks, agents, seeds, shifts, preset, folder of the study, or any key of configs/default.yaml",
    )


def _add_study_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", metavar="FILE", help="write it there")
    parser.add_argument(
        "--mix", action="store_true", help="allow runs in one table that differ in what their numbers mean"
    )


def _add_doctor(commands: Commands) -> None:
    parser = _command(
        commands,
        "doctor",
        "check that training can start here: Python, device, OpenGL, versions, data, memory, disk",
        "smg doctor",
        "smg doctor --agent sgqn --task finger_spin --preset paper data.root=~/dmcgb",
    )
    _add_selection(parser)
    parser.set_defaults(run=_doctor, agent="smg", task="walker_walk")


def _doctor(arguments: argparse.Namespace) -> int:
    from common.doctor import examine

    return examine(_selected(arguments))


def _command(commands: Commands, name: str, purpose: str, *examples: str) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=purpose,
        description=f"{purpose[0].upper()}{purpose[1:]}.",
        epilog="\n".join(["examples:", *(f"  {example}" for example in examples)]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def _add_selection(parser: argparse.ArgumentParser) -> None:
    """The arguments that select a configuration."""
    parser.add_argument("--agent", metavar="A", help="sac, sgqn, smg, or package.module:Class of your own")
    parser.add_argument("--task", metavar="T", help="walker_walk, robot_reach or any suite DOMAIN_TASK")
    parser.add_argument(
        "--preset", metavar="P", help="paper, laptop or smoke; by default paper with a GPU, laptop without"
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        action="append",
        default=[],
        help="YAML file on top; may be repeated, last wins",
    )
    _add_overrides(parser)


def _add_overrides(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("overrides", metavar="key.sub=value", nargs="*", default=[], help=OVERRIDES)


def _add_allow_code(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--allow-code",
        action="store_true",
        help="import the agent that the run folder names as package.module:Class",
    )


def _selected(arguments: argparse.Namespace) -> "Config":
    from common.config.loading import load

    return load(
        arguments.agent,
        arguments.task,
        arguments.preset,
        arguments.config,
        arguments.overrides,
        announce=lambda line: print(line, file=sys.stderr),
    )


if __name__ == "__main__":
    sys.exit(main())
