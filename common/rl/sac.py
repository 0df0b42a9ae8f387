"""Soft actor-critic from pixels, the agent that every other agent here extends.

The actor shares the critic's convolutional trunk, with a projection of its own, and never moves it.
Hyper-parameters: see configs/default.yaml and the papers cited there.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from pydantic import BaseModel
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from common.config.schema import Config
from common.rl import losses
from common.rl.attribution import guided_gradient
from common.rl.augment import Augmentation, ImageSource, build_augmentation, random_offsets, shift
from common.rl.batch import Batch
from common.rl.cuda_graphs import Inputs, Metrics, Programs
from common.rl.networks import MLP, Activation, ModuleT, Projection, Trunk, initialise, place

ACT_ROWS = 16
"""Observations that the policy sees at a time; its head pads fewer."""


QPair = tuple[Tensor, Tensor]
"""Q₁ and Q₂, each (B, 1)."""


class Critic(nn.Module):
    """Trunk, projection and two Q heads."""

    def __init__(self, trunk: Trunk, latent: int, hidden: int, action_size: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.projection = Projection(trunk.output_size, latent)
        self.q1 = MLP(latent + action_size, hidden, 1)
        self.q2 = MLP(latent + action_size, hidden, 1)

    def encoder(self) -> nn.ModuleList:
        """What the critic's losses and, in SMG and SGQN, the auxiliary ones move: trunk and projection."""
        return nn.ModuleList([self.trunk, self.projection])

    def encode(self, *views: Tensor) -> Tensor:
        """Views (B, C, H, W), encoded as one batch → latents (views·B, latent)."""
        return self.projection(self.trunk(*views))

    def heads(self, latent: Tensor, action: Tensor) -> QPair:
        """Q₁ and Q₂, each (B, 1), from a latent."""
        inputs = torch.cat([latent, action], 1)
        return self.q1(inputs), self.q2(inputs)

    def forward(self, obs: Tensor, action: Tensor) -> QPair:
        """Q₁ and Q₂, each (B, 1)."""
        return self.heads(self.encode(obs), action)

    def of_two(self, obs: Tensor, other: Tensor, action: Tensor) -> tuple[QPair, QPair]:
        """Q₁ and Q₂, each (B, 1), of two views (B, C, H, W) of the same states, encoded as one batch."""
        both = self.heads(self.encode(obs, other), torch.cat([action, action]))
        (q1, other1), (q2, other2) = (head.chunk(2) for head in both)
        return (q1, q2), (other1, other2)

    def first_q(self, obs: Tensor, action: Tensor, relu: Activation = F.relu) -> Tensor:
        """Q₁ (B, 1) alone, with a chosen ReLU throughout: what attributions explain."""
        latent = self.projection(self.trunk(obs, relu=relu))
        return self.q1(torch.cat([latent, action], 1), relu)


class Actor(nn.Module):
    """Projection of trunk features and an MLP to a Gaussian's mean and log standard deviation."""

    def __init__(
        self, features: int, latent: int, hidden: int, action_size: int, log_std: tuple[float, float]
    ) -> None:
        super().__init__()
        self.projection = Projection(features, latent)
        self.mlp = MLP(latent, hidden, 2 * action_size)
        self.log_std = log_std

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Trunk features (B, F) → mean and log standard deviation before squashing, each (B, A)."""
        mean, log_std = self.mlp(self.projection(features)).chunk(2, dim=1)
        low, high = self.log_std
        return mean, low + 0.5 * (high - low) * (torch.tanh(log_std) + 1)


@dataclass(frozen=True)
class Plan:
    """Which parts an update runs; with fixed shapes, it names one tensor program."""

    actor: bool
    targets: bool


@dataclass(frozen=True)
class AuxiliaryPlan(Plan):
    """SAC's plan and whether an auxiliary update follows."""

    auxiliary: bool


Examination = Callable[[Inputs, Any], Metrics]
"""Looks at an update's prepared inputs and its plan, before the update."""


def learns(name: str) -> bool:
    """Whether the network of this name in `SAC.networks` learns; those called target… only follow others."""
    return not name.startswith("target")


class SAC:
    """Soft actor-critic.

    Subclasses declare their loss terms and settings and override the parts that differ. An update is
    `prepare` (random numbers, shift, augmentation) followed by `step`, a pure function of the agent's
    state and the prepared tensors, which `Programs` may compile or capture.

    Args:
        config: the resolved configuration.
        action_size: number of action dimensions.
        images: source of overlay images, for agents whose augmentation needs them.
        device: where the agent lives and learns.
    """

    LOSSES: ClassVar[tuple[str, ...]] = ("bellman",)
    SECTION: ClassVar[str | None] = None
    Settings: ClassVar[type[BaseModel] | None] = None
    COMPILED: ClassVar[tuple[str, ...]] = ("critic_losses", "actor_losses", "target_q")
    """Methods that `compile: default` hands to torch.compile; one backward pass follows each."""
    CROPS: ClassVar[bool] = False
    """Whether the agent takes rendered frames that are larger than `env.image_size`."""

    def __init__(
        self,
        config: Config,
        action_size: int,
        images: ImageSource,
        device: str | torch.device = "cpu",
    ) -> None:
        self.config = config
        self.settings = config.settings
        self.weights = config.losses
        self.images = images
        self.device = torch.device(device)
        self.action_size = action_size
        network = config.network
        self.critic = self.add(
            Critic(self.new_trunk(), network.latent, network.hidden, action_size), initialise_weights=True
        )
        self.actor = self.add(
            Actor(
                self.critic.trunk.output_size,
                network.latent,
                network.hidden,
                action_size,
                network.log_std,
            ),
            initialise_weights=True,
        )
        self.target = copy.deepcopy(self.critic).requires_grad_(False)
        self.log_alpha = nn.Parameter(torch.tensor(config.sac.temperature, device=self.device).log())
        self.networks: dict[str, nn.Module] = {
            "critic": self.critic,
            "actor": self.actor,
            "target": self.target,
        }
        self.optimizers = {
            "critic": self.adam("critic", self.critic.parameters()),
            "actor": self.adam("actor", self.actor.parameters()),
            "temperature": self.adam("temperature", [self.log_alpha]),
        }
        self.augmentation = self.build_augmentation()
        if config.compile == "default":
            for name in self.COMPILED:
                setattr(self, name, torch.compile(getattr(self, name), dynamic=False))
        self.programs = Programs(self.step, config.compile, self.device, self.state_tensors)

    # Acting

    @torch.no_grad()
    def act(self, obs: Tensor, sample: bool) -> Tensor:
        """Actions (N, A) in [−1, 1] for uint8 observations (N, C, H, W): a draw, or the policy's mode."""
        # An observation's action must not depend, not even in its last bit, on how many others share the
        # batch. Matrix products of one fixed size grant that, and on a CPU convolutions of two samples or
        # more; cuDNN chooses another algorithm for another size.
        least = 2 if self.device.type == "cpu" else ACT_ROWS
        parts = []
        for part in self.view(obs).split(ACT_ROWS):
            features = self.critic.trunk(pad(part, max(len(part), least)))
            parts.append(self.actor(pad(features, ACT_ROWS)))
        mean, log_std = (torch.cat(values)[: len(obs)] for values in zip(*parts, strict=True))
        if sample:
            mean = mean + torch.randn_like(mean) * log_std.exp()
        return torch.tanh(mean)

    def view(self, obs: Tensor) -> Tensor:
        """What the policy sees of a rendered observation outside training; here all of it."""
        return obs

    # Learning

    def batch_size(self, step: int) -> int:
        """Transitions that the update at agent step `step` takes."""
        return self.config.train.batch

    def update(self, batch: Batch, step: int, examine: Examination | None = None) -> Metrics:
        """One training step at agent step `step`; returns detached 0-d tensors.

        `examine` sees what the step is about to learn from, and its metrics join those of the step.
        """
        plan = self.plan(step)
        inputs = self.prepare(batch, plan)
        examined = {} if examine is None else examine(inputs, plan)
        return self.programs(inputs, plan) | examined

    def plan(self, step: int) -> Plan:
        """Which parts run at this agent step."""
        settings = self.config.sac
        return Plan(actor=step % settings.actor_every == 0, targets=step % settings.target_every == 0)

    def prepare(self, batch: Batch, plan: Plan) -> Inputs:
        """Everything an update needs, all its random numbers drawn, as fixed-shape tensors.

        The first dimension of a tensor counts samples; one without dimensions belongs to the whole batch.
        """
        inputs = {
            "obs": self.shift(batch.obs),
            "action": batch.action,
            "reward": batch.reward,
            "next_obs": self.shift(batch.next_obs),
            "not_done": batch.not_done,
            "noise_next": torch.randn_like(batch.action),
        }
        if plan.actor:
            inputs["noise_obs"] = torch.randn_like(batch.action)
        return inputs

    def step(self, inputs: Inputs, plan: Plan) -> Metrics:
        """Critic, then actor and targets when the plan says so (SAC algorithm 1)."""
        metrics = self.update_critic(inputs)
        if plan.actor:
            metrics |= self.update_actor(inputs)
        if plan.targets:
            self.update_targets()
        return metrics

    def update_critic(self, inputs: Inputs) -> Metrics:
        """Move the critic and its encoder down the weighted sum of the critic's losses."""
        terms, diagnostics = self.critic_losses(inputs)
        self.minimise(self.weighted(terms), "critic")
        return report(terms) | diagnostics

    def critic_losses(self, inputs: Inputs) -> tuple[dict[str, Tensor], Metrics]:
        """The critic's loss terms and what else is worth logging."""
        target = self.target_q(inputs)
        q = self.critic(inputs["obs"], inputs["action"])
        return {"bellman": losses.bellman(q, target)}, values(q, target)

    @torch.no_grad()
    def target_q(self, inputs: Inputs) -> Tensor:
        """The soft Bellman target (B, 1) from the un-augmented next observation."""
        mean, log_std = self.actor(self.critic.trunk(inputs["next_obs"]))
        action, log_pi = losses.squashed_gaussian(mean, log_std, inputs["noise_next"])
        next_q = self.target(inputs["next_obs"], action)
        return losses.soft_target(
            inputs["reward"],
            inputs["not_done"],
            self.config.sac.discount,
            next_q,
            self.log_alpha.exp(),
            log_pi,
        )

    def update_actor(self, inputs: Inputs) -> Metrics:
        """Move actor and temperature by one backward pass: neither loss reaches the other's parameters."""
        terms, diagnostics = self.actor_losses(inputs)
        self.minimise(terms["policy"] + terms["temperature"], "actor", "temperature")
        return report(terms) | diagnostics

    def actor_losses(self, inputs: Inputs) -> tuple[dict[str, Tensor], Metrics]:
        """Policy and temperature losses; the trunk gets no gradient from either."""
        with torch.no_grad():
            features = self.critic.trunk(inputs["obs"])
            latent = self.critic.projection(features)
        mean, log_std = self.actor(features)
        action, log_pi = losses.squashed_gaussian(mean, log_std, inputs["noise_obs"])
        alpha = self.log_alpha.exp()
        terms = {
            "policy": losses.policy(alpha, log_pi, self.critic.heads(latent, action)),
            "temperature": losses.temperature(alpha, log_pi, -self.action_size),
        }
        return terms, {
            "policy/entropy": -log_pi.detach().mean(),
            "policy/temperature": alpha.detach(),
            "policy/saturation": (action.detach().abs() > 0.99).float().mean(),
        }

    def update_targets(self) -> None:
        """Exponential moving average of the encoder and of the Q heads, each at its own rate."""
        settings = self.config.sac
        for source, target, rate in (
            (self.critic.trunk, self.target.trunk, settings.encoder_tau),
            (self.critic.projection, self.target.projection, settings.encoder_tau),
            (self.critic.q1, self.target.q1, settings.critic_tau),
            (self.critic.q2, self.target.q2, settings.critic_tau),
        ):
            follow(target, source, rate)

    # Looking inside

    def encoder_losses(self, inputs: Inputs, plan: Plan) -> dict[str, Tensor]:
        """Every loss term of an update that may move the shared encoder, before its weight."""
        return self.critic_losses(inputs)[0]

    def mask_shares(self) -> dict[str, float]:
        """Metrics that are the mean of a mask, with the share of the image that it should cover."""
        return {}

    def auxiliary_period(self) -> int:
        """Agent steps from one update with all losses that move the encoder to the next; 0 has one."""
        return getattr(self.settings, "auxiliary_every", 1)

    def uncompiled(self) -> Self:
        """This agent, sharing all it has, without compiled methods: a compiled loss allows one backward."""
        agent = copy.copy(self)
        for name in self.COMPILED:
            vars(agent).pop(name, None)
        return agent

    def explain(self, obs: Tensor, action: Tensor) -> dict[str, Tensor]:
        """What a person wants to see of uint8 observations (N, C, H, W) and actions (N, A).

        Returns:
            attribution: guided backpropagation of Q₁ to the pixels, (N, C, H, W).
        """
        return {"attribution": guided_gradient(self.critic, self.view(obs), action)}

    # State

    def state_dict(self) -> dict[str, Any]:
        """Everything learnt, optimisers included: tensors and plain values only."""
        return {
            "networks": {name: network.state_dict() for name, network in self.networks.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "log_alpha": self.log_alpha.detach(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a `state_dict`; a missing or surplus network or optimiser is a KeyError."""
        for own, given in ((self.networks, state["networks"]), (self.optimizers, state["optimizers"])):
            if own.keys() != given.keys():
                raise KeyError(f"it holds {', '.join(given)}, the agent {', '.join(own)}")
        for name, network in self.networks.items():
            network.load_state_dict(state["networks"][name])
        for name, optimizer in self.optimizers.items():
            take_up(optimizer, state["optimizers"][name])
        with torch.no_grad():
            self.log_alpha.copy_(state["log_alpha"])

    def state_tensors(self) -> list[Tensor]:
        """Every tensor that `step` changes in place."""
        tensors: list[Tensor] = [self.log_alpha]
        for network in self.networks.values():
            tensors += [*network.parameters(), *network.buffers()]
        for optimizer in self.optimizers.values():
            tensors += [value for slots in optimizer.state.values() for value in slots.values()]
        return tensors

    # Parts for subclasses

    def new_trunk(self) -> Trunk:
        """A convolutional trunk of the configured size, with PyTorch's default initialisation."""
        env, network = self.config.env, self.config.network
        return Trunk(3 * env.frames, network.filters, network.strides, env.image_size)

    def add(self, module: ModuleT, initialise_weights: bool) -> ModuleT:
        """Put a new network on the device; optionally redraw its weights with `initialise`."""
        if initialise_weights:
            initialise(module)
        return place(module, self.device, self.config.channels_last is True, self.config.amp == "bf16")

    def adam(self, name: str, parameters: Iterable[nn.Parameter]) -> torch.optim.Adam:
        """Adam with the rates of `optim.<name>`."""
        settings = getattr(self.config.optim, name)
        fused = self.config.optim.fused is True
        return torch.optim.Adam(
            parameters,
            lr=settings.lr,
            betas=(settings.beta1, 0.999),
            fused=fused,
            capturable=self.config.compile == "graphs",
        )

    def build_augmentation(self) -> Augmentation:
        """τ from the configuration; without one, no change."""
        return build_augmentation(self.config.augmentation, self.images, self.config.env.image_size)

    def shift(self, obs: Tensor) -> Tensor:
        """Random shift of each sample by up to ±`shift` pixels; one draw for a sample's stacked frames."""
        pad = self.config.shift
        return obs if pad == 0 else shift(obs, random_offsets(len(obs), pad, obs.device))

    def augment(self, obs: Tensor) -> Tensor:
        """τ(obs): (B, C, H, W) → float, 0–255."""
        batch, _, height, width = obs.shape
        return self.augmentation(obs, self.augmentation.draw(batch, height, width, obs.device))

    def active(self, name: str) -> bool:
        """Whether a loss term has a weight other than 0; a term without one is not computed."""
        return self.weights[name] > 0

    def weighted(self, terms: dict[str, Tensor]) -> Tensor:
        """The sum of the terms, each times its weight in `losses:`."""
        return torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()

    def minimise(self, loss: Tensor, *names: str, clip: float | None = None) -> Tensor | None:
        """One step of the named optimisers on exactly their parameters; no other parameter gets a gradient.

        Returns the gradient norm before clipping when `clip` is given.
        """
        optimizers = [self.optimizers[name] for name in names]
        parameters = [parameter for each in optimizers for parameter in parameters_of(each)]
        # Unused: with a loss term off, the networks only it needs stay as they are.
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        norm = None if clip is None else nn.utils.clip_grad_norm_(parameters, clip)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return norm


def parameters_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """What an optimiser moves."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def report(terms: dict[str, Tensor]) -> Metrics:
    """Loss terms as metrics: detached, under `loss/`."""
    return {f"loss/{name}": term.detach() for name, term in terms.items()}


def values(q: QPair, target: Tensor) -> Metrics:
    """Mean of Q₁ and of the target over the batch."""
    return {"critic/q": q[0].detach().mean(), "critic/target": target.mean()}


@torch.no_grad()
def follow(target: nn.Module, source: nn.Module, rate: float) -> None:
    """Exponential moving average: each parameter moves the share `rate` of the way to its source's."""
    followers: list[Tensor] = list(target.parameters())
    leaders: list[Tensor] = list(source.parameters())
    torch._foreach_lerp_(followers, leaders, rate)  # pyright: ignore[reportPrivateImportUsage]


def take_up(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load what an optimiser remembers, but not its settings: those are the configuration's.

    A run may be resumed with another learning rate, or on another device.
    """
    # Adam would go on in the given tensors themselves.
    state = copy.deepcopy(state)
    groups = zip(optimizer.param_groups, state["param_groups"], strict=True)
    state["param_groups"] = [own | {"params": saved["params"]} for own, saved in groups]
    optimizer.load_state_dict(state)
    for parameter, moments in optimizer.state.items():
        for name, moment in moments.items():
            if isinstance(moment, Tensor) and moment.shape == parameter.shape:
                moments[name] = laid_out_as(parameter, moment)


def laid_out_as(weight: Tensor, values: Tensor) -> Tensor:
    """The values in the weight's memory layout: themselves if they have it, else a copy."""
    if values.stride() == weight.stride() or values.layout != weight.layout:
        return values
    return torch.empty_like(weight, dtype=values.dtype, requires_grad=False).copy_(values)


def _match_layouts(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    """Before any optimiser's step: each gradient takes its weight's memory layout.

    Fused and foreach kernels walk raw memory. A gradient whose strides differ from its weight's, which
    `autograd.grad` and compiled backward passes may return, would move the wrong entries, on a CPU without
    a sign.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            gradient = parameter.grad
            if gradient is not None and gradient.stride() != parameter.stride():
                parameter.grad = laid_out_as(parameter, gradient)


# For every optimiser of the process, so that no agent's own can be without it.
register_optimizer_step_pre_hook(_match_layouts)


def pad(rows: Tensor, count: int) -> Tensor:
    """Append zeros until there are `count` rows."""
    missing = count - len(rows)
    return torch.cat([rows, rows.new_zeros(missing, *rows.shape[1:])]) if missing > 0 else rows
