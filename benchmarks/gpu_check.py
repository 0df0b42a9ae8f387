"""All that a first hour on a GPU should find out, in nine minutes: does it work, is it right, how fast is it?

    bash scripts/gpu_check.sh FOLDER              # on a machine with an NVIDIA GPU
    bash scripts/gpu_check.sh FOLDER --rehearse   # the same steps on a CPU, small

Each step is a command of its own, so that a crash or a hang of one costs only that one; its output is
FOLDER/<step>.log. FOLDER/report.json and FOLDER/report.md hold what was found so far, after every step.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.machine import write_json

ROOT = Path(__file__).resolve().parents[1]
AGENTS = ("sac", "sgqn", "smg")
LEAST_TRAINING = 60
"""Seconds below which the last step, real training, is not worth starting."""


@dataclass(frozen=True)
class Check:
    """A step: its command, the seconds it may take, and what to read from its output and files."""

    name: str
    command: list[str]
    seconds: float
    read: Callable[[str], dict[str, Any]] = field(default=lambda _: {})
    ended_by_signal: bool = False
    """Whether it is asked to stop when its time is over, which is then no failure."""


def main() -> int:
    """Run all checks; the status is 0 if none failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where the results go")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, in small")
    parser.add_argument("--minutes", type=float, default=9, help="for everything together")
    arguments = parser.parse_args()
    folder = arguments.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + 60 * arguments.minutes
    report: dict[str, Any] = {"rehearsed": arguments.rehearse, "checks": {}}
    for check in checks(folder, arguments.rehearse):
        left = deadline - time.monotonic()
        if left < (LEAST_TRAINING if check.ended_by_signal and not arguments.rehearse else 5):
            report["checks"][check.name] = {"outcome": "left out: no time was left"}
        else:
            report["checks"][check.name] = run(check, folder, min(check.seconds, left))
        write_json(report, folder / "report.json")
        (folder / "report.md").write_text(markdown(report), encoding="utf-8")
        found = report["checks"][check.name]
        print(f"{check.name}: {found['outcome']}", flush=True)
    return 0 if all(found["outcome"] == "ok" for found in report["checks"].values()) else 1


def checks(folder: Path, rehearse: bool) -> list[Check]:
    """The steps in the order of what matters most."""
    device, size = ("cpu", "smoke") if rehearse else ("cuda", "paper")
    smg = [sys.executable, "-m", "common.cli"]
    quiet = ["wandb.mode=disabled", f"device={device}"]
    # A module that cannot be imported, for want of a package, stops no other; -v shows how far they came.
    gpu_tests = [sys.executable, "-m", "pytest", "-v", "-rs", "-n", "0", "-m", "gpu", "--durations=5"]
    gpu_tests += ["--continue-on-collection-errors", "tests"]
    found = [
        Check("doctor", [*smg, "doctor"], 60),
        Check("gpu tests", gpu_tests, 300, pytest),
    ]
    for agent in ("smg", "sgqn"):
        run_folder = folder / f"smoke-{agent}"
        train = [*smg, "train", "--agent", agent, "--task", "walker_walk", "--preset", "smoke", *quiet]
        train += [f"run.dir={json.dumps(str(run_folder))}"]
        found.append(Check(f"train {agent}", train, 120, lambda _, at=run_folder: graphs(at)))
        longer = [*train, "train.steps=90"]
        found.append(Check(f"resume {agent}", longer, 120, lambda _, at=run_folder: graphs(at)))
    for agent in AGENTS:
        for mode in ("eager",) if rehearse else ("eager", "graphs"):
            name = f"updates of {agent}, {mode}"
            found.append(Check(name, own("update", agent, device, mode, size), 40, last_json))
    for agent in ("smg", "sac"):
        steps = ["--steps", "20", "--warm-up", "5"] if rehearse else ["--steps", "300", "--warm-up", "80"]
        file = folder / f"loop-{agent}.json"
        loop = [sys.executable, "-m", "benchmarks.loop", "--agent", agent, "--preset", size, *steps]
        loop += ["--json", str(file), f"device={device}"]
        found.append(Check(f"loop of {agent}", loop, 60, lambda _, at=file: json.loads(at.read_text())))
    if not rehearse:  # on a CPU the compiler takes minutes
        for agent in ("smg", "sac"):
            mode = "compiled_graphs"
            command = own("update", agent, device, mode, size)
            found.append(Check(f"updates of {agent}, {mode}", command, 90, last_json))
    file = folder / "upsampling.json"
    upsampling = [sys.executable, "-m", "benchmarks.upsampling", "--device", device, "--presets", size]
    upsampling += ["--json", str(file)]
    found.append(Check("upsampling", upsampling, 40, lambda _, at=file: json.loads(at.read_text())))
    found.append(Check("kernels of smg", own("kernels", "smg", device, "eager", size), 40, last_json))
    training = [*smg, "train", "--agent", "smg", "--task", "walker_stand", "--preset", size, *quiet]
    training += ["eval.shifts=[train,video_easy,video_hard]", "checkpoint.every=1min"]
    training += [f"run.dir={json.dumps(str(folder / 'walker_stand'))}"]
    if not rehearse:  # what the time that is left may reach
        training += ["train.steps=20000", "eval.every=2000", "eval.episodes=5"]
    read = lambda _: progress(folder / "walker_stand")  # noqa: E731
    found.append(Check("real training", training, 600, read, ended_by_signal=True))
    return found


def own(part: str, *arguments: str) -> list[str]:
    """A measurement of this module's, in a process of its own."""
    return [sys.executable, "-c", f"from benchmarks import gpu_check; gpu_check.{part}{arguments!r}"]


def run(check: Check, folder: Path, seconds: float) -> dict[str, Any]:
    """Run one step; its outcome, seconds, and what was read."""
    started = time.monotonic()
    log = folder / f"{check.name.replace(' ', '-').replace(',', '')}.log"
    with log.open("w") as file:
        process = subprocess.Popen(check.command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
        outcome = ended(process, check, seconds)
    found: dict[str, Any] = {"outcome": outcome, "seconds": round(time.monotonic() - started, 1)}
    if outcome != "ok":
        return found | {"output": log.read_text(errors="replace")[-2000:]}
    try:
        return found | {"found": check.read(log.read_text(errors="replace"))}
    except (OSError, ValueError, KeyError, IndexError) as error:
        return found | {"outcome": f"its output cannot be read ({error!r})"}


def ended(process: subprocess.Popen[bytes], check: Check, seconds: float) -> str:
    """Wait for a step to end, and end it if it does not."""
    stopping = 15 if check.ended_by_signal else 0
    try:
        status = process.wait(max(1, seconds - stopping))
        return "ok" if status == 0 else f"status {status}"
    except subprocess.TimeoutExpired:
        process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return f"hung: killed after {seconds:.0f} s"
    return "ok" if check.ended_by_signal else f"took longer than {seconds:.0f} s"


# What the steps' output says


def pytest(output: str) -> dict[str, Any]:
    """pytest's closing line, and what was skipped and why."""
    lines = output.strip().splitlines()
    skipped = [line for line in lines if line.startswith("SKIPPED")]
    return {"closing line": lines[-1].strip("= "), "skipped": skipped}


def last_json(output: str) -> dict[str, Any]:
    """The last line, which a measurement of this module prints."""
    return json.loads(output.strip().splitlines()[-1])


def graphs(run_folder: Path) -> dict[str, Any]:
    """What a run's provenance says of its CUDA graphs."""
    provenance = json.loads((run_folder / "provenance.json").read_text())
    return {"device": provenance.get("device"), "cuda_graphs": provenance.get("cuda_graphs")}


def progress(run_folder: Path) -> dict[str, Any]:
    """How far a run came, how fast, and its returns."""
    lines = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    timed = [line for line in lines if "seconds" in line]
    returns: dict[str, dict[str, list[float]]] = {}
    evaluations = run_folder / "eval.jsonl"
    for line in evaluations.read_text().splitlines() if evaluations.exists() else []:
        record = json.loads(line)
        returns.setdefault(str(record["step"]), {}).setdefault(record["shift"], []).append(record["return"])
    means = {
        step: {shift: sum(values) / len(values) for shift, values in shifts.items()}
        for step, shifts in returns.items()
    }
    first, last = timed[len(timed) // 2], timed[-1]
    elapsed = last["seconds"] - first["seconds"]
    speed = (last["step"] - first["step"]) / elapsed if elapsed > 0 else None
    return graphs(run_folder) | {"step": last["step"], "steps_per_second": speed, "returns": means}


# Measurements in processes of their own


def update(agent: str, device: str, compile: str, preset: str) -> None:
    """Print an agent's updates per second, and the milliseconds in which its policy answers."""
    import torch

    from benchmarks.update import build, configured, measure, timed

    config = configured(agent, preset, [f"device={device}", f"compile={compile}"])
    built = build(config, plain=False)
    seconds = measure(built, config, repeats=3)["seconds"]
    size, calls = config.env.frame_size, 100
    obs = torch.zeros(1, 3 * config.env.frames, size, size, dtype=torch.uint8, device=device)

    def act() -> None:
        for _ in range(calls):
            built.act(obs, sample=True)

    timed(act, config)  # which captures it
    found = {"updates_per_second": 1 / seconds, "act_ms": 1000 * timed(act, config) / calls}
    print(json.dumps(found | {"cuda_graphs": built.graphed_update.findings}))


def kernels(agent: str, device: str, compile: str, preset: str) -> None:
    """Print an agent's time by kind of kernel, per update."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    from benchmarks.update import FIRST_STEP, build, configured, random_batch

    config = configured(agent, preset, [f"device={device}", f"compile={compile}"])
    built, batch, steps = build(config, plain=False), random_batch(config), 10
    for step in range(FIRST_STEP, FIRST_STEP + 4):
        built.update(batch, step)
    cuda = device.startswith("cuda")
    with profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as profiler:
        for step in range(FIRST_STEP + 4, FIRST_STEP + 4 + steps):
            built.update(batch, step)
        if cuda:
            torch.cuda.synchronize()
    kinds: dict[str, float] = {}
    for event in profiler.key_averages():
        microseconds = event.self_device_time_total if cuda else event.self_cpu_time_total
        kinds[kind(event.key)] = kinds.get(kind(event.key), 0) + microseconds
    largest = sorted(kinds.items(), key=lambda item: -item[1])
    print(json.dumps({"milliseconds": {name: spent / 1000 / steps for name, spent in largest if spent}}))


KINDS = {
    "convolutions": r"conv|cudnn|winograd|implicit|dgrad|wgrad|fprop",
    "matrix products": r"gemm|addmm|cutlass|cublas|\bmm\b|linear",
    "Adam": r"adam|multi_tensor",
    "copies and layouts": r"copy|cat|transpose|clone|to_copy|memcpy|memset|fill",
    "random numbers": r"rand|philox|distribution",
    "normalisation": r"norm",
    "sorting and selecting": r"sort|kth|topk|radix|gather|index",
    "reductions": r"reduce|sum|mean",
    "element-wise": r"elementwise|add|mul|relu|tanh|sigmoid|lerp|where|clamp|pow|sub|div|exp",
}


def kind(kernel: str) -> str:
    """What a kernel does, by its name."""
    found = (name for name, pattern in KINDS.items() if re.search(pattern, kernel, re.IGNORECASE))
    return next(found, "others")


def markdown(report: dict[str, Any]) -> str:
    """The report for people."""
    lines = ["# GPU check" + (", rehearsed on a CPU" if report["rehearsed"] else ""), ""]
    lines += ["| step | outcome | seconds | found |", "|---|---|---|---|"]
    for name, found in report["checks"].items():
        told = json.dumps(found.get("found", {}), ensure_ascii=False)
        shown = told if len(told) <= 400 else told[:400] + "…"
        lines.append(
            f"| {name} | {found['outcome']} | {found.get('seconds', '')} | {shown.replace('|', '/')} |"
        )
    failed = {name: found["output"] for name, found in report["checks"].items() if found.get("output")}
    for name, output in failed.items():
        lines += ["", f"## {name}", "", "```", output.strip(), "```"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
