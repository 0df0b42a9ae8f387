"""How PyTorch's threads wait for each other on a CPU; to be chosen before PyTorch is loaded."""

import os
import sys

SPIN_COUNT = "GOMP_SPINCOUNT"
SPINS = 10_000
"""Times that an idle thread asks for work before it sleeps; libgomp's own default is 300,000."""
CHOSEN_BY_USER = (SPIN_COUNT, "OMP_WAIT_POLICY")


def be_a_good_neighbour() -> None:
    """Let this process's idle threads, and those of its children, sleep soon instead of taking a core.

    libgomp, the OpenMP that PyTorch's Linux builds bring, reads the variable when it is loaded with PyTorch.
    With its own default, threads spin for milliseconds wherever one of them has to wait for a core that
    another process uses. A variable that the user set stays as it is. No number depends on it.
    """
    if "torch" not in sys.modules and not any(name in os.environ for name in CHOSEN_BY_USER):
        os.environ[SPIN_COUNT] = str(SPINS)
