"""SMG: separated models for generalization (Zhang et al., NeurIPS 2024)."""

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from common.config.schema import Config, Count, Positive, Probability, Section, Share
from common.rl import losses as sac_losses
from common.rl.augment import Augmentation, ImageSource, build_augmentation, compose
from common.rl.batch import Batch
from common.rl.cuda_graphs import Inputs, Metrics
from common.rl.frames import apart, stacked
from common.rl.networks import MLP
from common.rl.sac import SAC, Plan, report, values
from smg import losses
from smg.networks import BackgroundDecoder, BackgroundEncoder, Foreground, ForegroundDecoder


class Settings(Section):
    """The `smg:` section; configs/agents/smg.yaml documents its keys."""

    rho: Share
    attribution_probability: Probability
    mask_ratio_from_step: Count
    auxiliary_every: Positive


@dataclass(frozen=True)
class SMGPlan(Plan):
    """SAC's plan, whether the models learn, with which terms, and which τ was drawn for the batch."""

    models: bool
    mask_ratio: bool
    attribution: bool


@dataclass(frozen=True)
class Views:
    """What the models make of a batch, by the name of the view: obs, next_obs, augmented or composed."""

    latent: dict[str, Tensor]
    """z⁺ (B, latent)."""
    foreground: dict[str, Foreground]
    background: dict[str, Tensor]
    """o⁻ (B, F, 3, H, W)."""


class SMG(SAC):
    """SAC on the foreground encoder of two image models that split an observation by a mask."""

    LOSSES = (
        "bellman",
        "q_consistency",
        "reconstruction",
        "mask_ratio",
        "background",
        "empowerment",
        "foreground_consistency",
    )
    COMPILED = (*SAC.COMPILED, "compose", "see", "model_losses")
    SECTION = "smg"
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
        shape = (network.latent, env.frames, network.decoder_filters)
        self.foreground = self.add(ForegroundDecoder(*shape, 4, env.image_size), initialise_weights=False)
        self.background = self.add(BackgroundDecoder(*shape, 3, env.image_size), initialise_weights=False)
        # Both encoders start alike; what tells them apart is what they must paint.
        self.background_encoder = copy.deepcopy(BackgroundEncoder(self.critic.trunk, self.critic.projection))
        self.inverse_dynamics = self.add(
            MLP(2 * network.latent, network.hidden, action_size), initialise_weights=True
        )
        models = {
            "foreground": self.foreground,
            "background": self.background,
            "background_encoder": self.background_encoder,
            "inverse_dynamics": self.inverse_dynamics,
        }
        self.networks |= models
        parameters = list(self.critic.encoder().parameters())  # f⁺
        for model in models.values():
            parameters += model.parameters()
        self.optimizers["auxiliary"] = self.adam("auxiliary", parameters)
        self.coin = random.Random(config.seed)

    def plan(self, step: int) -> SMGPlan:
        base = super().plan(step)
        models = step % self.settings.auxiliary_every == 0
        return SMGPlan(
            base.actor,
            base.targets,
            models=models,
            mask_ratio=models and self.active("mask_ratio") and step >= self.settings.mask_ratio_from_step,
            attribution=self.mixture and self.coin.random() < self.settings.attribution_probability,
        )

    @property
    def mixture(self) -> bool:
        """Whether τ is overlay or attribution augmentation by chance, a draw per batch."""
        return self.config.augmentation == "mixture"

    def build_augmentation(self) -> Augmentation:
        """τ's overlay half for `mixture`; any other augmentation is τ as it stands."""
        if self.mixture:
            return build_augmentation("overlay", self.images, self.config.env.image_size)
        return super().build_augmentation()

    def prepare(self, batch: Batch, plan: SMGPlan) -> Inputs:
        inputs = super().prepare(batch, plan)
        if self.composes(plan):
            inputs["backdrop"] = self.images(len(batch.obs)).float()  # ε of τ_attrib
        if self.augments(plan) and not plan.attribution:
            inputs["augmented"] = self.augment(inputs["obs"])
        return inputs

    def augments(self, plan: SMGPlan) -> bool:
        """Whether a loss of this step reads τ(o)."""
        return self.active("q_consistency") or (plan.models and self.active("foreground_consistency"))

    def composes(self, plan: SMGPlan) -> bool:
        """Whether a loss of this step reads τ_attrib(o)."""
        return (plan.attribution and self.augments(plan)) or (plan.models and self.active("background"))

    def step(self, inputs: Inputs, plan: SMGPlan) -> Metrics:
        """Critic, actor, targets, separated models (section 3 of the paper)."""
        inputs = self.completed(inputs, plan)
        metrics = super().step(inputs, plan)
        if plan.models:
            metrics |= self.update_models(inputs, plan)
        return metrics

    def completed(self, inputs: Inputs, plan: SMGPlan) -> Inputs:
        """The inputs with the views that the current mask composes."""
        if self.composes(plan):
            inputs = inputs | {"composed": self.compose(inputs["obs"], inputs["backdrop"])}  # τ_attrib(o)
        if plan.attribution and self.augments(plan):
            inputs = inputs | {"augmented": inputs["composed"]}  # τ(o)
        return inputs

    def critic_losses(self, inputs: Inputs) -> tuple[dict[str, Tensor], Metrics]:
        """Bellman loss on o; on τ(o), consistency with Q(o) alone (poster eq. 5)."""
        target = self.target_q(inputs)
        obs, action = inputs["obs"], inputs["action"]
        terms = {}
        if self.active("q_consistency"):
            q, q_augmented = self.critic.of_two(obs, inputs["augmented"], action)
            terms["q_consistency"] = losses.q_consistency(q_augmented, q)
        else:
            q = self.critic(obs, action)
        terms["bellman"] = sac_losses.bellman(q, target)
        return terms, values(q, target)

    def update_models(self, inputs: Inputs, plan: SMGPlan) -> Metrics:
        """One step on the weighted sum of the image and action terms, encoders included."""
        views = self.see(inputs)
        terms = self.model_losses(views, inputs, plan)
        metrics = report(terms)
        if views.foreground:
            metrics["models/mask_mean"] = views.foreground["obs"].mask.detach().mean()
        if terms:
            norm = self.minimise(self.weighted(terms), "auxiliary", clip=self.config.optim.auxiliary.clip)
            if norm is not None:
                metrics["models/gradient_norm"] = norm
        return metrics

    def see(self, inputs: Inputs) -> Views:
        """z⁺ of o and all else that the active terms read, each network run once on all its views."""
        reconstruction, background = self.active("reconstruction"), self.active("background")
        consistency = self.active("foreground_consistency")

        asked = ["obs"] + ["next_obs"] * self.active("empowerment") + ["augmented"] * consistency
        latents = apply_together(self.critic.encode, {name: inputs[name] for name in asked})  # z⁺
        painted = ["obs"] * (reconstruction or consistency or self.active("mask_ratio"))
        painted += ["augmented"] * consistency
        foreground = {}
        if painted:
            batch = len(inputs["obs"])
            image, mask = self.foreground.images(torch.cat([latents[name] for name in painted]))
            pairs = map(Foreground, image.split(batch), mask.split(batch))
            foreground = dict(zip(painted, pairs, strict=True))

        asked = ["obs"] * reconstruction + ["composed"] * background
        backgrounds = {}
        if asked:
            encode, paint = self.background_encoder, self.background.images
            backgrounds = apply_together(
                lambda *views: paint(encode(*views)), {name: inputs[name] for name in asked}
            )
        return Views(latents, foreground, backgrounds)

    def model_losses(self, views: Views, inputs: Inputs, plan: SMGPlan) -> dict[str, Tensor]:
        """The separated models' terms, each computed only if it has a weight."""
        terms = {}
        if self.active("reconstruction"):
            reconstructed = losses.reconstruct(*views.foreground["obs"], views.background["obs"])
            terms["reconstruction"] = losses.reconstruction(reconstructed, apart(inputs["obs"].float()))
        if plan.mask_ratio:
            terms["mask_ratio"] = losses.mask_ratio(views.foreground["obs"].mask, self.settings.rho)
        if self.active("background"):
            terms["background"] = losses.background(views.background["composed"], inputs["backdrop"])
        if self.active("empowerment"):
            ends = torch.cat([views.latent["obs"], views.latent["next_obs"]], 1)
            terms["empowerment"] = losses.empowerment(self.inverse_dynamics(ends), inputs["action"])
        if self.active("foreground_consistency"):
            plain, augmented = (losses.attribution(*views.foreground[name]) for name in ("obs", "augmented"))
            terms["foreground_consistency"] = losses.foreground_consistency(augmented, plain)
        return terms

    @torch.no_grad()
    def compose(self, obs: Tensor, backdrop: Tensor) -> Tensor:
        """τ_attrib(o) = o ⊙ M + ε ⊙ (1 − M), with the current networks' soft mask, detached."""
        mask = self.foreground.images(self.critic.encode(obs)).mask
        return compose(obs, mask.squeeze(2), backdrop)

    def encoder_losses(self, inputs: Inputs, plan: SMGPlan) -> dict[str, Tensor]:
        inputs = self.completed(inputs, plan)
        terms = super().encoder_losses(inputs, plan)
        return terms | (self.model_losses(self.see(inputs), inputs, plan) if plan.models else {})

    def mask_shares(self) -> dict[str, float]:
        return {"models/mask_mean": self.settings.rho}

    def explain(self, obs: Tensor, action: Tensor) -> dict[str, Tensor]:
        """SAC's, and what the two models see in uint8 observations (N, 3F, H, W).

        Returns:
            mask (N, F, H, W) in (0, 1); foreground o⁺ ⊙ M, background o⁻ and reconstruction o',
            (N, 3F, H, W), 0–255.
        """
        with torch.no_grad():
            foreground = self.foreground.images(self.critic.encode(obs))
            background = self.background.images(self.background_encoder(obs))
        return super().explain(obs, action) | {
            "mask": foreground.mask.squeeze(2),
            "foreground": stacked(losses.attribution(*foreground)),
            "background": stacked(background),
            "reconstruction": stacked(losses.reconstruct(*foreground, background)),
        }

    def state_dict(self) -> dict[str, Any]:
        version, words, gauss = self.coin.getstate()
        return super().state_dict() | {"coin": [version, list(words), gauss]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        version, words, gauss = state["coin"]
        self.coin.setstate((version, tuple(words), gauss))


def apply_together(network: Callable[..., Tensor], views: dict[str, Tensor]) -> dict[str, Tensor]:
    """Run a network on several views of a batch in one pass: name → its rows of the output."""
    outputs = network(*views.values())
    return dict(zip(views, outputs.chunk(len(views)), strict=True))
