"""SMG whose policy learns from τ(o) as well, as SADA's does (Almuzairee, Hansen and Christensen, 2024)."""

from baselines.sada import AugmentedActor
from smg.agent import SMG, Reads


class SMGSADA(AugmentedActor, SMG):
    """SMG's critic and models, SADA's actor: it sees o and τ(o), and its actions are valued at o."""

    READS = SMG.READS | {"policy": Reads(q=("obs", "augmented"))}
