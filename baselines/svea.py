"""SVEA: stabilised Q-value estimation under augmentation (Hansen, Su and Wang, NeurIPS 2021)."""

from torch import Tensor

from baselines.drq import DrQ
from common.rl import losses
from common.rl.batch import Batch, Inputs, Metrics, UpdateSchedule
from common.rl.sac import q_metrics


class SVEA(DrQ):
    """DrQ whose critic also learns from τ(o), towards the very target of o.

    The target comes from the next observation without τ, and the policy learns from o alone: strong
    augmentation raises the variance of both.
    """

    LOSSES: tuple[str, ...] = ("bellman", "augmented_bellman")
    AUGMENTS = True

    def prepare(self, batch: Batch, schedule: UpdateSchedule) -> tuple[Inputs, UpdateSchedule]:
        inputs, schedule = super().prepare(batch, schedule)
        if self.active("augmented_bellman"):
            inputs["augmented"] = self.augment(inputs["obs"])  # τ(o)
        return inputs, schedule

    def critic_losses(self, inputs: Inputs) -> tuple[dict[str, Tensor], Metrics]:
        """Bellman loss of o, weight α, and of τ(o), weight β, to one target."""
        if not self.active("augmented_bellman"):
            return super().critic_losses(inputs)
        target = self.target_q(inputs)
        q, q_augmented = self.critic.q_of_two(inputs["obs"], inputs["augmented"], inputs["action"])
        terms = {
            "bellman": losses.bellman(q, target),
            "augmented_bellman": losses.bellman(q_augmented, target),
        }
        return terms, q_metrics(q, target)
