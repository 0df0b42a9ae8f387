"""The program of a process that holds environments for another.

Run as `python -m common.envs.worker CONNECTION FRAMES`, two inherited file descriptors. It imports neither
torch nor the program that started it.
"""

import os
import signal
import sys
import traceback
from multiprocessing.connection import Connection

from common.envs.host import Host, shared_observations
from common.errors import UserError

STOPPING = (
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGXCPU,
)
"""Signals by which schedulers and terminals end a job, of which some go to all of its processes."""


def serve(connection: Connection, frames: int) -> None:
    """Make environments and answer requests until the other side of `connection` closes or dies.

    Observations go through the memory behind file descriptor `frames`; everything else is pickled. The
    first message holds the environments' arguments; each other one a Host method's name and argument.
    """
    host: Host | None = None
    while True:
        try:
            request = connection.recv()
        except (EOFError, ConnectionResetError):
            return
        try:
            if host is None:
                host = Host(request)
                os.ftruncate(frames, host.observations.nbytes)
                host.observations = shared_observations(frames, host.shapes)
                reply = ("result", host.shapes)
            else:
                method, argument = request
                reply = ("result", getattr(host, method)(*argument))
        except UserError as error:
            reply = ("user error", str(error))
        except Exception as error:
            reply = ("error", (f"{type(error).__name__}: {error}", traceback.format_exc()))
        try:
            connection.send(reply)
        except (BrokenPipeError, ConnectionResetError):
            return


if __name__ == "__main__":
    # Whoever stops the run tells the process at the other end, which still needs this one to save its state.
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    serve(Connection(int(sys.argv[1])), int(sys.argv[2]))
    # The system frees the rendering contexts faster and more quietly than their destructors.
    os._exit(0)
