"""NumPy random states: saved in plain types, and derived from integers."""

from typing import Any

import numpy as np


def random_state_dict(random: np.random.RandomState) -> dict[str, Any]:
    """A RandomState's state in plain types."""
    state = random.get_state(legacy=False)
    return {
        "key": state["state"]["key"].astype(np.int64),
        "position": int(state["state"]["pos"]),
        "has_gauss": int(state["has_gauss"]),
        "gauss": float(state["gauss"]),
    }


def load_random_state_dict(random: np.random.RandomState, state: dict[str, Any]) -> None:
    """Put `random` where `random_state_dict` was taken."""
    key = np.asarray(state["key"]).astype(np.uint32)
    random.set_state(("MT19937", key, state["position"], state["has_gauss"], state["gauss"]))


def derived(*words: int) -> np.random.RandomState:
    """A RandomState that is a function of non-negative integers alone, independent for different ones."""
    return np.random.RandomState(np.random.MT19937(np.random.SeedSequence(words)))
