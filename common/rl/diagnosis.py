"""What tells a sick run from a healthy one, measured when the trainer logs and never part of an update.

Everything here only looks: it draws from generators of its own, leaves no gradient behind and returns
tensors on the training device, which reach the host with the other metrics. docs/metrics.md explains each
number.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from common.rl.batch import Batch, Inputs, Metrics, UpdateSchedule
from common.rl.losses import squashed_gaussian
from common.rl.sac import SAC

ROWS = 32
"""Samples of a batch that an examination looks at."""
SATURATED = 0.95
"""Share of action components at their limit from which a policy counts as saturated."""
MARGIN = 0.1
"""A mask is all black below this share of the foreground expected, all white below it of the background."""


class Diagnosis:
    """Examines an agent shortly before each line of metrics.jsonl, and warns once of each sickness.

    Args:
        agent: looked at, never changed.
        log_every: agent steps between two lines.
    """

    def __init__(self, agent: SAC, log_every: int) -> None:
        self.agent = agent
        self.log_every = log_every
        self.warned: list[str] = []
        """Metrics that were warned of; a checkpoint holds them."""

    def due(self, step: int) -> bool:
        """Whether `step` is the last before a line is written whose update has all the encoder's losses."""
        period = self.agent.auxiliary_period()
        next_line = (step // self.log_every + 1) * self.log_every
        return step % period == 0 and step + period >= next_line

    def examine(self, inputs: Inputs, schedule: UpdateSchedule) -> Metrics:
        """Gradient norms, dead ReLUs and latent norm on the first `ROWS` samples of an update's inputs."""
        agent = self.agent.uncompiled()
        inputs = first_rows(inputs, ROWS)
        # A loss that draws would otherwise shift all that the run draws after it.
        with forked_random(agent.device), FiringUnits(owners(agent)) as units:
            terms = agent.encoder_losses(inputs, schedule)
        gradients = encoder_gradients(agent, terms)
        with torch.no_grad():
            latent = agent.critic.encode(inputs["obs"])
        return {
            **{f"gradient/{name}": nn.utils.get_total_norm(each) for name, each in gradients.items()},
            **{f"dead/{name}": share for name, share in units.dead().items()},
            "encoder/latent_norm": latent.square().mean().sqrt(),
        }

    def episode(self, episode: Batch, seed: int) -> Metrics:
        """How far Q is off what the first half of a training episode then returned.

        The second half is not asked: the closer a step is to a time limit, the more its return is the very
        Q that it is compared with.

        Args:
            episode: all its transitions in order.
            seed: of the policy noise, by which its entropy is estimated.
        """
        returns, bonus, q = soft_returns(self.agent, episode, seed)
        half = -(-len(returns) // 2)
        return {
            "critic/bias": (q - returns)[:half].mean(),
            "critic/soft_return": returns[:half].mean(),
            "critic/entropy_bonus": bonus[:half].mean(),
        }

    def judge(self, metrics: dict[str, float]) -> tuple[dict[str, float], list[str]]:
        """Masks' means over what is expected of them, and a warning per metric that was not warned of yet."""
        ratios, found = {}, {}
        for name, expected in self.agent.mask_shares().items():
            if name not in metrics:
                continue
            mean = metrics[name]
            ratios[f"{name}_over_expected"] = mean / expected
            black, white = mean < MARGIN * expected, 1 - mean < MARGIN * (1 - expected)
            if black or white:
                colour = "black" if black else "white"
                found[name] = f"the mask is all {colour} (expected {expected:.3g}): see it with smg explain"
        if metrics.get("policy/saturation", 0) > SATURATED:
            found["policy/saturation"] = (
                "nearly every action is at its limit: look at policy/entropy, policy/temperature, critic/bias"
            )
        new = {name: said for name, said in found.items() if name not in self.warned}
        self.warned += new
        return ratios, [
            f"{name} is {metrics[name]:.3g}, {said}; docs/metrics.md#{anchor(name)} says what to do"
            for name, said in new.items()
        ]


def forked_random(device: torch.device) -> AbstractContextManager[None]:
    """PyTorch's generators go on afterwards as if nothing had been drawn inside."""
    return torch.random.fork_rng([device] if device.type == "cuda" else [])


def anchor(name: str) -> str:
    """The section of docs/metrics.md that explains a metric: its group."""
    return name.partition("/")[0]


def first_rows(inputs: Inputs, count: int) -> Inputs:
    """The first samples of an update's inputs; values without dimensions belong to the whole batch."""
    tensors = cast(dict[str, Tensor], inputs)
    return cast(Inputs, {name: value[:count] if value.dim() else value for name, value in tensors.items()})


def encoder_gradients(agent: SAC, terms: dict[str, Tensor]) -> dict[str, list[Tensor]]:
    """Of each weighted term that reaches the shared encoder, its gradient there by parameter."""
    parameters = list(agent.critic.encoder().parameters())
    gradients = {}
    for name, term in terms.items():
        found = torch.autograd.grad(
            agent.weights[name] * term, parameters, retain_graph=True, allow_unused=True
        )
        reached = [gradient for gradient in found if gradient is not None]
        if reached:
            gradients[name] = reached
    return gradients


# ReLUs


def owners(agent: SAC) -> dict[nn.Module, str]:
    """Every module of the agent's learning networks → what its units are reported under."""
    names = {
        module: name
        for name, network in agent.networks.items()
        if any(weight.requires_grad for weight in network.parameters())
        for module in network.modules()
    }
    return names | dict.fromkeys(agent.critic.encoder().modules(), "encoder")


class FiringUnits(TorchFunctionMode):
    """Notes, inside it, which units of the networks' ReLUs are positive for some input.

    A unit is a feature of a linear layer or a channel of a convolution. A ReLU belongs to the module whose
    forward calls it; one outside of any forward, such as in a loss, is no unit of a network.

    Args:
        owners: modules to watch → the name that their units are counted under.
    """

    RELUS = (F.relu, torch.relu, Tensor.relu)

    def __init__(self, owners: dict[nn.Module, str]) -> None:
        super().__init__()
        self.owners = owners
        self._fired: dict[tuple[nn.Module, int], Tensor] = {}
        self._running: list[tuple[nn.Module, list[Tensor]]] = []  # innermost last, with its ReLUs so far
        self._hooks: list[RemovableHandle] = []

    def __enter__(self) -> Self:
        for module in self.owners:
            self._hooks.append(
                module.register_forward_pre_hook(lambda module, _: self._running.append((module, [])))
            )
            self._hooks.append(module.register_forward_hook(lambda *_: self._left(), always_call=True))
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for hook in self._hooks:
            hook.remove()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in self.RELUS and self._running and result.dim() > 1:
            self._running[-1][1].append(result.detach())
        return result

    def _left(self) -> None:
        module, outputs = self._running.pop()
        for index, output in enumerate(outputs):
            fired = (output > 0).transpose(0, 1).flatten(1).any(1)
            before = self._fired.get((module, index))
            self._fired[module, index] = fired if before is None else before | fired

    def dead(self) -> dict[str, Tensor]:
        """Name → share of its units that were never positive."""
        units = defaultdict(list)
        for (module, _), fired in self._fired.items():
            units[self.owners[module]].append(fired)
        return {name: 1 - torch.cat(fired).float().mean() for name, fired in units.items()}


# Q against what followed


@torch.no_grad()
def soft_returns(agent: SAC, episode: Batch, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of each step: the discounted soft return that followed, the entropy's part of it, and Q.

    G_t = r_t + γ·(α·H_{t+1} + G_{t+1}), where H is the policy's entropy, estimated by one draw per state, as
    in the target that Q learns. After the last step, G is 0 at a true terminal; at a time limit it is Q of an
    action drawn from the policy. Q is min(Q₁, Q₂), as targets and policy use it.

    Args:
        agent: whose present policy, temperature and critic are asked.
        episode: T transitions in order, of which only the last may end the task.
        seed: of the draws.

    Returns:
        three (T,).
    """
    obs = agent.policy_input(torch.cat([episode.obs[:1], episode.next_obs]))  # o_0 … o_T
    latents, means, deviations = [], [], []
    for part in obs.split(agent.config.train.batch):
        features = agent.critic.trunk(part)
        mean, log_std = agent.actor(features)
        latents.append(agent.critic.projection(features))
        means.append(mean)
        deviations.append(log_std)
    mean, log_std = torch.cat(means), torch.cat(deviations)
    generator = torch.Generator(mean.device).manual_seed(seed)
    noise = torch.randn(mean.shape, generator=generator, device=mean.device)
    drawn, log_pi = squashed_gaussian(mean, log_std, noise)
    actions = torch.cat([episode.action, drawn[-1:]])
    q = torch.minimum(*agent.critic.heads(torch.cat(latents), actions))[:, 0].double()

    discount = agent.config.sac.discount
    goes_on = discount * episode.not_done[:, 0].double()
    tail = torch.zeros_like(goes_on)
    tail[-1] = goes_on[-1] * q[-1]
    bonus = discounted(-goes_on * agent.log_alpha.exp() * log_pi[1:, 0], discount)
    return bonus + discounted(episode.reward[:, 0].double() + tail, discount), bonus, q[:-1]


def discounted(values: Tensor, discount: float) -> Tensor:
    """Σ_{k ≥ t} γ^{k−t}·x_k of a sequence (T,), at every t."""
    ages = torch.arange(len(values), device=values.device)
    ages = ages - ages[:, None]  # (t, k): k − t
    return (discount ** ages.clamp_min(0).double()).triu() @ values
