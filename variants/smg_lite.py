"""SMG whose models paint one frame of a stack for their losses, drawn for each batch."""

import torch
from torch import Tensor

from common.rl.batch import Batch
from smg.agent import SMG, SMGInputs, SMGSchedule


class LiteInputs(SMGInputs, total=False):
    """SMG's inputs and the frame that its models paint."""

    frame: Tensor  # int64, 0-d


class SMGLite(SMG):
    """SMG whose image losses, all of them means over frames, are estimated by one frame.

    τ_attrib(o) still takes the masks of all frames, for which no gradient is computed.
    """

    def prepare(self, batch: Batch, schedule: SMGSchedule) -> tuple[LiteInputs, SMGSchedule]:
        prepared, schedule = super().prepare(batch, schedule)
        inputs = LiteInputs(**prepared)
        if schedule.auxiliary:
            inputs["frame"] = torch.randint(self.config.env.frames, (), device=batch.obs.device)
        return inputs, schedule

    def frames_decoded(self, inputs: LiteInputs) -> Tensor:
        return inputs["frame"].view(1)
