"""Moving weights: Adam, memory layouts, moving averages."""

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from common.config.schema import Config
from common.errors import UserError
from common.rl.cuda_graphs import GRAPHS


def adam(config: Config, name: str, parameters: Iterable[nn.Parameter]) -> torch.optim.Adam:
    """Adam with the rates of `optim.<name>`.

    Raises:
        UserError: there are none.
    """
    known = [key for key in type(config.optim).model_fields if key != "fused"]
    if name not in known:
        raise UserError(
            f"optimized() names '{name}', but optim: has rates for {', '.join(known)}: put its weights there"
        )
    settings = getattr(config.optim, name)
    return torch.optim.Adam(
        parameters,
        lr=settings.lr,
        betas=(settings.beta1, 0.999),
        fused=config.optim.fused is True,
        capturable=config.compile in GRAPHS,
    )


def parameters_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """What an optimiser moves."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load what an optimiser remembers, but not its settings: those are the configuration's.

    A run may be resumed with another learning rate, another memory format, or on another device.
    """
    # Adam would go on in the given tensors themselves.
    state = copy.deepcopy(state)
    groups = zip(optimizer.param_groups, state["param_groups"], strict=True)
    state["param_groups"] = [own | {"params": saved["params"]} for own, saved in groups]
    optimizer.load_state_dict(state)
    for parameter, moments in optimizer.state.items():
        for name, moment in moments.items():
            if isinstance(moment, Tensor) and moment.shape == parameter.shape:
                moments[name] = laid_out_as(parameter, moment)


def laid_out_as(weight: Tensor, values: Tensor) -> Tensor:
    """The values in the weight's memory layout: themselves if they have it, else a copy."""
    if values.stride() == weight.stride() or values.layout != weight.layout:
        return values
    return torch.empty_like(weight, dtype=values.dtype, requires_grad=False).copy_(values)


def _match_layouts(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    """Before any optimiser's step: each gradient takes its weight's memory layout.

    Fused and foreach kernels walk raw memory. A gradient whose strides differ from its weight's, which
    `autograd.grad` and compiled backward passes may return, would move the wrong entries, on a CPU without
    a sign.
    """
    for parameter in parameters_of(optimizer):
        if parameter.grad is not None:
            parameter.grad = laid_out_as(parameter, parameter.grad)


# For every optimiser of the process, so that no agent's own can be without it.
register_optimizer_step_pre_hook(_match_layouts)


@torch.no_grad()
def polyak_update(target: nn.Module, source: nn.Module, rate: float) -> None:
    """Exponential moving average: each parameter moves the share `rate` of the way to its source's."""
    followers: list[Tensor] = list(target.parameters())
    leaders: list[Tensor] = list(source.parameters())
    torch._foreach_lerp_(followers, leaders, rate)  # pyright: ignore[reportPrivateImportUsage]
