"""How far a run has come."""

from dataclasses import dataclass, field

from common.run.records import Record


@dataclass
class Progress:
    """All that a run counts. A checkpoint holds it as it is."""

    step: int = 0
    """Agent steps done."""
    action: list[float] | None = None
    """What was chosen for the next step, if its updates were interrupted."""
    updates: int = 0
    """Updates done for the next step."""
    burst_done: bool = False
    """Whether the burst of updates that ends the random steps is over."""
    learn_from: int = 0
    """The step that updates wait for, because a resume emptied the replay: by then it has filled anew."""
    episode: Record = field(default_factory=lambda: {"episode": 0, "return": 0.0, "length": 0})
    """The current episode's number, the rewards of its steps so far, and their number."""
    evaluated: int = 0
    """The step of the last evaluation."""
    seconds: float = 0.0
    """What the run has taken, all sessions together."""
    seconds_each: dict[str, float] = field(default_factory=dict)
    """What one of each kind of work took lately; see `common.run.forecast`."""

    @property
    def learnt(self) -> bool:
        """Whether there has been an update or an evaluation."""
        return self.burst_done or self.updates > 0 or self.evaluated > 0

    def updates_from(self, random_steps: int) -> int:
        """The agent step from which there are updates, or from which there are again after a refill."""
        return max(random_steps, self.learn_from)
