"""What one run's agent can show of observations, by the names of the columns that show it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from common.errors import UserError
from common.explain import attributions
from common.rl.attribution import frame_attribution, guided_gradient, saliency_mask
from common.rl.augment import compose
from common.rl.sac import SAC

ATTRIBUTIONS: dict[str, Callable[..., Tensor]] = {
    "attribution": guided_gradient,
    "gradient": attributions.vanilla_gradient,
    "guided_gradcam": attributions.guided_gradcam,
    "occlusion": attributions.occlusion,
}
"""Attributions of Q₁ that every agent offers, by column; `attribution` is guided backpropagation."""
SEEN = ("observation", "truth")
"""Columns that are the environment's."""
QUANTILE = 0.95
"""Of the column `binarised`, where no run has a quantile of SGQN's."""


@dataclass(frozen=True)
class Explanation:
    """What an agent made of N observations; names are those of columns."""

    obs: Tensor
    """uint8 (N, 3F, H, W), what the policy saw."""
    truth: Tensor
    """bool (N, H, W), the true foreground of the newest frame."""
    action: Tensor
    """(N, A)."""
    q: np.ndarray
    """Q₁ (N,)."""
    attributions: dict[str, Tensor]
    """(N, F, H, W), at least 0."""
    masks: dict[str, Tensor]
    """(N, F, H, W) in [0, 1]."""
    images: dict[str, Tensor]
    """(N, 3F, H, W), 0–255."""


class Explainer:
    """Fills columns for one agent.

    What `agent.explain` returns becomes a column of the same name: (N, F, H, W) a mask in [0, 1],
    (N, 3F, H, W) an image, 0–255. An agent with a `mask` also offers `augmented`, what τ_attrib makes of
    the observation with one overlay image.

    Args:
        label: names the run beside others.
        agent: offers `explain`, `act`, `view` and a `critic` with `first_q`.
        quantile: of `binarised`, the attribution's largest values.
        backdrop: ε of `augmented`, (1, 3, H, W), 0–255.
    """

    def __init__(self, label: str, agent: SAC, quantile: float, backdrop: Tensor) -> None:
        self.label = label
        self.agent = agent
        self.quantile = quantile
        self.backdrop = backdrop.to(agent.device).float()
        env = agent.config.env
        blank = torch.zeros(1, 3 * env.frames, env.image_size, env.image_size, dtype=torch.uint8)
        own = agent.explain(blank.to(agent.device), torch.zeros(1, agent.action_size, device=agent.device))
        self.own = tuple(name for name in own if name not in ATTRIBUTIONS)
        if "mask" in own:
            self.own += ("augmented",)

    @property
    def offered(self) -> tuple[str, ...]:
        """Every column it can fill."""
        return (*SEEN, *ATTRIBUTIONS, "binarised", *self.own)

    @property
    def usual(self) -> tuple[str, ...]:
        """The columns of a sheet of this agent alone."""
        return (*SEEN, "attribution", *self.own) if self.own else self.offered

    @property
    def sketch(self) -> tuple[str, ...]:
        """The columns of a sheet of this agent that cost no more than one pass of each network."""
        return (*SEEN, "attribution", *(self.own or ("binarised",)))

    def check(self, columns: Sequence[str]) -> None:
        """Raise UserError unless it can fill all of them."""
        for name in columns:
            if name not in self.offered:
                raise UserError(
                    f"{self.label} cannot show '{name}'; --methods can be {', '.join(self.offered)}"
                )

    def explain(self, obs: np.ndarray, truth: np.ndarray, columns: Sequence[str]) -> Explanation:
        """Everything that the columns need, and all that the agent's own `explain` gives.

        Args:
            obs: rendered observations, uint8 (N, 3F, H, W).
            truth: bool (N, H, W).
            columns: names out of `offered`.
        """
        agent = self.agent
        seen = agent.policy_input(torch.from_numpy(obs).to(agent.device))
        action = agent.act(seen, sample=False)
        own = agent.explain(seen, action)
        found = {
            name: frame_attribution(own[name] if name in own else attribute(agent.critic, seen, action))
            for name, attribute in ATTRIBUTIONS.items()
            if name in columns or name == "attribution"
        }
        masks = self._masks(own) | {"binarised": saliency_mask(found["attribution"], self.quantile)}
        images = {name: value for name, value in own.items() if name not in found and name not in masks}
        if "mask" in own:
            backdrop = self.backdrop.expand(len(seen), -1, -1, -1)
            images["augmented"] = compose(seen, own["mask"].float(), backdrop)
        return Explanation(
            obs=seen.cpu(),
            truth=agent.policy_input(torch.from_numpy(truth)[:, None])[:, 0],
            action=action,
            q=self.q(seen, action),
            attributions={name: value.cpu() for name, value in found.items()},
            masks={name: value.float().cpu() for name, value in masks.items()},
            images={name: value.float().cpu() for name, value in images.items()},
        )

    def masks(self, obs: np.ndarray, action: Tensor) -> dict[str, Tensor]:
        """The masks (N, F, H, W) alone, of other observations with the same actions."""
        seen = self.agent.policy_input(torch.from_numpy(obs).to(self.agent.device))
        own = self.agent.explain(seen, action)
        attribution = (
            own["attribution"] if "attribution" in own else guided_gradient(self.agent.critic, seen, action)
        )
        binarised = saliency_mask(frame_attribution(attribution), self.quantile)
        return {
            name: value.float().cpu() for name, value in (self._masks(own) | {"binarised": binarised}).items()
        }

    @torch.no_grad()
    def q(self, obs: Tensor, action: Tensor) -> np.ndarray:
        """Q₁ (N,) of observations (N, 3F, H, W), 0–255."""
        device = self.agent.device
        return self.agent.critic.first_q(obs.to(device), action.to(device))[:, 0].float().cpu().numpy()

    def _masks(self, own: dict[str, Tensor]) -> dict[str, Tensor]:
        frames = self.agent.config.env.frames
        return {name: value for name, value in own.items() if value.shape[1] == frames}
