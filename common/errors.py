"""The one exception a user is meant to see, and how it suggests a remedy."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user gave cannot work.

    The text is one line that names the thing and the remedy; the command line prints it and exits
    with status 2.
    """

    def __init__(self, message: str) -> None:
        # What it quotes of the user's may hold line breaks.
        super().__init__(" ".join(message.splitlines()))


class CorruptFile(UserError):
    """A file of a run is damaged, truncated or not the one that was saved."""


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """The end of an error message about an unknown `name`: the nearest valid name, else all of them."""
    names = list(valid)
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if nearest:
        return f"did you mean '{nearest[0]}'?"
    return f"choose from {', '.join(names)}"
