"""DrQ: data-regularised Q (Kostrikov, Yarats and Fergus, ICLR 2021), with K = M = 1."""

from common.rl.sac import SAC


class DrQ(SAC):
    """Soft actor-critic that learns from observations shifted at random by up to `shift` pixels.

    With one draw for the target (K) and one for Q (M), that is all it is: `SAC.prepare` shifts
    observation and next observation, each by draws of its own.
    """
