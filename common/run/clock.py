"""Where the time of a run goes."""

import time
from collections.abc import Callable


class Clock:
    """Seconds by activity, from a clock that nobody sets.

    Args:
        now: what is counted, in seconds; wall time unless another clock is given.
        before: seconds that had passed already.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter, before: float = 0.0) -> None:
        self.now = now
        self.started = now()
        self.before = before
        self.spent: dict[str, float] = {}
        self._logged = dict(self.spent), self.started

    def __call__(self, name: str) -> "_Timer":
        """A context whose duration is added to activity `name`."""
        return _Timer(self, name)

    def total(self) -> float:
        """Seconds since the clock was made, and those before."""
        return self.before + self.now() - self.started

    def shares(self) -> dict[str, float]:
        """`time/<activity>`: each activity's share of the time since the last call."""
        before, then = self._logged
        now = self.now()
        self._logged = dict(self.spent), now
        passed = max(now - then, 1e-9)
        return {
            f"time/{name}": round((s - before.get(name, 0)) / passed, 4) for name, s in self.spent.items()
        }


class _Timer:
    def __init__(self, clock: Clock, name: str) -> None:
        self.clock, self.name = clock, name

    def __enter__(self) -> None:
        self.started = self.clock.now()

    def __exit__(self, *_: object) -> None:
        spent = self.clock.spent
        spent[self.name] = spent.get(self.name, 0.0) + self.clock.now() - self.started
