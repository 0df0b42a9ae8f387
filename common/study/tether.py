"""`smg`, asked to stop (SIGTERM) when the process that started it dies, however it dies.

    python -m common.study.tether PARENT_PID ARGUMENTS...

A killed study must not leave a run behind that nobody watches. Linux does this; elsewhere the run goes on to
its end.
"""

import ctypes
import os
import runpy
import signal
import sys

_PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    parent, *arguments = sys.argv[1:]
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        # It may have died before it could be watched.
        if os.getppid() != int(parent):
            sys.exit(75)
    sys.argv[1:] = arguments
    runpy.run_module("common.cli", run_name="__main__")
