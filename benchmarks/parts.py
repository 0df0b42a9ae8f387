"""Which part of an update takes the time, and how near it comes to the machine's convolution peak.

python -m benchmarks.parts --agents sac,sgqn,smg --figure docs/images/update_parts.png

The default fast path, eager, at paper size, averaged over a critic-only and a full step. On a CPU processor
seconds are counted, so that other work on the machine matters little; with OMP_NUM_THREADS=1 they are
those of one core.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.figure import Figure
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.diagnosis import timed
from benchmarks.machine import clock, command_line, write_json
from benchmarks.update import FIRST_STEP, build, configured, convolution_peak, random_batch, updating_machine
from common.config.schema import Config

PARTS = {
    "prepare": "shift, τ, noise",
    "target_q": "target values",
    "saliency": "attribution, mask",
    "critic_losses": "critic forward",
    "minimise critic": "critic backward",
    "actor_losses": "actor forward",
    "minimise actor": "actor backward",
    "update_targets": "target networks",
    "compose": "τ_attrib",
    "decode": "models forward",
    "auxiliary_terms": "models' losses",
    "auxiliary_losses": "auxiliary losses",
    "minimise auxiliary": "auxiliary backward",
}
"""Methods of an agent, each without the time of those in it that are listed too; `minimise` by optimiser."""

STEPS = 2  # a critic-only and a full one


def main() -> None:
    """Measure, print, draw."""
    parser = command_line(__doc__)
    parser.add_argument("--agents", default="sac,sgqn,smg")
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--repeats", type=int, default=3, help="of the two steps; sums are divided by them")
    parser.add_argument("--figure", type=Path)
    parser.add_argument("overrides", nargs="*", help="key=value")
    arguments = parser.parse_args()
    report: dict[str, Any] = {"machine": updating_machine(arguments), "agents": {}}
    for name in arguments.agents.split(","):
        config = configured(name, arguments.preset, ["compile=eager", *arguments.overrides])
        row = measure(config, arguments.repeats)
        report["agents"][name] = row | {"batch": config.train.batch, "amp": config.amp}
        report["convolution_peak_gflops"] = convolution_peak(config, timed)
        total = sum(row["seconds"].values())
        print(f"\n{name}, batch {config.train.batch}: {total:.3f} s per update")
        for part, seconds in row["seconds"].items():
            gflop = row["gflop"].get(part, 0)
            speed = f"{gflop / seconds:7.0f} GFLOP/s" if gflop > 0.01 else ""
            print(f"  {part:20}{seconds:8.4f} s {seconds / total:5.0%} {gflop:8.2f} GFLOP{speed}")
    print(f"\none large convolution: {report['convolution_peak_gflops']:.0f} GFLOP/s")
    if arguments.json is not None:
        write_json(report, arguments.json)
    if arguments.figure is not None:
        draw(report).savefig(arguments.figure, dpi=110)


def measure(config: Config, repeats: int) -> dict[str, dict[str, float]]:
    """Seconds and GFLOP of each part, per update."""
    agent = build(config, plain=False)
    batch = random_batch(config)

    def updates() -> None:
        for step in range(FIRST_STEP, FIRST_STEP + STEPS):
            agent.update(batch, step)

    updates()
    with metered(agent, lambda: clock(config.device)) as seconds:
        for _ in range(repeats):
            updates()
    counter = FlopCounterMode(display=False)
    with counter, metered(agent, counter.get_total_flops) as flop:
        updates()
    return {
        "seconds": {PARTS[part]: value / STEPS / repeats for part, value in seconds.items()},
        "gflop": {PARTS[part]: value / STEPS / 1e9 for part, value in flop.items()},
    }


@contextmanager
def metered(agent: Any, meter: Callable[[], float]) -> Iterator[dict[str, float]]:
    """By how much `meter` rises in each of the agent's PARTS while the context lasts."""
    sums: dict[str, float] = defaultdict(float)
    within: list[float] = []  # of the calls that are under way: what the parts in them have taken

    def watched(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            part = f"{name} {args[1]}" if name == "minimise" else name
            within.append(0)
            began = meter()
            result = method(*args, **kwargs)
            taken = meter() - began
            sums[part] += taken - within.pop()
            if within:
                within[-1] += taken
            return result

        return call

    methods = {part.partition(" ")[0] for part in PARTS}
    here = [name for name in methods if hasattr(agent, name)]
    for name in here:
        setattr(agent, name, watched(name, getattr(agent, name)))
    try:
        yield sums
    finally:
        for name in here:
            delattr(agent, name)


def draw(report: dict[str, Any]) -> Figure:
    """A bar per agent, a colour per part."""
    agents = report["agents"]
    figure = Figure(figsize=(10, 1.2 + 0.7 * len(agents)), layout="constrained")
    axes = figure.subplots()
    colours = map(colormaps["tab20"], range(20))
    totals = {name: sum(row["seconds"].values()) for name, row in agents.items()}
    left = dict.fromkeys(agents, 0.0)
    for part, colour in zip(PARTS.values(), colours, strict=False):
        shares = {name: row["seconds"].get(part, 0) / totals[name] for name, row in agents.items()}
        if any(shares.values()):
            axes.barh(list(shares), list(shares.values()), left=list(left.values()), color=colour, label=part)
        left = {name: left[name] + share for name, share in shares.items()}
    axes.set_yticks(range(len(agents)), [f"{name}, {totals[name]:.2f} s" for name in agents])
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), xlabel="share of an update's time")
    axes.legend(bbox_to_anchor=(1.01, 1), loc="upper left", fontsize="small")
    return figure


if __name__ == "__main__":
    main()
