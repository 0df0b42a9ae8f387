"""SGQN: saliency-guided Q-networks (Bertoin, Zouitine, Zouitine and Rachelson, NeurIPS 2022)."""

from collections.abc import Iterable
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from common.config.schema import Positive, Section, Share
from common.rl import losses as sac_losses
from common.rl.attribution import frame_attribution, guided_gradient, saliency_mask
from common.rl.batch import Batch, Inputs, Metrics, UpdateSchedule
from common.rl.frames import apart
from common.rl.networks import Decoder
from common.rl.sac import SAC, q_metrics
from sgqn import losses


class Settings(Section):
    """The `sgqn:` section; configs/agents/sgqn.yaml documents its keys."""

    quantile: Share
    fill: Annotated[float, Field(ge=0, le=255)] | Literal["random"]
    auxiliary_every: Positive


class SGQNInputs(Inputs, total=False):
    """SAC's inputs and SGQN's."""

    fill: Tensor  # 0-d, what replaces the pixels outside the mask, 0-255


class SGQN(SAC):
    """SAC whose critic must value the salient pixels alone as it values the whole, and predict them."""

    LOSSES = ("bellman", "consistency", "self_supervised")
    AUXILIARY = ("self_supervised",)
    AUGMENTS = True
    COMPILED = (*SAC.COMPILED, "predict_saliency")
    SECTION = "sgqn"
    Settings = Settings
    settings: Settings

    def build(self) -> None:
        super().build()
        env, network = self.config.env, self.config.network
        size = network.latent + self.action_size
        self.predictor = Decoder(size, network.decoder_filters, 3 * env.frames, env.image_size)

    def optimized(self) -> dict[str, Iterable[nn.Parameter]]:
        """SAC's, and encoder with predictor: the self-supervised loss moves both."""
        learnt = nn.ModuleList([self.critic.encoder(), self.predictor])
        return super().optimized() | {"auxiliary": learnt.parameters()}

    def prepare(self, batch: Batch, schedule: UpdateSchedule) -> tuple[SGQNInputs, UpdateSchedule]:
        prepared, schedule = super().prepare(batch, schedule)
        inputs = SGQNInputs(**prepared)
        if self.active("consistency"):
            inputs["fill"] = self.fill(inputs["obs"])
        if schedule.auxiliary:
            inputs["augmented"] = self.augment(inputs["obs"])  # τ(s)
        return inputs, schedule

    def fill(self, obs: Tensor) -> Tensor:
        """The value (0-d) that replaces the pixels outside the mask."""
        if self.settings.fill != "random":
            return torch.full((), self.settings.fill, device=obs.device)
        low, high = (bound.float() for bound in obs.aminmax())
        return low + torch.rand((), device=obs.device) * (high - low)

    def critic_losses(self, inputs: SGQNInputs) -> tuple[dict[str, Tensor], Metrics]:
        """Bellman loss and consistency of Q between the observation and its salient pixels (eq. 3)."""
        target = self.target_q(inputs)
        obs, action = inputs["obs"], inputs["action"]
        terms = {}
        if self.active("consistency"):
            salient = losses.masked(obs.float(), self.saliency(obs, action), inputs["fill"])
            q, q_salient = self.critic.q_of_two(obs, salient, action)
            terms["consistency"] = losses.consistency(q, q_salient)
        else:
            q = self.critic(obs, action)
        terms["bellman"] = sac_losses.bellman(q, target)
        return terms, q_metrics(q, target)

    def auxiliary_losses(
        self, inputs: SGQNInputs, schedule: UpdateSchedule
    ) -> tuple[dict[str, Tensor], Metrics]:
        """Predict, from the augmented observation, the saliency mask of the plain one (eq. 4).

        The mask is that of the critic as its own step left it (algorithm 1).
        """
        mask = self.saliency(inputs["obs"], inputs["action"])
        logits = self.predict_saliency(inputs["augmented"], inputs["action"])
        terms = {"self_supervised": losses.self_supervised(logits, mask)}
        return terms, {"saliency/predicted_mean": logits.detach().sigmoid().mean()}

    def saliency(self, obs: Tensor, action: Tensor) -> Tensor:
        """M_ρ(Q₁, s, a): bool (B, F, H, W), from guided backpropagation through the current critic."""
        attribution = frame_attribution(guided_gradient(self.critic, obs, action))
        return saliency_mask(attribution, float(self.settings.quantile))

    def predict_saliency(self, obs: Tensor, action: Tensor) -> Tensor:
        """M_θ(f(s), a): the predicted mask's logits (B, 3F, H, W)."""
        return self.predictor(torch.cat([self.critic.encode(obs), action], 1))

    def mask_shares(self) -> dict[str, float]:
        return {"saliency/predicted_mean": 1 - float(self.settings.quantile)}

    def explain(self, obs: Tensor, action: Tensor) -> dict[str, Tensor]:
        """SAC's, and the saliency that SGQN learns with.

        Returns:
            saliency (N, F, H, W) bool; salient, the masked observation (N, 3F, H, W), 0–255; predicted, the
            predicted mask's probabilities, (N, F, H, W), mean over a frame's colours.
        """
        explanation = super().explain(obs, action)
        mask = saliency_mask(frame_attribution(explanation["attribution"]), float(self.settings.quantile))
        with torch.no_grad():
            predicted = apart(self.uncompiled().predict_saliency(obs, action).sigmoid()).mean(2)
        black = torch.zeros((), device=obs.device)
        salient = losses.masked(obs.float(), mask, black)
        return explanation | {"saliency": mask, "salient": salient, "predicted": predicted}
