"""Evaluation episodes per second: many environments at a time against one by one, with equal returns.

    python -m benchmarks.evaluate --preset paper

Both ways let the software renderer have the same number of threads in all.
"""

import os
import time
from typing import Any

from benchmarks.machine import command_line, machine, write_json
from common import gl
from common.config.loading import load
from common.run.build import build_agent, build_images
from common.run.derived import env_arguments
from common.run.device import apply_switches, resolve_auto
from common.run.evaluate import Evaluator


def main() -> None:
    """Measure and print."""
    parser = command_line(__doc__)
    parser.add_argument("--agent", default="smg")
    parser.add_argument("--preset", default="laptop")
    parser.add_argument("--episodes", type=int, default=2, help="per shift")
    parser.add_argument("--steps", type=int, default=400, help="simulator steps of an episode")
    parser.add_argument("overrides", nargs="*", help="key=value")
    arguments = parser.parse_args()
    overrides = [f"env.episode_steps={arguments.steps}", *arguments.overrides]
    config = resolve_auto(load(arguments.agent, "walker_walk", arguments.preset, overrides=overrides))
    cores = len(os.sched_getaffinity(0))
    report: dict[str, Any] = {
        "machine": machine(("torch", "mujoco"), config.device) | {"renderer": gl.select_backend().name}
    }
    apply_switches(config)
    returns = {}
    for name, envs, processes, threads in (
        ("one by one", 1, 1, cores),
        (
            "together",
            config.eval.envs,
            max(1, config.eval.processes),
            max(1, cores // max(1, config.eval.processes)),
        ),
    ):
        # Mesa counts threads besides the caller's, from none.
        os.environ["LP_NUM_THREADS"] = str(threads if threads > 1 else 0)
        evaluator = Evaluator(
            env_arguments(config) | {"seed": 42}, config.eval.shifts, arguments.episodes, envs, processes
        )
        agent = build_agent(config, evaluator.action_size, build_images(config))
        evaluator.run(agent, 0)  # decodes the clips and warms up
        started = time.perf_counter()
        records = evaluator.run(agent, 0)
        seconds = time.perf_counter() - started
        evaluator.close()
        returns[name] = {(record["shift"], record["episode"]): record["return"] for record in records}
        report[name] = {
            "episodes_per_second": len(records) / seconds,
            "environments": envs,
            "processes": processes,
        }
        print(f"{name}: {len(records) / seconds:.3f} episodes/s ({envs} environments, {processes} processes)")
    assert returns["one by one"] == returns["together"], "returns depend on how environments are stepped"
    report["ratio"] = report["together"]["episodes_per_second"] / report["one by one"]["episodes_per_second"]
    print(f"together is {report['ratio']:.2f} times as fast, with equal returns")
    if arguments.json:
        write_json(report, arguments.json)


if __name__ == "__main__":
    main()
