"""What a line of metrics.jsonl costs, in updates of the same agent.

    python -m benchmarks.diagnosis --agents sac,sgqn,smg --preset laptop

Updates, examinations and the look at an episode take turns in one process. On a CPU its own processor time is
counted, so that other work on the machine does not matter. A line costs one examination, and as many episodes
as end between two lines.
"""

import statistics
from collections.abc import Callable
from typing import Any

from benchmarks.machine import clock, command_line, write_json
from benchmarks.update import FIRST_STEP, build, configured, random_batch, updating_machine
from common.config.schema import Config
from common.rl.diagnosis import Diagnosis
from common.run.derived import episode_length


def main() -> None:
    """Measure and print."""
    parser = command_line(__doc__)
    parser.add_argument("--agents", default="sac,sgqn,smg")
    parser.add_argument("--preset", default="laptop")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("overrides", nargs="*", help="key=value")
    arguments = parser.parse_args()
    found = updating_machine(arguments)
    report: dict[str, Any] = {"machine": found, "preset": arguments.preset, "agents": {}}
    for name in arguments.agents.split(","):
        config = configured(name, arguments.preset, arguments.overrides)
        row = measure(config, arguments.repeats)
        report["agents"][name] = row
        print(
            f"{name:>6}: examination {row['examination']:.2f}, episode {row['episode']:.2f}, "
            f"line {row['line']:.2f} updates of {row['update_seconds']:.3f} s"
        )
    if arguments.json:
        write_json(report, arguments.json)


def measure(config: Config, repeats: int) -> dict[str, float]:
    """Medians of the costs in updates, an update being the mean of a critic-only and a full one."""
    agent = build(config, plain=False)
    diagnosis = Diagnosis(agent, config.train.log_every)
    batch = random_batch(config)
    length = episode_length(config)
    whole = config.train.model_copy(update={"batch": length})
    episode = random_batch(config.model_copy(update={"train": whole}))
    plan = agent.schedule(FIRST_STEP)
    inputs, plan = agent.prepare(batch, plan)
    examinations, episodes, seconds = [], [], []
    for repeat in range(repeats + 1):
        update = timed(lambda: [agent.update(batch, FIRST_STEP + odd) for odd in (0, 1)], config) / 2
        examination = timed(lambda: diagnosis.examine(inputs, plan), config)
        looked = timed(lambda: diagnosis.episode(episode, 0), config)
        if repeat > 0:  # the first is a warm-up
            seconds.append(update)
            examinations.append(examination / update)
            episodes.append(looked / update)
    row = {
        "examination": statistics.median(examinations),
        "episode": statistics.median(episodes),
        "update_seconds": statistics.median(seconds),
    }
    return row | {"line": row["examination"] + row["episode"] * config.train.log_every / length}


def timed(work: Callable[[], Any], config: Config) -> float:
    """Seconds of a CPU's processors, or until a GPU has done the work."""
    started = clock(config.device)
    work()
    return clock(config.device) - started


if __name__ == "__main__":
    main()
