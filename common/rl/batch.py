"""What an update is given, and what it gives back."""

from dataclasses import dataclass, fields
from typing import TypedDict

from torch import Tensor

Metrics = dict[str, Tensor]
"""Detached 0-d tensors by name."""


@dataclass(frozen=True)
class Batch:
    """Transitions sampled from a replay. obs and next_obs may share memory: write to neither."""

    obs: Tensor  # uint8 (B, 3 * frames, H, W), oldest frame first
    action: Tensor  # float32 (B, A)
    reward: Tensor  # float32 (B, 1)
    next_obs: Tensor  # uint8 (B, 3 * frames, H, W)
    not_done: Tensor  # float32 (B, 1): 0 only where the task itself ended; a time limit does not end it

    def split(self, count: int) -> tuple["Batch", "Batch"]:
        """The first `count` transitions and the others, as views."""
        values = [getattr(self, field.name) for field in fields(self)]
        return Batch(*(value[:count] for value in values)), Batch(*(value[count:] for value in values))


class Inputs(TypedDict, total=False):
    """All that one update computes with, its random draws included: tensors whose shapes the schedule fixes.

    The first dimension counts samples; a value without dimensions belongs to the whole batch. Agents add
    keys of their own by extending this.
    """

    obs: Tensor  # (B, 3F, H, W), 0-255, shifted
    action: Tensor  # (B, A) in [-1, 1]
    reward: Tensor  # (B, 1)
    next_obs: Tensor  # (B, 3F, H, W), 0-255, shifted by draws of its own
    not_done: Tensor  # (B, 1)
    noise_next: Tensor  # (B, A), the policy's standard normal draw at next_obs
    noise_obs: Tensor  # (B, A), and at obs; in updates of the actor
    augmented: Tensor  # (B, 3F, H, W), τ(obs); where a loss reads it


@dataclass(frozen=True)
class UpdateSchedule:
    """Which parts an update runs. With fixed shapes, it names one tensor program."""

    actor: bool
    """Actor and temperature."""
    targets: bool
    auxiliary: bool = False
    """The agent's auxiliary losses."""
