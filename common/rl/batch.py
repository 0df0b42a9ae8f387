"""What an update learns from."""

from dataclasses import dataclass, fields

from torch import Tensor


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
