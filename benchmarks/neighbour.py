"""What a busy neighbour costs: seconds per update, alone and beside one process that computes without end.

    python -m benchmarks.neighbour --json results/performance/neighbour.json

Needs a machine that nothing else uses. PyTorch's own threads and spinning, what `smg` chooses, and other
choices take turns, each in a process of its own. `smg` aims to take at most 2.2 times its quiet time beside a
neighbour, and quiet at most 3% more than with PyTorch's own.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

from benchmarks.machine import command_line, machine, write_json

VARIABLES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS")
BUSY_LIMIT, QUIET_LIMIT = 2.2, 1.03
MEASURE = "from benchmarks import neighbour; neighbour.updates({!r}, {!r}, {!r})"


def choices(cores: int) -> dict[str, dict[str, str]]:
    """Variables of each way to compute; without any, `smg` chooses."""
    own = {"OMP_NUM_THREADS": str(cores), "GOMP_SPINCOUNT": "300000"}
    return {
        "PyTorch": own,
        "smg": {},
        "sleeping": own | {"GOMP_SPINCOUNT": "0"},
        "spinning 1000": own | {"GOMP_SPINCOUNT": "1000"},
        "spinning 10000": own | {"GOMP_SPINCOUNT": "10000"},
        "one thread": own | {"OMP_NUM_THREADS": "1"},
    }


def main() -> int:
    """Measure and print; the status is 0 if what `smg` chooses meets both aims."""
    parser = command_line(__doc__)
    parser.add_argument("--agents", default="drq,smg")
    parser.add_argument("--presets", default="smoke,laptop")
    parser.add_argument("--rounds", type=int, default=5, help="turns of every choice, of which the median")
    parser.add_argument("--seconds", type=float, default=5, help="of updates in each turn")
    arguments = parser.parse_args()
    here = machine(("torch",))
    report: dict[str, Any] = {"machine": here, "measured": []}
    for preset in arguments.presets.split(","):
        for agent in arguments.agents.split(","):
            ways = choices(here["cores"])
            seconds = turns(agent, preset, ways, arguments.rounds, arguments.seconds)
            own_quiet = statistics.median(seconds["PyTorch", False])
            print(f"\n{agent}, {preset}{'quiet':>18}{'busy':>10}{'busy/quiet':>12}{'quiet/PyTorch':>15}")
            for way in ways:
                quiet, busy = (statistics.median(seconds[way, beside]) for beside in (False, True))
                row = {"quiet": quiet, "busy": busy, "busy_over_quiet": busy / quiet}
                row["quiet_over_pytorch"] = quiet / own_quiet
                report["measured"].append({"agent": agent, "preset": preset, "choice": way} | row)
                told = f"{quiet:10.4f}{busy:10.4f}{busy / quiet:12.2f}{quiet / own_quiet:15.3f}"
                print(f"  {way:20}{told}")
    if arguments.json is not None:
        write_json(report, arguments.json)
    chosen = [row for row in report["measured"] if row["choice"] == "smg"]
    met = all(
        row["busy_over_quiet"] <= BUSY_LIMIT and row["quiet_over_pytorch"] <= QUIET_LIMIT for row in chosen
    )
    print(f"\nwhat smg chooses {'meets' if met else 'misses'} its aims")
    return 0 if met else 1


def turns(
    agent: str, preset: str, ways: dict[str, dict[str, str]], rounds: int, seconds: float
) -> dict[tuple[str, bool], list[float]]:
    """Seconds per update of each turn, by way and by whether a neighbour was busy."""
    found: dict[tuple[str, bool], list[float]] = {
        (way, beside): [] for way in ways for beside in (False, True)
    }
    for _ in range(rounds):
        for beside in (False, True):
            neighbour = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if beside else None
            try:
                for way, variables in ways.items():
                    found[way, beside].append(measured(agent, preset, variables, seconds))
            finally:
                if neighbour is not None:
                    neighbour.kill()
                    neighbour.wait()
    return found


def measured(agent: str, preset: str, variables: dict[str, str], seconds: float) -> float:
    """Seconds per update in a new process with these variables."""
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES} | variables
    command = [sys.executable, "-c", MEASURE.format(agent, preset, seconds)]
    answer = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(answer.stdout.splitlines()[-1])


def updates(agent: str, preset: str, seconds: float) -> None:
    """Print the median seconds of an update, averaged over a critic-only and a full one."""
    from benchmarks.update import FIRST_STEP, build, configured, random_batch

    config = configured(agent, preset, ["device=cpu"])
    built, batch = build(config, plain=False), random_batch(config)

    def pair() -> float:
        began = time.perf_counter()
        for step in (FIRST_STEP, FIRST_STEP + 1):
            built.update(batch, step)
        return (time.perf_counter() - began) / 2

    pair()
    spent, began = [], time.perf_counter()
    while len(spent) < 3 or time.perf_counter() - began < seconds:
        spent.append(pair())
    print(json.dumps(statistics.median(spent)))


if __name__ == "__main__":
    sys.exit(main())
