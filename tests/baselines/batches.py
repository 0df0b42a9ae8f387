"""Random batches, where windows of an image come from, and what a network was shown."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.rl.batch import Batch


def random_batch(count: int, size: int) -> Batch:
    """Transitions of noise, so that every window of an observation is unlike every other."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (2, count, 9, size, size), dtype=torch.uint8, generator=generator)
    return Batch(
        obs=pixels[0],
        action=torch.rand(count, 3, generator=generator) * 2 - 1,
        reward=torch.rand(count, 1, generator=generator),
        next_obs=pixels[1],
        not_done=torch.ones(count, 1),
    )


def places(windows: Tensor, images: Tensor, border: int = 0) -> list[tuple[int, int]]:
    """Row and column where each sample of `windows` lies in its image, whose edge pixels go on for `border`.

    A window that is none of its image is an error.
    """
    found = []
    for window, image in zip(windows.numpy(), images.numpy(), strict=True):
        whole = np.pad(image, ((0, 0), (border, border), (border, border)), mode="edge")
        size = window.shape[-1]
        found += [
            (row, column)
            for row in range(whole.shape[1] - size + 1)
            for column in range(whole.shape[2] - size + 1)
            if np.array_equal(whole[:, row : row + size, column : column + size], window)
        ][:1]
    assert len(found) == len(windows), "not every window was found in its image"
    return found


@contextmanager
def shown_to(network: torch.nn.Module) -> Iterator[list[Tensor]]:
    """Collects what a network is given, in order, as one batch per call."""
    shown: list[Tensor] = []

    def note(_: torch.nn.Module, views: tuple[Any, ...]) -> None:
        shown.append(torch.cat([view.float() for view in views]))

    hook = network.register_forward_pre_hook(note)
    try:
        yield shown
    finally:
        hook.remove()
