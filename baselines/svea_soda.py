"""SVEA and SODA together, as in SGQN's table 8."""

from baselines.soda import SODA
from baselines.svea import SVEA


class SVEASODA(SVEA, SODA):
    """SVEA's critic and SODA's auxiliary task, on SODA's random crops and with one τ for both."""

    LOSSES = ("bellman", "augmented_bellman", "latent_consistency")
