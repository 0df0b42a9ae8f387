"""What would make an agent learn or keep less than its author meant, without a sign.

It is looked for when the agent is made, and at its first update that has all parts.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import nn

from common.errors import UserError
from common.rl.optim import parameters_of


class Learner(Protocol):
    """What is looked at of an agent."""

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        """By name."""
        ...

    @property
    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """By name."""
        ...


class Soundness:
    """Watches an agent until one update had all its parts and moved all that should move."""

    def __init__(self) -> None:
        self.seen = False

    @contextmanager
    def watching(self, agent: Learner, whole: bool) -> Iterator[None]:
        """Look at what an update moves, if it has all parts and losses and none that had was seen yet.

        Raises:
            UserError: it never stepped an optimiser, or left a target network as it was.
        """
        if self.seen or not whole:
            yield
            return
        before = {name: copy.deepcopy(network.state_dict()) for name, network in followers(agent).items()}
        yield
        name = type(agent).__name__
        for optimizer in (each for each, found in agent.optimizers.items() if not found.state):
            raise UserError(
                f"{name}: no part of an update steps the optimiser '{optimizer}', so nothing in it learns: "
                f"minimise(loss, '{optimizer}') does, which may name several"
            )
        for network, found in followers(agent).items():
            after = found.state_dict()
            if all(torch.equal(after[key], value) for key, value in before[network].items()):
                raise UserError(
                    f"{name}: an update leaves '{network}' as it was: let update_targets move it "
                    "(polyak_update), or give the network a name that does not begin with target"
                )
        self.seen = True


def followers(agent: Learner) -> dict[str, nn.Module]:
    """The networks whose name says that they follow others, and that no optimiser moves."""
    return {
        name: network
        for name, network in agent.networks.items()
        if name.startswith("target") and not any(each.requires_grad for each in network.parameters())
    }


def check(agent: nn.Module, optimizers: Mapping[str, torch.optim.Optimizer]) -> None:
    """Make sure that every weight learns unless it is frozen, and that all that is kept can be found.

    Raises:
        UserError: one does not, or something is kept where only a resumed run would look.
    """
    moved = {id(weight) for each in optimizers.values() for weight in parameters_of(each)}
    for name, weight in agent.named_parameters():
        if weight.requires_grad and id(weight) not in moved:
            raise UserError(
                f"no optimiser moves {type(agent).__name__}'s weight '{name}': put its network into "
                "optimized(), or freeze it with requires_grad_(False)"
            )
    for each in type(agent).__mro__:
        own = "get_extra_state" in vars(each)
        if own and each.__module__ not in ("common.rl.sac", nn.Module.__module__):
            raise UserError(
                f"{each.__name__} overrides get_extra_state, which evaluation, explanation and export do not "
                "read: keep what must survive in buffers (register_buffer)"
            )
