"""What would make an agent learn or keep less than its author meant, without a sign.

It is looked for when the agent is made, and at its first update that has all parts.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

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


@contextmanager
def moving(agent: Learner) -> Iterator[None]:
    """Make sure that what runs inside, an update with all parts and losses, moves all that should move.

    Raises:
        UserError: it never stepped an optimiser, or left a target network as it was.
    """
    before = {name: copy.deepcopy(network.state_dict()) for name, network in followers(agent).items()}
    yield
    kind = type(agent).__name__
    for name, optimizer in agent.optimizers.items():
        if not optimizer.state:
            raise UserError(
                f"{kind}: no part of an update steps the optimiser '{name}', so nothing in it learns: "
                f"minimise(loss, '{name}') does, which may name several"
            )
    for name, network in followers(agent).items():
        after = network.state_dict()
        if all(torch.equal(after[key], value) for key, value in before[name].items()):
            raise UserError(
                f"{kind}: an update leaves '{name}' as it was: let update_targets move it (polyak_update), "
                "or give the network a name that does not begin with target"
            )


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
    if type(agent).get_extra_state.__module__ != "common.rl.sac":
        raise UserError(
            f"{type(agent).__name__} overrides get_extra_state, which evaluation, explanation and export do "
            "not read: keep what must survive in buffers (register_buffer)"
        )


def check_single(what: str, value: object) -> None:
    """Make sure that a loss or metric is one number.

    Raises:
        UserError: it is not; the message begins with `what`.
    """
    if not isinstance(value, Tensor) or value.ndim > 0:
        found = f"of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
        raise UserError(f"{what} must be a tensor without dimensions; it is {found}")
