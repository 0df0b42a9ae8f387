"""Where the time of a run goes."""

import time


class Clock:
    """Wall time by activity, from a clock that nobody sets."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.spent: dict[str, float] = {}
        self._logged = dict(self.spent), self.started

    def __call__(self, name: str) -> "_Timer":
        """A context whose duration is added to activity `name`."""
        return _Timer(self.spent, name)

    def total(self) -> float:
        """Seconds since the clock was made."""
        return time.perf_counter() - self.started

    def shares(self) -> dict[str, float]:
        """`time/<activity>`: each activity's share of the wall time since the last call."""
        before, then = self._logged
        now = time.perf_counter()
        self._logged = dict(self.spent), now
        passed = max(now - then, 1e-9)
        return {
            f"time/{name}": round((s - before.get(name, 0)) / passed, 4) for name, s in self.spent.items()
        }


class _Timer:
    def __init__(self, spent: dict[str, float], name: str) -> None:
        self.spent, self.name = spent, name

    def __enter__(self) -> None:
        self.started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.spent[self.name] = self.spent.get(self.name, 0.0) + time.perf_counter() - self.started
