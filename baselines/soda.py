"""SODA: soft data augmentation (Hansen and Wang, ICRA 2021)."""

import copy
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from baselines.rad import RAD
from common.config.schema import Config, Fraction, Positive, Section
from common.rl.augment import ImageSource
from common.rl.batch import Batch
from common.rl.cuda_graphs import Inputs, Metrics
from common.rl.sac import AuxiliaryPlan, follow, report


class Settings(Section):
    """The `soda:` section; configs/agents/soda.yaml documents its keys."""

    batch: Annotated[Positive, Field(ge=2)]  # batch normalisation needs two
    tau: Fraction
    auxiliary_every: Positive


class SODA(RAD):
    """RAD whose policy never sees τ, while its encoder learns to give τ(o) the latent of o.

    An observation goes through the critic's trunk f and a projection g; from its augmented crop, a
    predictor h must tell the projection that slow copies of f and g make of another, plain crop.
    """

    LOSSES: tuple[str, ...] = ("bellman", "latent_consistency")
    SECTION = "soda"
    Settings = Settings

    def __init__(
        self,
        config: Config,
        action_size: int,
        images: ImageSource,
        device: str | torch.device = "cpu",
    ) -> None:
        super().__init__(config, action_size, images, device)
        trunk, latent = self.critic.trunk, config.network.latent
        self.projection = self.add(NormalisedMLP(trunk.output_size, latent), initialise_weights=True)
        self.predictor = self.add(NormalisedMLP(latent, latent), initialise_weights=True)
        self.target_trunk = copy.deepcopy(trunk).requires_grad_(False)
        self.target_projection = copy.deepcopy(self.projection).requires_grad_(False)
        self.networks |= {
            "projection": self.projection,
            "predictor": self.predictor,
            "target_trunk": self.target_trunk,
            "target_projection": self.target_projection,
        }
        learnt = nn.ModuleList([trunk, self.projection, self.predictor])
        self.optimizers["auxiliary"] = self.adam("auxiliary", learnt.parameters())

    def plan(self, step: int) -> AuxiliaryPlan:
        base = super().plan(step)
        auxiliary = self.active("latent_consistency") and step % self.settings.auxiliary_every == 0
        return AuxiliaryPlan(base.actor, base.targets, auxiliary)

    def batch_size(self, step: int) -> int:
        """SAC's batch and, where the auxiliary update runs, one of its own."""
        extra = self.settings.batch if self.plan(step).auxiliary else 0
        return super().batch_size(step) + extra

    def prepare(self, batch: Batch, plan: AuxiliaryPlan) -> Inputs:
        batch, separate = batch.split(self.config.train.batch)
        inputs = super().prepare(batch, plan)
        if plan.auxiliary:
            inputs["plain"] = self.random_crop(separate.obs)
            inputs["softly_augmented"] = self.augment(self.random_crop(separate.obs))  # τ
        return inputs

    def step(self, inputs: Inputs, plan: AuxiliaryPlan) -> Metrics:
        """Critic, actor, targets, then the auxiliary task (algorithm 1)."""
        metrics = super().step(inputs, plan)
        if plan.auxiliary:
            metrics |= self.update_encoder(inputs)
        return metrics

    def update_encoder(self, inputs: Inputs) -> Metrics:
        """One step of trunk, projection and predictor; then the slow copies follow."""
        terms = self.auxiliary_losses(inputs)
        self.minimise(self.weighted(terms), "auxiliary", clip=self.config.optim.auxiliary.clip)
        self.update_slow_copies()
        return report(terms)

    def encoder_losses(self, inputs: Inputs, plan: AuxiliaryPlan) -> dict[str, Tensor]:
        terms = super().encoder_losses(inputs, plan)
        return terms | (self.auxiliary_losses(inputs) if plan.auxiliary else {})

    def auxiliary_losses(self, inputs: Inputs) -> dict[str, Tensor]:
        """The prediction of the slow copies' latents, compared with them."""
        predicted = self.predictor(self.projection(self.critic.trunk(inputs["softly_augmented"])))
        with torch.no_grad():
            target = self.target_projection(self.target_trunk(inputs["plain"]))
        return {"latent_consistency": latent_consistency(predicted, target)}

    def update_slow_copies(self) -> None:
        """Exponential moving average of trunk and projection."""
        follow(self.target_trunk, self.critic.trunk, self.settings.tau)
        follow(self.target_projection, self.projection, self.settings.tau)


def latent_consistency(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared error between the L2-normalised rows of two (B, d) tensors."""
    return F.mse_loss(F.normalize(predicted, dim=1), F.normalize(target, dim=1))


class NormalisedMLP(nn.Module):
    """Linear → batch normalisation → ReLU → linear: (B, inputs) → (B, size).

    Always normalised by the batch's own statistics; nothing is ever predicted for one observation.
    """

    def __init__(self, inputs: int, size: int) -> None:
        super().__init__()
        self.linear0 = nn.Linear(inputs, size)
        self.batchnorm = nn.BatchNorm1d(size, track_running_stats=False)
        self.linear1 = nn.Linear(size, size)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.linear1(F.relu(self.batchnorm(self.linear0(inputs))))
