"""Values from the host on the training device."""

import torch
from torch import Tensor


def upload(values: Tensor, device: torch.device) -> Tensor:
    """Host values on the device, without waiting for what a GPU is doing: themselves on a CPU.

    Page-locking copies into the same strides, which fails where one number is seen as many, as in the
    parameters that Kornia expands; so such values are written out first.
    """
    if device.type != "cuda":
        return values
    return values.contiguous().pin_memory().to(device, non_blocking=True)
