"""Soft actor-critic from pixels, the agent that every other agent here extends.

The actor shares the critic's convolutional trunk, with a projection of its own, and never moves it.
Hyper-parameters: see configs/default.yaml and the papers cited there.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Hashable, Iterable
from contextlib import nullcontext
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from pydantic import BaseModel
from torch import Tensor, nn

from common.config.schema import Config
from common.errors import UserError
from common.rl import losses, soundness
from common.rl.attribution import guided_gradient, keep_from_compiler
from common.rl.augment import (
    Augmentation,
    ImageSource,
    build_augmentation,
    draws_images,
    random_offsets,
    translate,
)
from common.rl.batch import Batch, Inputs, Metrics, UpdateSchedule
from common.rl.cuda_graphs import GRAPHS, GraphedProgram
from common.rl.networks import MLP, Activation, Projection, Trunk, orthogonal, set_precision
from common.rl.optim import adam, load_optimizer_state, parameters_of, polyak_update

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

    def q_of_two(self, obs: Tensor, other: Tensor, action: Tensor) -> tuple[QPair, QPair]:
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


Examination = Callable[[Inputs, UpdateSchedule], Metrics]
"""Looks at an update's prepared inputs and its schedule, before the update."""


ACTORS_OWN = ("policy", "temperature")
"""SAC's two losses of the actor, which no configuration weighs."""


class SAC(nn.Module):
    """Soft actor-critic.

    An agent is a module that holds its networks and, in its extra state, its optimisers: `state_dict` is
    everything learnt. Subclasses declare their loss terms and settings and override the parts that differ. An
    update is `prepare` (random numbers, shift, augmentation) followed by `step`, a pure function of the
    agent's state and the prepared tensors, which `GraphedProgram` may capture.

    Args:
        config: the resolved configuration.
        action_size: number of action dimensions.
        images: source of overlay images, for agents whose augmentation needs them.
        device: where the agent lives and learns.
    """

    LOSSES: ClassVar[tuple[str, ...]] = ("bellman",)
    """Every loss term that the agent computes: the keys of `losses:`."""
    AUXILIARY: ClassVar[tuple[str, ...]] = ()
    """Those of them that `auxiliary_losses` computes, not `critic_losses` or `actor_losses`."""
    SECTION: ClassVar[str | None] = None
    Settings: ClassVar[type[BaseModel] | None] = None
    COMPILED: ClassVar[tuple[str, ...]] = ("critic_losses", "actor_losses", "target_q")
    """Methods that torch.compile is handed where `compile` asks for it; one backward pass follows each."""
    AUGMENTS: ClassVar[bool] = False
    """Whether the agent calls `augment`: others have no use for `augmentation:`, and refuse one."""
    DRAWS_IMAGES: ClassVar[bool] = False
    """Whether the agent calls `backdrops` itself, whatever its augmentation is."""
    CROPS: ClassVar[bool] = False
    """Whether the agent takes rendered frames that are larger than `env.image_size`."""

    critic: Critic
    actor: Actor
    target: Critic

    def __init__(
        self,
        config: Config,
        action_size: int,
        images: ImageSource,
        device: str | torch.device = "cpu",
    ) -> None:
        super().__init__()
        self.config = config
        self.settings = config.settings
        self.weights = dict.fromkeys(ACTORS_OWN, 1.0) | config.losses
        self.images = images
        self.device = torch.device(device)
        self.action_size = action_size
        self.proved = False
        """Whether an update with all parts was seen to move all that should move."""
        self.build()
        self.log_alpha = nn.Parameter(torch.tensor(config.sac.temperature).log())
        layout = torch.channels_last if config.channels_last is True else torch.preserve_format
        self.to(self.device).to(memory_format=layout)  # pyright: ignore[reportCallIssue]
        set_precision(self, bf16=config.amp == "bf16")
        self.optimizers = {
            name: adam(config, name, parameters) for name, parameters in self.optimized().items()
        }
        self.augmentation = self.build_augmentation()
        self.graphed_update = GraphedProgram(
            self.step, self.uncompiled().step, config.compile, self.device, self.state_tensors
        )
        self.graphed_policy = GraphedProgram(
            self.choose,
            self.choose,
            "graphs" if config.compile in GRAPHS else "eager",
            self.device,
            state=dict,
            what="choices of actions",
            findings=self.graphed_update.findings,
        )
        if config.compile in ("default", "compiled_graphs"):
            keep_from_compiler()
            for name in self.COMPILED:
                setattr(self, name, torch.compile(getattr(self, name), dynamic=False))

    # What it is made of

    def build(self) -> None:
        """Make the networks, as attributes. They go to the device afterwards."""
        network = self.config.network
        self.critic = orthogonal(Critic(self.new_trunk(), network.latent, network.hidden, self.action_size))
        self.actor = orthogonal(
            Actor(
                self.critic.trunk.output_size,
                network.latent,
                network.hidden,
                self.action_size,
                network.log_std,
            )
        )
        self.target = copy.deepcopy(self.critic).requires_grad_(False)

    def optimized(self) -> dict[str, Iterable[nn.Parameter]]:
        """What each optimiser moves, by its name in `optim:`."""
        return {
            "critic": self.critic.parameters(),
            "actor": self.actor.parameters(),
            "temperature": [self.log_alpha],
        }

    def new_trunk(self) -> Trunk:
        """A convolutional trunk of the configured size, with PyTorch's default initialisation."""
        env, network = self.config.env, self.config.network
        return Trunk(3 * env.frames, network.filters, network.strides, env.image_size)

    def build_augmentation(self) -> Augmentation:
        """τ from the configuration; without one, no change."""
        return build_augmentation(self.config.augmentation, self.backdrops, self.config.env.image_size)

    def backdrops(self, count: int) -> Tensor:
        """ε of an augmentation: the next overlay images (count, 3, H, W), 0–255.

        Raises:
            UserError: nothing says that the agent draws any, so no record would tell which they were.
        """
        if not (self.DRAWS_IMAGES or draws_images(self.config.augmentation)):
            raise UserError(
                f"{type(self).__name__} draws overlay images: its class has to say DRAWS_IMAGES = True"
            )
        return self.images(count)

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The networks by name."""
        return dict(self.named_children())

    # Acting

    @torch.no_grad()
    def act(self, obs: Tensor, sample: bool) -> Tensor:
        """Actions (N, A) in [−1, 1] for uint8 observations (N, C, H, W): a draw, or the policy's mode."""
        inputs: Inputs = {"obs": obs}
        if not sample:
            return self.choose(inputs)["action"]
        inputs["noise_obs"] = torch.randn(
            len(obs), self.action_size, dtype=self.log_alpha.dtype, device=obs.device
        )
        # One observation is what training asks about at every step.
        choose = self.graphed_policy if len(obs) == 1 else self.choose
        return choose(inputs, f"act on one of {tuple(obs.shape[1:])}")["action"]

    def choose(self, inputs: Inputs, schedule: Hashable = None) -> Metrics:
        """The `action` (N, A) for `obs`: the policy's mode, or with standard normal `noise_obs` its draw."""
        mean, log_std = self.actor(self.critic.trunk(self.policy_input(inputs["obs"])))
        if "noise_obs" in inputs:
            mean = mean + inputs["noise_obs"] * log_std.exp()
        return {"action": torch.tanh(mean)}

    def policy_input(self, obs: Tensor) -> Tensor:
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
        inputs, schedule = self.prepare(batch, self.schedule(step))
        examined = {} if examine is None else examine(inputs, schedule)
        prove = not self.proved and self.is_whole(schedule)
        with soundness.moving(self) if prove else nullcontext():
            metrics = self.graphed_update(inputs, schedule)
        self.proved = self.proved or prove
        return metrics | examined

    def is_whole(self, schedule: UpdateSchedule) -> bool:
        """Whether an update has all parts and all losses that the agent has."""
        parts = schedule.actor and schedule.targets and (schedule.auxiliary or not self.AUXILIARY)
        return parts and all(map(self.active, self.LOSSES))

    def schedule(self, step: int) -> UpdateSchedule:
        """Which parts run at this agent step."""
        settings = self.config.sac
        return UpdateSchedule(
            actor=step % settings.actor_every == 0,
            targets=step % settings.target_every == 0,
            auxiliary=any(map(self.active, self.AUXILIARY)) and step % self.auxiliary_period() == 0,
        )

    def auxiliary_period(self) -> int:
        """Agent steps from one update with all losses that move the encoder to the next."""
        return math.lcm(self.config.train.update_every, getattr(self.settings, "auxiliary_every", 1))

    def prepare(self, batch: Batch, schedule: UpdateSchedule) -> tuple[Inputs, UpdateSchedule]:
        """Everything an update needs, all that is random about it drawn, as fixed-shape tensors.

        Returns:
            the inputs, and the schedule with the choices that were drawn.
        """
        inputs: Inputs = {
            "obs": self.random_shift(batch.obs),
            "action": batch.action,
            "reward": batch.reward,
            "next_obs": self.random_shift(batch.next_obs),
            "not_done": batch.not_done,
            "noise_next": torch.randn_like(batch.action),
        }
        if schedule.actor:
            inputs["noise_obs"] = torch.randn_like(batch.action)
        return inputs, schedule

    def step(self, inputs: Inputs, schedule: UpdateSchedule) -> Metrics:
        """Critic, then actor, targets and auxiliary losses when the schedule says so (SAC algorithm 1)."""
        metrics = self.update_critic(inputs)
        if schedule.actor:
            metrics |= self.update_actor(inputs)
            self.require((name for name in self.LOSSES if name not in self.AUXILIARY), metrics)
        if schedule.targets:
            self.update_targets()
        if schedule.auxiliary:
            metrics |= self.update_auxiliary(inputs, schedule)
        return metrics

    def update_critic(self, inputs: Inputs) -> Metrics:
        """Move the critic and its encoder down the weighted sum of the critic's losses."""
        terms, metrics = self.critic_losses(inputs)
        self.minimise(self.weighted(terms), "critic")
        return loss_metrics(terms) | metrics

    def critic_losses(self, inputs: Inputs) -> tuple[dict[str, Tensor], Metrics]:
        """The critic's loss terms and what else is worth logging."""
        target = self.target_q(inputs)
        q = self.critic(inputs["obs"], inputs["action"])
        return {"bellman": losses.bellman(q, target)}, q_metrics(q, target)

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
        terms, metrics = self.actor_losses(inputs)
        self.minimise(self.weighted(terms), "actor", "temperature")
        return loss_metrics(terms) | metrics

    def actor_losses(self, inputs: Inputs) -> tuple[dict[str, Tensor], Metrics]:
        """Policy and temperature losses, and what a subclass weighs beside them; none reaches the trunk."""
        with torch.no_grad():
            features = self.critic.trunk(inputs["obs"])
            latent = self.critic.projection(features)
        return self.policy_losses(features, latent, inputs["noise_obs"])

    def policy_losses(
        self, features: Tensor, latent: Tensor, noise: Tensor
    ) -> tuple[dict[str, Tensor], Metrics]:
        """The actor's terms for what the policy sees, valued in the state that `latent` encodes.

        Args:
            features: (N, F), the trunk's, of what the policy sees.
            latent: (N, latent), the critic's, of what its actions are valued at.
            noise: (N, A), the policy's standard normal draws.
        """
        mean, log_std = self.actor(features)
        action, log_pi = losses.squashed_gaussian(mean, log_std, noise)
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
        """Exponential moving average of each part of the critic, at its own rate."""
        for name, rate in self.target_rates().items():
            polyak_update(self.target.get_submodule(name), self.critic.get_submodule(name), rate)

    def target_rates(self) -> dict[str, float]:
        """How fast the target's parts follow the critic's, by name: the encoder's and the Q heads'."""
        encoder, heads = self.config.sac.encoder_tau, self.config.sac.critic_tau
        return {"trunk": encoder, "projection": encoder, "q1": heads, "q2": heads}

    def terms(self, schedule: UpdateSchedule) -> list[str]:
        """The auxiliary losses that an update computes."""
        return [name for name in self.AUXILIARY if self.active(name)]

    def update_auxiliary(self, inputs: Inputs, schedule: UpdateSchedule) -> Metrics:
        """Move what the optimiser `auxiliary` holds down the weighted sum of the auxiliary losses."""
        terms, metrics = self.auxiliary_losses(inputs, schedule)
        self.require(self.terms(schedule), loss_metrics(terms))
        norm = self.minimise(self.weighted(terms), "auxiliary", clip=self.config.optim.auxiliary.clip)
        if norm is not None:
            metrics["auxiliary/gradient_norm"] = norm
        return loss_metrics(terms) | metrics

    def auxiliary_losses(self, inputs: Inputs, schedule: UpdateSchedule) -> tuple[dict[str, Tensor], Metrics]:
        """Those of `terms`, and what else is worth logging."""
        raise NotImplementedError(f"{type(self).__name__} names auxiliary losses and computes none")

    def random_shift(self, obs: Tensor) -> Tensor:
        """Each sample moved at random by up to ±`shift` pixels; one draw for a sample's stacked frames."""
        pad = self.config.shift
        return obs if pad == 0 else translate(obs, random_offsets(len(obs), pad, obs.device))

    def augment(self, obs: Tensor) -> Tensor:
        """τ(obs): (B, C, H, W) → float, 0–255."""
        batch, _, height, width = obs.shape
        return self.augmentation(obs, self.augmentation.draw(batch, height, width, obs.device))

    def active(self, name: str) -> bool:
        """Whether a loss term has a weight other than 0; a term without one is not computed."""
        return self.weights[name] > 0

    def require(self, names: Iterable[str], metrics: Metrics) -> None:
        """Make sure that active losses have been computed.

        Raises:
            UserError: one has not, so its weight would change nothing.
        """
        for name in names:
            if self.active(name) and f"loss/{name}" not in metrics:
                raise UserError(
                    f"{type(self).__name__}: losses.{name} is {self.weights[name]:g}, and no method computes "
                    f"the loss '{name}': critic_losses, actor_losses and auxiliary_losses return theirs"
                )

    def weighted(self, terms: dict[str, Tensor]) -> Tensor:
        """The sum of the terms, each times its weight in `losses:`.

        Raises:
            UserError: the agent's class does not list one of them, or it is no single number.
        """
        for name, term in terms.items():
            if name not in self.weights:
                raise UserError(f"{type(self).__name__} computes the loss '{name}', which its LOSSES lacks")
            soundness.check_single(f"the loss '{name}'", term)
            if not self.active(name) and name != "bellman":
                raise UserError(
                    f"{type(self).__name__} computes the loss '{name}' though losses.{name} is 0: let it ask "
                    f"self.active('{name}') first"
                )
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

    # Looking inside

    def encoder_losses(self, inputs: Inputs, schedule: UpdateSchedule) -> dict[str, Tensor]:
        """Every loss term of an update that may move the shared encoder, before its weight."""
        terms, _ = self.critic_losses(inputs)
        return terms | (self.auxiliary_losses(inputs, schedule)[0] if schedule.auxiliary else {})

    def mask_shares(self) -> dict[str, float]:
        """Metrics that are the mean of a mask, with the share of the image that it should cover."""
        return {}

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
        return {"attribution": guided_gradient(self.critic, self.policy_input(obs), action)}

    # State

    def get_extra_state(self) -> dict[str, Any]:
        """What the optimisers remember, which `state_dict` saves beside the networks."""
        return {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take up what optimisers remember; a missing or surplus one is a KeyError."""
        if state.keys() != self.optimizers.keys():
            raise KeyError(f"it holds optimisers {', '.join(state)}, the agent {', '.join(self.optimizers)}")
        for name, optimizer in self.optimizers.items():
            load_optimizer_state(optimizer, state[name])
        # Captured graphs would go on reading the moments that were there before.
        self.graphed_update.forget()
        self.graphed_policy.forget()

    def state_tensors(self) -> dict[str, Tensor]:
        """Every tensor that `step` changes in place, by name."""
        tensors: dict[str, Tensor] = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        for name, optimizer in self.optimizers.items():
            for index, parameter in enumerate(parameters_of(optimizer)):
                for slot, value in optimizer.state.get(parameter, {}).items():
                    tensors[f"{name} optimiser, {slot} {index}"] = value
        return tensors


def loss_metrics(terms: dict[str, Tensor]) -> Metrics:
    """Loss terms as metrics: detached, under `loss/`."""
    return {f"loss/{name}": term.detach() for name, term in terms.items()}


def q_metrics(q: QPair, target: Tensor) -> Metrics:
    """Mean of Q₁ and of the target over the batch."""
    return {"critic/q": q[0].detach().mean(), "critic/target": target.mean()}
