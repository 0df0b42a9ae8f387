"""SGQN: saliency-guided Q-networks (Bertoin, Zouitine, Zouitine and Rachelson, NeurIPS 2022)."""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from common.config.schema import Config, Positive, Section, Share
from common.rl import losses as sac_losses
from common.rl.attribution import frame_attribution, guided_gradient, saliency_mask
from common.rl.augment import ImageSource
from common.rl.batch import Batch
from common.rl.cuda_graphs import Inputs, Metrics
from common.rl.frames import apart
from common.rl.networks import Decoder
from common.rl.sac import SAC, AuxiliaryPlan, report, values
from sgqn import losses


class Settings(Section):
    """The `sgqn:` section; configs/agents/sgqn.yaml documents its keys."""

    quantile: Share
    fill: Annotated[float, Field(ge=0, le=255)] | Literal["random"]
    auxiliary_every: Positive


class SGQN(SAC):
    """SAC whose critic must value the salient pixels alone as it values the whole, and predict them."""

    LOSSES = ("bellman", "consistency", "self_supervised")
    COMPILED = (*SAC.COMPILED, "predict_saliency")
    SECTION = "sgqn"
    Settings = Settings

    def __init__(
        self,
        config: Config,
        action_size: int,
        images: ImageSource,
        device: str | torch.device = "cpu",
    ) -> None:
        super().__init__(config, action_size, images, device)
        env, network = config.env, config.network
        self.predictor = self.add(
            Decoder(network.latent + action_size, network.decoder_filters, 3 * env.frames, env.image_size),
            initialise_weights=False,
        )
        self.networks["predictor"] = self.predictor
        encoder = self.critic.encoder().parameters()
        self.optimizers["auxiliary"] = self.adam("auxiliary", [*encoder, *self.predictor.parameters()])

    def plan(self, step: int) -> AuxiliaryPlan:
        base = super().plan(step)
        auxiliary = self.active("self_supervised") and step % self.settings.auxiliary_every == 0
        return AuxiliaryPlan(base.actor, base.targets, auxiliary)

    def prepare(self, batch: Batch, plan: AuxiliaryPlan) -> Inputs:
        inputs = super().prepare(batch, plan)
        if self.active("consistency"):
            inputs["fill"] = self.fill(inputs["obs"])
        if plan.auxiliary:
            inputs["augmented"] = self.augment(inputs["obs"])  # τ(s)
        return inputs

    def fill(self, obs: Tensor) -> Tensor:
        """The value (0-d) that replaces the pixels outside the mask."""
        if self.settings.fill != "random":
            return torch.full((), self.settings.fill, device=obs.device)
        low, high = (bound.float() for bound in obs.aminmax())
        return low + torch.rand((), device=obs.device) * (high - low)

    def step(self, inputs: Inputs, plan: AuxiliaryPlan) -> Metrics:
        """Critic with consistency, actor, targets, then self-supervised saliency (algorithm 1)."""
        metrics = super().step(inputs, plan)
        if plan.auxiliary:
            metrics |= self.update_saliency(inputs)
        return metrics

    def critic_losses(self, inputs: Inputs) -> tuple[dict[str, Tensor], Metrics]:
        """Bellman loss and consistency of Q between the observation and its salient pixels (eq. 3)."""
        target = self.target_q(inputs)
        obs, action = inputs["obs"], inputs["action"]
        terms = {}
        if self.active("consistency"):
            salient = losses.masked(obs.float(), self.saliency(obs, action), inputs["fill"])
            q, q_salient = self.critic.of_two(obs, salient, action)
            terms["consistency"] = losses.consistency(q, q_salient)
        else:
            q = self.critic(obs, action)
        terms["bellman"] = sac_losses.bellman(q, target)
        return terms, values(q, target)

    def update_saliency(self, inputs: Inputs) -> Metrics:
        """Move predictor and encoder towards the saliency of the critic as its step left it."""
        terms, diagnostics = self.saliency_losses(inputs)
        self.minimise(self.weighted(terms), "auxiliary", clip=self.config.optim.auxiliary.clip)
        return report(terms) | diagnostics

    def saliency_losses(self, inputs: Inputs) -> tuple[dict[str, Tensor], Metrics]:
        """Predict, from the augmented observation, the mask of the plain one (eq. 4)."""
        mask = self.saliency(inputs["obs"], inputs["action"])
        logits = self.predict_saliency(inputs["augmented"], inputs["action"])
        terms = {"self_supervised": losses.self_supervised(logits, mask)}
        return terms, {"saliency/predicted_mean": logits.detach().sigmoid().mean()}

    def saliency(self, obs: Tensor, action: Tensor) -> Tensor:
        """M_ρ(Q₁, s, a): bool (B, F, H, W), from guided backpropagation through the current critic."""
        attribution = frame_attribution(guided_gradient(self.critic, obs, action))
        return saliency_mask(attribution, self.settings.quantile)

    def predict_saliency(self, obs: Tensor, action: Tensor) -> Tensor:
        """M_θ(f(s), a): the predicted mask's logits (B, 3F, H, W)."""
        return self.predictor(torch.cat([self.critic.encode(obs), action], 1))

    def encoder_losses(self, inputs: Inputs, plan: AuxiliaryPlan) -> dict[str, Tensor]:
        terms = super().encoder_losses(inputs, plan)
        return terms | (self.saliency_losses(inputs)[0] if plan.auxiliary else {})

    def mask_shares(self) -> dict[str, float]:
        return {"saliency/predicted_mean": 1 - self.settings.quantile}

    def explain(self, obs: Tensor, action: Tensor) -> dict[str, Tensor]:
        """SAC's, and the saliency that SGQN learns with.

        Returns:
            saliency (N, F, H, W) bool; salient, the masked observation (N, 3F, H, W), 0–255; predicted, the
            predicted mask's probabilities, (N, F, H, W), mean over a frame's colours.
        """
        explanation = super().explain(obs, action)
        mask = saliency_mask(frame_attribution(explanation["attribution"]), self.settings.quantile)
        with torch.no_grad():
            predicted = apart(self.uncompiled().predict_saliency(obs, action).sigmoid()).mean(2)
        black = torch.zeros((), device=obs.device)
        salient = losses.masked(obs.float(), mask, black)
        return explanation | {"saliency": mask, "salient": salient, "predicted": predicted}
