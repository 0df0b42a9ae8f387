"""RAD: reinforcement learning with augmented data (Laskin et al., NeurIPS 2020), with random crops."""

from dataclasses import replace

import torch
from torch import Tensor

from common.rl.augment import crop
from common.rl.batch import Batch, Inputs, UpdateSchedule
from common.rl.sac import SAC


class RAD(SAC):
    """Soft actor-critic that learns from random crops of larger frames and acts on their centre."""

    CROPS = True

    def prepare(self, batch: Batch, schedule: UpdateSchedule) -> tuple[Inputs, UpdateSchedule]:
        """SAC's inputs of cropped observations, obs and next_obs each with crops of their own."""
        cropped = replace(batch, obs=self.random_crop(batch.obs), next_obs=self.random_crop(batch.next_obs))
        return super().prepare(cropped, schedule)

    def random_crop(self, rendered: Tensor) -> Tensor:
        """A window of `env.image_size` pixels, anywhere in each sample, the same in its stacked frames."""
        size = self.config.env.image_size
        places = rendered.shape[-1] - size + 1
        top, left = torch.randint(places, (2, len(rendered)), device=rendered.device)
        return crop(rendered, top, left, size)

    def policy_input(self, obs: Tensor) -> Tensor:
        """The window in the middle: what the policy sees when it acts and is evaluated."""
        size = self.config.env.image_size
        margin = (obs.shape[-1] - size) // 2
        return obs[..., margin : margin + size, margin : margin + size]
