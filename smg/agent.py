"""SMG: separated models for generalization (Zhang et al., NeurIPS 2024)."""

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from common.config.schema import Count, Positive, Probability, Section, Share
from common.errors import UserError
from common.rl import losses as sac_losses
from common.rl.augment import Augmentation, build_augmentation, compose
from common.rl.batch import Batch, Inputs, Metrics, UpdateSchedule
from common.rl.frames import apart, chosen, stacked
from common.rl.networks import MLP, orthogonal
from common.rl.sac import ACTORS_OWN, SAC, q_metrics
from smg import losses
from smg.networks import BackgroundDecoder, BackgroundEncoder, Foreground, ForegroundDecoder


class Settings(Section):
    """The `smg:` section; configs/agents/smg.yaml documents its keys."""

    rho: Share
    attribution_probability: Probability
    mask_ratio_from_step: Count
    auxiliary_every: Positive


class SMGInputs(Inputs, total=False):
    """SAC's inputs and SMG's views of the batch."""

    backdrop: Tensor  # ε (B, 3, H, W), 0-255; (B, 3F, H, W) where it differs from frame to frame
    composed: Tensor  # τ_attrib(obs) (B, 3F, H, W), 0-255


@dataclass(frozen=True)
class SMGSchedule(UpdateSchedule):
    """SAC's schedule, whether the mask's ratio counts yet, and which τ was drawn for the batch."""

    mask_ratio: bool = True
    attribution: bool = False
    """τ is the attribution augmentation; otherwise it is what `augmentation:` names, or overlay."""


class Reads(NamedTuple):
    """The views of a batch that a loss reads, by what is made of them.

    The views are obs, next_obs, which random shift moves by another draw, augmented (τ(obs)) and composed
    (τ_attrib(obs)).
    """

    q: tuple[str, ...] = ()
    """Those that critic or actor is asked about; `critic_losses` or `actor_losses` computes the term."""
    latent: tuple[str, ...] = ()
    foreground: tuple[str, ...] = ()
    background: tuple[str, ...] = ()


@dataclass(frozen=True)
class Decoded:
    """What the models make of a batch, by the name of the view."""

    latent: dict[str, Tensor]
    """z⁺ (B, latent)."""
    foreground: dict[str, Foreground]
    """`.image`, o⁺ (B, F, 3, H, W), 0–255, and `.mask`, M (B, F, 1, H, W) in (0, 1)."""
    background: dict[str, Tensor]
    """o⁻ (B, F, 3, H, W), 0–255."""


def of_the_models(losses: Iterable[str], reads: dict[str, Reads]) -> tuple[str, ...]:
    """The losses that the separated models learn from: those that ask neither critic nor actor."""
    return tuple(name for name in losses if name in reads and not reads[name].q)


class SMG(SAC):
    """SAC on the foreground encoder of two image models that split an observation by a mask."""

    READS: ClassVar[dict[str, Reads]] = {
        "q_consistency": Reads(q=("obs", "augmented")),
        "reconstruction": Reads(foreground=("obs",), background=("obs",)),
        "mask_ratio": Reads(foreground=("obs",)),
        "background": Reads(background=("composed",)),
        "empowerment": Reads(latent=("obs", "next_obs")),
        "foreground_consistency": Reads(foreground=("obs", "augmented")),
    }
    """What each loss reads: a row for all but `bellman`, and one for `policy` if the actor reads more than o.

    A loss of the separated models, whose row has no `q`, is computed by the method `<name>_loss`.
    """
    LOSSES = ("bellman", *READS)
    AUXILIARY = of_the_models(LOSSES, READS)
    AUGMENTS = True
    DRAWS_IMAGES = True
    COMPILED = (*SAC.COMPILED, "compose", "decode", "auxiliary_terms")
    SECTION = "smg"
    Settings = Settings
    settings: Settings

    def __init_subclass__(cls) -> None:
        """A variant's rows and losses decide what its models learn from.

        Raises:
            UserError: a loss has no row, or no method computes it.
        """
        super().__init_subclass__()
        cls.AUXILIARY = of_the_models(cls.LOSSES, cls.READS)
        for name in cls.LOSSES:
            if name != "bellman" and name not in cls.READS:
                raise UserError(
                    f"{cls.__name__}: READS has no row for the loss '{name}', so it would read nothing"
                )
        for name in cls.AUXILIARY:
            if not hasattr(cls, f"{name}_loss"):
                raise UserError(f"{cls.__name__}: no method {name}_loss computes the loss '{name}'")

    def build(self) -> None:
        super().build()
        env, network = self.config.env, self.config.network
        shape = (network.latent, env.frames, network.decoder_filters)
        self.foreground = ForegroundDecoder(*shape, 4, env.image_size)
        self.background = BackgroundDecoder(*shape, 3, env.image_size)
        # Both encoders start alike; what tells them apart is what they must paint.
        self.background_encoder = copy.deepcopy(BackgroundEncoder(self.critic.trunk, self.critic.projection))
        self.inverse_dynamics = orthogonal(MLP(2 * network.latent, network.hidden, self.action_size))

    def optimized(self) -> dict[str, Iterable[nn.Parameter]]:
        """SAC's, and f⁺ with the models: both the critic's losses and the models' move f⁺."""
        models = (self.foreground, self.background, self.background_encoder, self.inverse_dynamics)
        learnt = nn.ModuleList([self.critic.encoder(), *models])
        return super().optimized() | {"auxiliary": learnt.parameters()}

    def build_augmentation(self) -> Augmentation:
        """τ's overlay half for `mixture`; any other augmentation is τ as it stands."""
        if self.mixture:
            return build_augmentation("overlay", self.backdrops, self.config.env.image_size)
        return super().build_augmentation()

    @property
    def mixture(self) -> bool:
        """Whether τ is overlay or attribution augmentation by chance, a draw per batch."""
        return self.config.augmentation == "mixture"

    # What is random, and when

    def schedule(self, step: int) -> SMGSchedule:
        base = super().schedule(step)
        counts = step >= self.settings.mask_ratio_from_step
        schedule = SMGSchedule(base.actor, base.targets, base.auxiliary, mask_ratio=counts)
        return replace(schedule, auxiliary=base.auxiliary and bool(self.terms(schedule)))

    def prepare(self, batch: Batch, schedule: SMGSchedule) -> tuple[SMGInputs, SMGSchedule]:
        prepared, _ = super().prepare(batch, schedule)
        inputs = SMGInputs(**prepared)
        if self.mixture:
            (chance,) = torch.rand(1).tolist()  # on the host: nothing waits for the device
            schedule = replace(schedule, attribution=chance < self.settings.attribution_probability)
        views = self.views_read(schedule)
        if "composed" in views:
            inputs["backdrop"] = self.backdrops(len(batch.obs)).float()  # ε of τ_attrib
        if "augmented" in views and not schedule.attribution:
            inputs["augmented"] = self.augment(inputs["obs"])
        return inputs, schedule

    def terms(self, schedule: SMGSchedule) -> list[str]:
        """The auxiliary losses that this update computes."""
        waiting = () if schedule.mask_ratio else ("mask_ratio",)
        return [name for name in super().terms(schedule) if name not in waiting]

    def reading(self, schedule: SMGSchedule) -> list[str]:
        """The rows of `READS` that this update reads by."""
        asking = [name for name in self.LOSSES if name not in self.AUXILIARY and self.active(name)]
        rows = [*asking, *ACTORS_OWN * schedule.actor, *self.terms(schedule) * schedule.auxiliary]
        return [name for name in rows if name in self.READS]

    def views_read(self, schedule: SMGSchedule) -> set[str]:
        """The views that some loss of this update reads."""
        views = {view for name in self.reading(schedule) for made in self.READS[name] for view in made}
        return views | {"composed"} if schedule.attribution and "augmented" in views else views

    # Learning

    def step(self, inputs: SMGInputs, schedule: SMGSchedule) -> Metrics:
        """Compose the views with the current mask, then critic, actor, targets, models (section 3)."""
        return super().step(self.with_all_views(inputs, schedule), schedule)

    def with_all_views(self, inputs: SMGInputs, schedule: SMGSchedule) -> SMGInputs:
        """What `with_views` returns.

        Raises:
            UserError: a view that `READS` names is not there.
        """
        inputs = self.with_views(inputs, schedule)
        for view in self.views_read(schedule) - inputs.keys():
            raise UserError(
                f"{type(self).__name__}: READS names the view '{view}', which is none of obs, next_obs, "
                "augmented and composed, and which neither prepare nor with_views returns"
            )
        return inputs

    def with_views(self, inputs: SMGInputs, schedule: SMGSchedule) -> SMGInputs:
        """The inputs and the views that the mask composes as it is before the critic's step."""
        views = self.views_read(schedule)
        if "composed" in views:
            inputs = inputs | {"composed": self.compose(inputs["obs"], inputs["backdrop"])}  # τ_attrib(o)
        if "augmented" in views and schedule.attribution:
            inputs = inputs | {"augmented": inputs["composed"]}  # τ(o)
        return inputs

    @torch.no_grad()
    def compose(self, obs: Tensor, backdrop: Tensor) -> Tensor:
        """τ_attrib(o) = o ⊙ M + ε ⊙ (1 − M), with the current networks' soft mask, detached."""
        return compose(obs, self.mask(obs), backdrop)

    @torch.no_grad()
    def mask(self, obs: Tensor) -> Tensor:
        """M (N, F, H, W) in (0, 1) of observations (N, 3F, H, W), 0–255."""
        return self.foreground.images(self.critic.encode(obs)).mask.squeeze(2)

    def critic_losses(self, inputs: SMGInputs) -> tuple[dict[str, Tensor], Metrics]:
        """Bellman loss on o; on τ(o), consistency with Q(o) alone (poster eq. 5)."""
        target = self.target_q(inputs)
        obs, action = inputs["obs"], inputs["action"]
        terms = {}
        if self.active("q_consistency"):
            q, q_augmented = self.critic.q_of_two(obs, inputs["augmented"], action)
            terms["q_consistency"] = losses.q_consistency(q_augmented, q)
        else:
            q = self.critic(obs, action)
        terms["bellman"] = sac_losses.bellman(q, target)
        return terms, q_metrics(q, target)

    def auxiliary_losses(self, inputs: SMGInputs, schedule: SMGSchedule) -> tuple[dict[str, Tensor], Metrics]:
        """The separated models' terms: decode each view once, then every loss on what it reads."""
        decoded = self.decode(inputs, schedule)
        terms = self.auxiliary_terms(decoded, inputs, schedule)
        seen = decoded.foreground.get("obs")
        return terms, {} if seen is None else {"models/mask_mean": seen.mask.detach().mean()}

    def decode(self, inputs: SMGInputs, schedule: SMGSchedule) -> Decoded:
        """All that the terms of this update read, each network run once on all its views."""
        reads = [self.READS[name] for name in self.terms(schedule)]
        frames = self.frames_decoded(inputs)
        painted = distinct(each.foreground for each in reads)
        latents = together(self.critic.encode, inputs, distinct([*(each.latent for each in reads), painted]))
        foreground = {}
        if painted:
            batch = len(inputs["obs"])
            image, mask = self.foreground.images(torch.cat([latents[view] for view in painted]), frames)
            pairs = map(Foreground, image.split(batch), mask.split(batch))
            foreground = dict(zip(painted, pairs, strict=True))
        background = together(
            lambda *views: self.background.images(self.background_encoder(*views), frames),
            inputs,
            distinct(each.background for each in reads),
        )
        return Decoded(latents, foreground, background)

    def frames_decoded(self, inputs: SMGInputs) -> Tensor | None:
        """Numbers (k,) of the frames of a stack that the models paint for their losses; None for all."""
        return None

    def auxiliary_terms(
        self, decoded: Decoded, inputs: SMGInputs, schedule: SMGSchedule
    ) -> dict[str, Tensor]:
        """Each term of this update, by its method."""
        return {name: getattr(self, f"{name}_loss")(decoded, inputs) for name in self.terms(schedule)}

    def reconstruction_loss(self, decoded: Decoded, inputs: SMGInputs) -> Tensor:
        reconstructed = losses.reconstruct(*decoded.foreground["obs"], decoded.background["obs"])
        obs = chosen(apart(inputs["obs"]), self.frames_decoded(inputs))
        return losses.reconstruction(reconstructed, obs.to(reconstructed.dtype))

    def mask_ratio_loss(self, decoded: Decoded, inputs: SMGInputs) -> Tensor:
        return losses.mask_ratio(decoded.foreground["obs"].mask, float(self.settings.rho))

    def background_loss(self, decoded: Decoded, inputs: SMGInputs) -> Tensor:
        backdrop = chosen(apart(inputs["backdrop"]), self.frames_decoded(inputs))
        return losses.background(decoded.background["composed"], backdrop)

    def empowerment_loss(self, decoded: Decoded, inputs: SMGInputs) -> Tensor:
        ends = torch.cat([decoded.latent["obs"], decoded.latent["next_obs"]], 1)
        return losses.empowerment(self.inverse_dynamics(ends), inputs["action"])

    def foreground_consistency_loss(self, decoded: Decoded, inputs: SMGInputs) -> Tensor:
        plain, augmented = (losses.attended(*decoded.foreground[view]) for view in ("obs", "augmented"))
        return losses.foreground_consistency(augmented, plain)

    # Looking inside

    def encoder_losses(self, inputs: SMGInputs, schedule: SMGSchedule) -> dict[str, Tensor]:
        return super().encoder_losses(self.with_all_views(inputs, schedule), schedule)

    def mask_shares(self) -> dict[str, float]:
        return {"models/mask_mean": float(self.settings.rho)}

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
            "foreground": stacked(losses.attended(*foreground)),
            "background": stacked(background),
            "reconstruction": stacked(losses.reconstruct(*foreground, background)),
        }


def together(network: Callable[..., Tensor], inputs: SMGInputs, views: list[str]) -> dict[str, Tensor]:
    """Run a network on several views of a batch in one pass: name → its rows of the output."""
    if not views:
        return {}
    outputs = network(*(inputs[view] for view in views))
    return dict(zip(views, outputs.chunk(len(views)), strict=True))


def distinct(groups: Iterable[Iterable[str]]) -> list[str]:
    """The members of all groups, each once, in order."""
    return list(dict.fromkeys(view for group in groups for view in group))
