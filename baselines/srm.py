"""SRM: spectrum random masking (Huang et al., NeurIPS 2022)."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from baselines.drq import DrQ
from common.config.schema import Probability, Section
from common.rl.augment import spectrum_mask
from common.rl.batch import Batch, Inputs, UpdateSchedule

# Of a band's lower limit and width, which the released code rounds.
DECIMALS = 2

Frequency = Annotated[float, Field(gt=0, le=0.5)]


class Settings(Section):
    """The `srm:` section; configs/agents/srm.yaml documents its keys."""

    probability: Probability
    highest_low: Frequency
    widest: Frequency


class SRM(DrQ):
    """DrQ whose critic and actor see observations without a random band of spatial frequencies."""

    SECTION = "srm"
    Settings = Settings

    settings: Settings

    def prepare(self, batch: Batch, schedule: UpdateSchedule) -> tuple[Inputs, UpdateSchedule]:
        inputs, schedule = super().prepare(batch, schedule)
        return inputs | {"obs": self.erase(inputs["obs"].float())}, schedule

    def erase(self, obs: Tensor) -> Tensor:
        """With the configured probability, one band out of all observations of the batch."""
        settings = self.settings
        chance, low, width = torch.rand(3).tolist()  # on the host: nothing waits for the device
        if chance >= settings.probability:
            return obs
        low = round(low * settings.highest_low, DECIMALS)
        return spectrum_mask(obs, low, low + round(width * settings.widest, DECIMALS))
