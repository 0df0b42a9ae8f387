"""Seconds per update: plain float32 against the fast path, in one run.

    python -m benchmarks.update --agents sac,sgqn,smg --batch 128

Every agent is measured at paper size (11-layer encoder, 84×84), averaged over the schedule's mix of
critic-only and full steps. Besides the ratio to its own plain path, an agent is compared with a plain SAC of
its batch, the unit in which the papers' released code is known: SGQN 5, SMG 33.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.machine import command_line, machine, on_gpu, write_json
from benchmarks.plain import PLAIN, SWITCHES
from common.config.loading import load
from common.config.registry import agent_class
from common.config.schema import Config
from common.rl.batch import Batch
from common.run.device import apply_switches, resolve_auto

ACTIONS = 6
FIRST_STEP = 2000  # past the start-up burst


def main() -> None:
    """Measure and print."""
    parser = command_line(__doc__)
    parser.add_argument("--agents", default="sac,sgqn,smg")
    parser.add_argument("--batch", type=int, help="by default each agent's own: 64 for SMG, 128 else")
    parser.add_argument(
        "--repeats", type=int, default=5, help="repeats of a full schedule, of which the median"
    )
    parser.add_argument("--preset", default="paper")
    parser.add_argument("overrides", nargs="*", help="key=value for the fast path")
    arguments = parser.parse_args()

    report: dict[str, Any] = {"machine": updating_machine(arguments), "agents": {}}
    for name, value in report["machine"].items():
        print(f"{name}: {value}")
    plain_sac: dict[int, float] = {}
    for name in arguments.agents.split(","):
        overrides = [f"train.batch={arguments.batch}"] if arguments.batch else []
        fast = configured(name, arguments.preset, [*overrides, *arguments.overrides])
        plain = configured(name, arguments.preset, [*overrides, *SWITCHES, f"device={fast.device}"])
        batch = fast.train.batch
        if batch not in plain_sac:
            sizes = [f"train.batch={batch}", f"network.latent={fast.network.latent}", "shift=4"]
            sac = configured("sac", arguments.preset, [*sizes, *SWITCHES, f"device={fast.device}"])
            plain_sac[batch] = measure(build(sac, plain=True), sac, arguments.repeats)["seconds"]
        row = {
            "batch": batch,
            "switches": {key: str(getattr(fast, key)) for key in ("amp", "channels_last", "compile", "tf32")},
            "plain": measure(build(plain, plain=True), plain, arguments.repeats),
            "fast": measure(build(fast, plain=False), fast, arguments.repeats),
            "plain_sac_seconds": plain_sac[batch],
        }
        row["fast_over_plain"] = row["plain"]["seconds"] / row["fast"]["seconds"]
        row["times_plain_sac"] = row["fast"]["seconds"] / plain_sac[batch]
        report["agents"][name] = row
        print(
            f"{name:>6}, {batch}: plain {row['plain']['seconds']:.4f} s, fast {row['fast']['seconds']:.4f} s"
            f" ({row['fast_over_plain']:.2f}x faster; {row['times_plain_sac']:.2f} x a plain SAC update;"
            f" {row['fast']['gflop']:.1f} of {row['plain']['gflop']:.1f} GFLOP)"
        )
    report["convolution_peak_gflops"] = convolution_peak(fast)
    for name, row in report["agents"].items():
        rate = row["fast"]["gflop"] / row["fast"]["seconds"]
        row["share_of_peak"] = rate / report["convolution_peak_gflops"]
        print(f"{name:>6}: {rate:.0f} GFLOP/s, {row['share_of_peak']:.0%} of this machine's convolution peak")
    if arguments.json:
        write_json(report, arguments.json)


def configured(name: str, preset: str, overrides: list[str]) -> Config:
    """A configuration without any `auto`."""
    return resolve_auto(load(name, "walker_walk", preset, overrides=overrides))


def updating_machine(arguments: argparse.Namespace) -> dict[str, Any]:
    """The machine of the agents that the command line names, and the threads they update with."""
    first = arguments.agents.split(",")[0]
    device = configured(first, arguments.preset, arguments.overrides).device
    return machine(("torch",), device) | {"threads": torch.get_num_threads()}


def build(config: Config, plain: bool) -> Any:
    """The agent, plain or fast, with images from a fixed tensor; sets the process's switches for it."""
    apply_switches(config)
    torch.manual_seed(0)
    size, batch = config.env.image_size, config.train.batch
    images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, device=config.device)
    kind = PLAIN[config.agent] if plain else agent_class(config.agent)
    return kind(config, ACTIONS, lambda count: images[:count], config.device)


def random_batch(config: Config) -> Batch:
    """Transitions of noise."""
    size, batch = config.env.image_size, config.train.batch
    frames = torch.randint(0, 256, (batch, 12, size, size), dtype=torch.uint8, device=config.device)
    action = torch.rand(batch, ACTIONS, device=config.device) * 2 - 1
    ones = torch.ones(batch, 1, device=config.device)
    return Batch(frames[:, :9], action, ones, frames[:, 3:], ones)


def measure(agent: Any, config: Config, repeats: int) -> dict[str, float]:
    """Median seconds and GFLOP per update, averaged over a critic-only and a full step."""
    batch = random_batch(config)
    # SMG's plans are drawn: so many steps that each was compiled or captured.
    warm_up = 4 if config.compile == "eager" else 60
    for step in range(FIRST_STEP, FIRST_STEP + warm_up):
        agent.update(batch, step)
    counter = FlopCounterMode(display=False)
    # The counter sees nothing inside a compiled part.
    if config.compile not in ("default", "compiled_graphs"):
        with counter:
            agent.step(*agent.prepare(batch, agent.schedule(FIRST_STEP)))
            agent.step(*agent.prepare(batch, agent.schedule(FIRST_STEP + 1)))
    steps = 2 if config.device == "cpu" else 100
    first = FIRST_STEP + warm_up

    def schedule() -> None:
        for step in range(first, first + steps):
            agent.update(batch, step)

    seconds = [timed(schedule, config) for _ in range(repeats)]
    return {"seconds": statistics.median(seconds) / steps, "gflop": counter.get_total_flops() / 2e9}


def timed(work: Callable[[], Any], config: Config) -> float:
    """Seconds until the work is done, on the device too."""
    started = time.perf_counter()
    work()
    if on_gpu(config.device):
        torch.cuda.synchronize(config.device)
    return time.perf_counter() - started


def convolution_peak(config: Config, timed: Callable[..., float] = timed) -> float:
    """GFLOP/s of one large 3×3 convolution in the fast path's precision and memory format."""
    kind = torch.bfloat16 if config.amp == "bf16" else torch.float32
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    image = torch.randn(64, 128, 42, 42, device=config.device, dtype=kind).to(memory_format=layout)
    weight = torch.randn(128, 128, 3, 3, device=config.device, dtype=kind).to(memory_format=layout)
    flop = 2 * image.numel() * weight[:, 0].numel()
    with torch.no_grad():
        runs = [timed(lambda: F.conv2d(image, weight, padding=1), config) for _ in range(12)]
    return flop / min(runs) / 1e9


if __name__ == "__main__":
    main()
