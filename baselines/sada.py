"""SADA: stabilised actor-critic under data augmentation (Almuzairee, Hansen and Christensen, 2024)."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.svea import SVEA
from common.config.schema import Section
from common.rl.batch import Batch, Inputs, Metrics, UpdateSchedule
from common.rl.networks import Activation, Trunk
from common.rl.sac import SAC


class Settings(Section):
    """The `sada:` section; configs/agents/sada.yaml documents its keys."""

    encoder: Literal["shared", "released"]


class SADAInputs(Inputs, total=False):
    """SAC's inputs and the policy's draw at τ(obs)."""

    noise_augmented: Tensor  # (B, A)


class AugmentedActor(SAC):
    """SAC whose policy learns from o and from τ(o), and whose actions are valued at o in both cases."""

    def prepare(self, batch: Batch, schedule: UpdateSchedule) -> tuple[SADAInputs, UpdateSchedule]:
        prepared, schedule = super().prepare(batch, schedule)
        inputs = SADAInputs(**prepared)
        if schedule.actor:
            inputs["noise_augmented"] = torch.randn_like(batch.action)
        return inputs, schedule

    def actor_losses(self, inputs: SADAInputs) -> tuple[dict[str, Tensor], Metrics]:
        """Means over both halves of α·log π(a|·) − min Q(o, a), and of the temperature's loss."""
        obs = inputs["obs"]
        with torch.no_grad():
            features = self.critic.trunk(obs, inputs["augmented"])
            latent = self.critic.projection(features[: len(obs)])
        noise = torch.cat([inputs["noise_obs"], inputs["noise_augmented"]])
        return self.policy_losses(features, torch.cat([latent, latent]), noise)


class SADA(AugmentedActor, SVEA):
    """SVEA whose policy learns from τ(o) as well: strong augmentation of what the value is asked at is what
    would destabilise it."""

    SECTION = "sada"
    Settings = Settings
    settings: Settings

    def new_trunk(self) -> Trunk:
        if self.settings.encoder == "shared":
            return super().new_trunk()
        env, network = self.config.env, self.config.network
        return CentredTrunk(3 * env.frames, network.filters, network.strides, env.image_size)

    def target_rates(self) -> dict[str, float]:
        """SAC's; in the released code the projection belongs to the Q heads."""
        rates = super().target_rates()
        return rates | {"projection": rates["q1"]} if self.settings.encoder == "released" else rates

    def prepare(self, batch: Batch, schedule: UpdateSchedule) -> tuple[SADAInputs, UpdateSchedule]:
        inputs, schedule = super().prepare(batch, schedule)
        if schedule.actor and "augmented" not in inputs:  # the critic's loss of τ(o) is off
            inputs["augmented"] = self.augment(inputs["obs"])
        return inputs, schedule


class CentredTrunk(Trunk):
    """The released encoder: pixels in −0.5 to 0.5, and a ReLU after the last convolution too."""

    def forward(self, *views: Tensor, relu: Activation = F.relu) -> Tensor:
        return relu(super().forward(*(view - 255 / 2 for view in views), relu=relu))
