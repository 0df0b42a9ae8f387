"""SODA: soft data augmentation (Hansen and Wang, ICRA 2021)."""

import copy
from collections.abc import Iterable
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from baselines.rad import RAD
from common.config.schema import Fraction, Positive, Section
from common.rl.batch import Batch, Inputs, Metrics, UpdateSchedule
from common.rl.networks import orthogonal
from common.rl.optim import polyak_update


class Settings(Section):
    """The `soda:` section; configs/agents/soda.yaml documents its keys."""

    batch: Annotated[Positive, Field(ge=2)]  # batch normalisation needs two
    tau: Fraction
    auxiliary_every: Positive


class SODAInputs(Inputs, total=False):
    """SAC's inputs and those of SODA's auxiliary task, of transitions of its own."""

    plain: Tensor  # (B', 3F, H, W), 0-255, a crop
    softly_augmented: Tensor  # (B', 3F, H, W), 0-255, τ of another crop of the same


class SODA(RAD):
    """RAD whose policy never sees τ, while its encoder learns to give τ(o) the latent of o.

    An observation goes through the critic's trunk f and a projection g; from its augmented crop, a
    predictor h must tell the projection that slow copies of f and g make of another, plain crop.
    """

    LOSSES: tuple[str, ...] = ("bellman", "latent_consistency")
    AUXILIARY = ("latent_consistency",)
    AUGMENTS = True
    SECTION = "soda"
    Settings = Settings
    settings: Settings

    def build(self) -> None:
        super().build()
        trunk, latent = self.critic.trunk, self.config.network.latent
        self.projection = orthogonal(NormalisedMLP(trunk.output_size, latent))
        self.predictor = orthogonal(NormalisedMLP(latent, latent))
        self.target_trunk = copy.deepcopy(trunk).requires_grad_(False)
        self.target_projection = copy.deepcopy(self.projection).requires_grad_(False)

    def optimized(self) -> dict[str, Iterable[nn.Parameter]]:
        """SAC's, and trunk, projection and predictor together."""
        learnt = nn.ModuleList([self.critic.trunk, self.projection, self.predictor])
        return super().optimized() | {"auxiliary": learnt.parameters()}

    def batch_size(self, step: int) -> int:
        """SAC's batch and, where the auxiliary update runs, one of its own."""
        extra = self.settings.batch if self.schedule(step).auxiliary else 0
        return super().batch_size(step) + extra

    def prepare(self, batch: Batch, schedule: UpdateSchedule) -> tuple[SODAInputs, UpdateSchedule]:
        batch, separate = batch.split(self.config.train.batch)
        prepared, schedule = super().prepare(batch, schedule)
        inputs = SODAInputs(**prepared)
        if schedule.auxiliary:
            inputs["plain"] = self.random_crop(separate.obs)
            inputs["softly_augmented"] = self.augment(self.random_crop(separate.obs))  # τ
        return inputs, schedule

    def update_auxiliary(self, inputs: SODAInputs, schedule: UpdateSchedule) -> Metrics:
        """One step of trunk, projection and predictor; then the slow copies follow."""
        metrics = super().update_auxiliary(inputs, schedule)
        self.update_slow_copies()
        return metrics

    def update_slow_copies(self) -> None:
        """Exponential moving average of trunk and projection."""
        polyak_update(self.target_trunk, self.critic.trunk, self.settings.tau)
        polyak_update(self.target_projection, self.projection, self.settings.tau)

    def auxiliary_losses(
        self, inputs: SODAInputs, schedule: UpdateSchedule
    ) -> tuple[dict[str, Tensor], Metrics]:
        """The prediction of the slow copies' latents, compared with them."""
        predicted = self.predictor(self.projection(self.critic.trunk(inputs["softly_augmented"])))
        with torch.no_grad():
            target = self.target_projection(self.target_trunk(inputs["plain"]))
        return {"latent_consistency": latent_consistency(predicted, target)}, {}


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
