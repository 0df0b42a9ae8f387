"""The same updates written without any care for speed, as the yardstick of the fast ones.

float32, NCHW, one forward pass per use of a network, images upsampled before they are convolved,
attributions before and after the critic's step on every step. The fixtures of the released
implementations hold for these agents as they do for the project's own (tests/benchmarks/test_plain.py).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from common.rl import losses as sac_losses
from common.rl.attribution import frame_attribution, guided_gradient
from common.rl.batch import Inputs, Metrics, UpdateSchedule
from common.rl.frames import apart
from common.rl.networks import Decoder, FrameDecoder, UpsampledConvolution
from common.rl.sac import SAC
from sgqn import losses as sgqn_losses
from sgqn.agent import SGQN, SGQNInputs
from smg import losses as smg_losses
from smg.agent import SMG, SMGInputs, SMGSchedule

SWITCHES = ("amp=off", "channels_last=false", "compile=eager", "tf32=false", "optim.fused=false")
"""Overrides that a plain agent is configured with."""


class PlainSAC(SAC):
    """SAC whose actor update encodes the observation once for the policy and once for the critic."""

    def actor_losses(self, inputs: Inputs) -> tuple[dict[str, Tensor], Metrics]:
        mean, log_std = self.actor(self.critic.trunk(inputs["obs"]).detach())
        action, log_pi = sac_losses.squashed_gaussian(mean, log_std, inputs["noise_obs"])
        latent = self.critic.projection(self.critic.trunk(inputs["obs"]).detach())
        alpha = self.log_alpha.exp()
        return {
            "policy": sac_losses.policy(alpha, log_pi, self.critic.heads(latent, action)),
            "temperature": sac_losses.temperature(alpha, log_pi, -self.action_size),
        }, {}


class PlainSGQN(SGQN):
    """SGQN with three masks and two attributions on every step, each by sorting whole frames."""

    actor_losses = PlainSAC.actor_losses

    def update_critic(self, inputs: SGQNInputs) -> Metrics:
        metrics = super().update_critic(inputs)
        self.attribution_after = self.attribution(inputs)
        self.mask(self.attribution_after)
        return metrics

    def critic_losses(self, inputs: SGQNInputs) -> tuple[dict[str, Tensor], Metrics]:
        target = self.target_q(inputs)
        obs, action = inputs["obs"], inputs["action"]
        salient = sgqn_losses.masked(obs.float(), self.mask(self.attribution(inputs)), inputs["fill"])
        q = self.critic(obs, action)
        return {
            "bellman": sac_losses.bellman(q, target),
            "consistency": sgqn_losses.consistency(q, self.critic(salient, action)),
        }, {}

    def auxiliary_losses(
        self, inputs: SGQNInputs, schedule: UpdateSchedule
    ) -> tuple[dict[str, Tensor], Metrics]:
        logits = plain_decode(
            self.predictor, torch.cat([self.critic.encode(inputs["augmented"]), inputs["action"]], 1)
        )
        return {"self_supervised": sgqn_losses.self_supervised(logits, self.mask(self.attribution_after))}, {}

    def attribution(self, inputs: SGQNInputs) -> Tensor:
        """Guided backpropagation to each frame, (B, F, H, W)."""
        return frame_attribution(guided_gradient(self.critic, inputs["obs"], inputs["action"]))

    def mask(self, attribution: Tensor) -> Tensor:
        """The saliency mask by `torch.quantile`."""
        threshold = torch.quantile(attribution.flatten(2), float(self.settings.quantile), dim=2)
        return attribution >= threshold[..., None, None]


class PlainSMG(SMG):
    """SMG that encodes and decodes anew for every term, and composes τ_attrib(o) on every step."""

    actor_losses = PlainSAC.actor_losses

    def views_read(self, schedule: SMGSchedule) -> set[str]:
        return super().views_read(schedule) | {"composed"}

    def critic_losses(self, inputs: Inputs) -> tuple[dict[str, Tensor], Metrics]:
        target = self.target_q(inputs)
        q = self.critic(inputs["obs"], inputs["action"])
        q_augmented = self.critic(inputs["augmented"], inputs["action"])
        return {
            "bellman": sac_losses.bellman(q, target),
            "q_consistency": smg_losses.q_consistency(q_augmented, q),
        }, {}

    def auxiliary_losses(self, inputs: SMGInputs, schedule: SMGSchedule) -> tuple[dict[str, Tensor], Metrics]:
        obs, action = inputs["obs"].float(), inputs["action"]
        terms = {}
        latents = torch.cat([self.critic.encode(obs), self.critic.encode(inputs["next_obs"])], 1)
        terms["empowerment"] = smg_losses.empowerment(self.inverse_dynamics(latents), action)
        reconstructed = smg_losses.reconstruct(*self.paint(obs), self.paint_background(obs))
        terms["reconstruction"] = smg_losses.reconstruction(reconstructed, apart(obs))
        if schedule.mask_ratio:
            terms["mask_ratio"] = smg_losses.mask_ratio(self.paint(obs)[1], float(self.settings.rho))
        painted = self.paint_background(inputs["composed"])
        terms["background"] = smg_losses.background(painted, apart(inputs["backdrop"]))
        terms["foreground_consistency"] = smg_losses.foreground_consistency(
            smg_losses.attended(*self.paint(inputs["augmented"])), smg_losses.attended(*self.paint(obs))
        )
        return terms, {}

    def paint(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """o⁺ (B, F, 3, H, W) and M (B, F, 1, H, W)."""
        channels = plain_frames(self.foreground, self.critic.encode(obs)).sigmoid()
        return 255 * channels[:, :, :3], channels[:, :, 3:]

    def paint_background(self, obs: Tensor) -> Tensor:
        """o⁻ (B, F, 3, H, W)."""
        return 255 * plain_frames(self.background, self.background_encoder(obs)).sigmoid()


def plain_frames(model: FrameDecoder, latent: Tensor) -> Tensor:
    """A frame decoder's output, (B, F, channels, H, W)."""
    frames = F.relu(model.head(latent)).view(-1, model.latent)
    return plain_decode(model.decoder, frames).unflatten(0, (len(latent), -1))


def plain_decode(decoder: Decoder, latent: Tensor) -> Tensor:
    """A decoder's output with every upsampled image built."""
    image = F.relu(decoder.conv0(F.relu(decoder.linear(latent)).unflatten(1, decoder.shape)))
    image = F.relu(upsampled_and_convolved(image, decoder.conv1))
    return upsampled_and_convolved(image, decoder.conv2)


def upsampled_and_convolved(image: Tensor, convolution: UpsampledConvolution) -> Tensor:
    """What the convolution computes, with the upsampled image built."""
    upsampled = F.interpolate(image, scale_factor=2, mode="nearest")
    return F.conv2d(upsampled, convolution.weight, convolution.bias, padding=1)


PLAIN: dict[str, type[SAC]] = {"sac": PlainSAC, "sgqn": PlainSGQN, "smg": PlainSMG}
PLANS: dict[str, tuple[UpdateSchedule, UpdateSchedule]] = {
    "sac": (UpdateSchedule(False, False), UpdateSchedule(True, True)),
    "sgqn": (UpdateSchedule(False, False, False), UpdateSchedule(True, True, True)),
    "smg": (SMGSchedule(False, False, False), SMGSchedule(True, True, True)),
}
"""A critic-only and a full step of each agent."""
