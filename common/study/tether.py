"""Starts a command that is asked to stop (SIGTERM) when the process that started it dies, however it dies.

    python -m common.study.tether PARENT_PID COMMAND...

A killed study must not leave a run behind that nobody watches. Linux does this; elsewhere the command just
runs on until its own end.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    """Become the command, tied to the parent's life."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        # It may have died before it could be watched.
        if os.getppid() != parent:
            sys.exit(75)
    os.execv(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
