"""SVEA: stabilised Q-value estimation under augmentation (Hansen, Su and Wang, NeurIPS 2021)."""

from torch import Tensor

from baselines.drq import DrQ
from common.rl import losses
from common.rl.batch import Batch
from common.rl.cuda_graphs import Inputs, Metrics
from common.rl.sac import Plan, values


class SVEA(DrQ):
    """DrQ whose critic also learns from τ(o), towards the very target of o.

    The target comes from the next observation without τ, and the policy learns from o alone: strong
    augmentation raises the variance of both.
    """

    LOSSES: tuple[str, ...] = ("bellman", "augmented_bellman")

    def prepare(self, batch: Batch, plan: Plan) -> Inputs:
        inputs = super().prepare(batch, plan)
        if self.active("augmented_bellman"):
            inputs["augmented"] = self.augment(inputs["obs"])  # τ(o)
        return inputs

    def critic_losses(self, inputs: Inputs) -> tuple[dict[str, Tensor], Metrics]:
        """Bellman loss of o, weight α, and of τ(o), weight β, to one target."""
        if not self.active("augmented_bellman"):
            return super().critic_losses(inputs)
        target = self.target_q(inputs)
        q, q_augmented = self.critic.of_two(inputs["obs"], inputs["augmented"], inputs["action"])
        terms = {
            "bellman": losses.bellman(q, target),
            "augmented_bellman": losses.bellman(q_augmented, target),
        }
        return terms, values(q, target)
