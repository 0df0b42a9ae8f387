"""How far bfloat16 convolutions move losses, gradients and SGQN's mask from float32's.

python -m benchmarks.precision --agents sac,sgqn,smg

The papers' networks with weights as initialised, on the batch of 4 transitions that the fixtures hold. Per
loss: relative difference, and cosine between the gradients to all weights. SGQN's losses are compared on
float32's masks; the overlap of the masks themselves is a figure of its own.
"""

import statistics
from typing import Any

import torch
from torch import Tensor

from benchmarks.machine import command_line, machine, write_json
from common.config.loading import load
from common.config.registry import agent_class
from common.rl.batch import Batch
from common.run.device import resolve_auto
from tests import released

FULL = 2000  # an agent step whose update has every part
KEYS = ("obs", "action", "reward", "next_obs", "not_done")


def main() -> None:
    """Measure and print."""
    parser = command_line(__doc__)
    parser.add_argument("--agents", default="sac,sgqn,smg")
    parser.add_argument(
        "--seeds", type=int, default=3, help="of the weights; the median counts, and the worst"
    )
    arguments = parser.parse_args()
    report: dict[str, Any] = {"machine": machine(("torch",)), "agents": {}}
    for name in arguments.agents.split(","):
        rounds = [deviations(name, seed) for seed in range(arguments.seeds)]
        figures = {key: [each[key] for each in rounds] for key in rounds[0]}
        report["agents"][name] = {
            key: {"median": statistics.median(values), "values": values} for key, values in figures.items()
        }
        print(f"\n{name:32}{'median':>10}{'lowest':>10}{'highest':>10}")
        for key, values in figures.items():
            print(f"{key:32}{statistics.median(values):10.4f}{min(values):10.4f}{max(values):10.4f}")
    if arguments.json is not None:
        write_json(report, arguments.json)


def deviations(name: str, seed: int) -> dict[str, float]:
    """By loss: "… loss", the relative difference, and "… cosine"; for SGQN "mask IoU" too."""
    stored = released.numbers("sgqn" if name == "sac" else name)
    exact, rounded = (build(name, amp, seed, stored) for amp in ("off", "bf16"))
    rounded.load_state_dict(exact.state_dict())
    plan = exact.plan(FULL)
    torch.manual_seed(seed)
    inputs = exact.prepare(Batch(**{key: released.tensor(stored[f"batch/{key}"]) for key in KEYS}), plan)
    figures = {}
    if name == "sgqn":
        masks = [agent.saliency(inputs["obs"], inputs["action"]) for agent in (exact, rounded)]
        figures["mask IoU"] = ((masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum()).item()
        rounded.saliency = exact.saliency
    expected, found = (losses_and_gradients(agent, inputs, plan) for agent in (exact, rounded))
    for loss, (value, gradient) in expected.items():
        other, other_gradient = found[loss]
        figures[f"{loss} loss"] = abs(other - value) / abs(value)
        figures[f"{loss} cosine"] = torch.cosine_similarity(gradient, other_gradient, dim=0).item()
    return figures


def build(name: str, amp: str, seed: int, stored: dict[str, Any]) -> Any:
    """An agent with the papers' networks whose overlay images are the fixture's."""
    config = load(name, "walker_walk", "paper", overrides=["device=cpu", "compile=eager", f"amp={amp}"])
    torch.manual_seed(seed)
    images = released.tensor(stored["batch/images_1"])
    return agent_class(name)(resolve_auto(config), 3, lambda count: images[:count])


def losses_and_gradients(agent: Any, inputs: dict[str, Tensor], plan: Any) -> dict[str, tuple[float, Tensor]]:
    """By loss of the encoder and of the policy: its value, and its gradient to all weights in one vector."""
    terms = agent.encoder_losses(inputs, plan) | {"policy": agent.actor_losses(inputs)[0]["policy"]}
    weights = [
        weight
        for name, network in agent.networks.items()
        for weight in network.parameters()
        if weight.requires_grad
    ]
    results = {}
    for name, loss in terms.items():
        gradients = torch.autograd.grad(loss, weights, retain_graph=True, materialize_grads=True)
        results[name] = (loss.item(), torch.cat([gradient.double().flatten() for gradient in gradients]))
    return results


if __name__ == "__main__":
    main()
