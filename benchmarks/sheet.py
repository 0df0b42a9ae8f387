"""What the sheet of an evaluation costs: seconds of an evaluation without and with it.

    python -m benchmarks.sheet --agent smg --preset laptop

The agent is untrained, the environments and shifts are those of its evaluations. Repeats alternate, so that
what else the machine does falls on both.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import command_line, machine, write_json
from common import gl
from common.config.loading import load
from common.explain.files import save_picture
from common.explain.sheet import Sheet
from common.run.build import build_agent, build_evaluator, build_images
from common.run.device import apply_switches, resolve_auto


def main() -> None:
    """Measure and print."""
    parser = command_line(__doc__)
    parser.add_argument("--agent", default="smg")
    parser.add_argument("--preset", default="laptop")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("overrides", nargs="*", help="key=value")
    arguments = parser.parse_args()
    report = measure(arguments)
    print("\n".join(f"{name}: {value}" for name, value in report["machine"].items()))
    print(f"{report['agent']}, {report['preset']}, {report['episodes']} episodes:")
    print(
        f"{report['without']:.2f} s without, {report['with']:.2f} s with the sheet, of which "
        f"{report['explaining']:.2f} s for explaining and writing"
    )
    if arguments.json:
        write_json(report, arguments.json)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Medians over repeats, in seconds per evaluation."""
    gl.select_backend()
    config = resolve_auto(
        load(arguments.agent, "walker_walk", arguments.preset, overrides=arguments.overrides)
    )
    apply_switches(config)
    evaluator = build_evaluator(config)
    without, looking, explaining = [], [], []
    try:
        agent = build_agent(config, evaluator.action_size, build_images(config))
        sheet = Sheet(agent, config)
        evaluator.run(agent, 0, observer=sheet)
        sheet.finish()
        with tempfile.TemporaryDirectory() as folder:
            for number in range(arguments.repeats):
                started = time.perf_counter()
                evaluator.run(agent, number)
                played = time.perf_counter()
                evaluator.run(agent, number, observer=sheet)
                watched = time.perf_counter()
                _, picture = sheet.finish()
                save_picture(Path(folder) / "sheet.png", picture)
                without.append(played - started)
                looking.append(watched - played)
                explaining.append(time.perf_counter() - watched)
    finally:
        evaluator.close()
    return {
        "machine": machine(("torch", "mujoco"), config.device),
        "agent": config.agent,
        "preset": config.preset,
        "episodes": len(config.eval.shifts) * config.eval.episodes,
        "without": statistics.median(without),
        "with": statistics.median(looking) + statistics.median(explaining),
        "explaining": statistics.median(explaining),
    }


if __name__ == "__main__":
    main()
