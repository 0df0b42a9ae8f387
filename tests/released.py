"""Numbers that the papers' released implementations give on fixed inputs, and this project's agents for them.

tests/fixtures/*.npz hold a batch, weights, and what the released code makes of them: losses, gradients
and parameter changes. `agent` loads those weights into an agent of the same size.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from common.config.loading import load
from common.config.registry import agent_class
from common.run.device import resolve_auto

NEGLIGIBLE = 1e-7  # gradient that the fixtures' tolerances ignore
FIXTURES = Path(__file__).parent / "fixtures"
SIZES = [
    "network.filters=8",
    "network.strides=[2,1,1,1,1,1,1,1,1,1,1]",
    "network.latent=16",
    "network.hidden=32",
    "network.decoder_filters=[32,128,64]",
    "network.log_std=[-10,2]",
    "train.batch=4",
    "env.image_size=84",
    "amp=off",
    "device=cpu",
    "compile=eager",
]


def numbers(name: str) -> dict[str, np.ndarray]:
    """A fixture file's arrays by key; those that equal sac.npz's are stored there alone."""
    with np.load(FIXTURES / f"{name}.npz") as file:
        stored = dict(file)
    shared = stored.pop("from_sac", np.array([])).tolist()
    if shared:
        with np.load(FIXTURES / "sac.npz") as file:
            stored |= {key: file[key] for key in shared}
    return stored


def tensor(array: np.ndarray) -> Tensor:
    """A fixture array as a tensor; scalars become 0-d float32."""
    return torch.from_numpy(np.asarray(array, dtype=None if array.ndim else np.float32))


def small(name: str, *overrides: str) -> Any:
    """An agent of the fixtures' size with weights of its own; overlay images are black."""
    config = resolve_auto(load(name, "walker_walk", "smoke", overrides=[*SIZES, *overrides]))
    black = torch.zeros(1, 3, 84, 84, device=config.device)
    return agent_class(name)(config, 3, lambda count: black.expand(count, -1, -1, -1), config.device)


def agent(name: str, stored: dict[str, np.ndarray], *overrides: str) -> Any:
    """A small agent with the fixture's weights."""
    built = small(name, *overrides)
    names = {key.removeprefix("weights/") for key in stored if key.startswith("weights/")}
    # The released SODA averages its predictor too, but nothing reads the average.
    names = {name for name in names if not name.startswith("soda_target.predictor")}
    loaded = set()
    for key, parameter, part in parameters(built):
        with torch.no_grad():
            parameter[part].copy_(tensor(stored[f"weights/{key}"]))
        loaded.add(key)
    assert loaded == names, f"the agent and the fixture disagree on {loaded ^ names}"
    return built


def in_precision(agent: Any, precision: torch.dtype) -> None:
    """All that the agent learns in another precision, before its first update."""
    agent.to(precision)


def parameters(agent: Any) -> Iterator[tuple[str, Tensor, Any]]:
    """(the fixture's name, the agent's parameter, the part of it that has this name)."""
    whole = (Ellipsis,)
    yield from ((f"trunk.{key}", p, whole) for key, p in _trunk(agent.critic.trunk))
    yield from _named("critic.projection", agent.critic.projection)
    yield from _named("q1", agent.critic.q1)
    yield from _named("q2", agent.critic.q2)
    yield from _named("actor", agent.actor)
    yield from ((f"target.trunk.{key}", p, whole) for key, p in _trunk(agent.target.trunk))
    for part in ("projection", "q1", "q2"):
        yield from _named(f"target.{part}", getattr(agent.target, part))
    yield "log_alpha", agent.log_alpha, whole
    if hasattr(agent, "predict_saliency"):
        yield from _named("attribution_decoder", agent.predictor)
    if hasattr(agent, "target_projection"):
        yield from _named("soda.projection", agent.projection)
        yield from _named("soda.predictor", agent.predictor)
        yield from ((f"soda_target.trunk.{key}", p, whole) for key, p in _trunk(agent.target_trunk))
        yield from _named("soda_target.projection", agent.target_projection)
    if hasattr(agent, "inverse_dynamics"):
        yield from _named("inverse_dynamics", agent.inverse_dynamics)
        encoder = agent.background_encoder
        yield from ((f"background.trunk.{key}", p, whole) for key, p in _trunk(encoder.trunk))
        yield from _named("background.projection", encoder.projection)
        for branch in ("foreground", "background"):
            model = getattr(agent, branch)
            yield from _named(f"{branch}.head", model.head)
            for key, parameter, part in _named(f"{branch}.decoder", model.decoder):
                if ".conv2." not in key:
                    yield key, parameter, part
                    continue
                yield key.replace("conv2", "rgb"), parameter, (slice(0, 3),)
                if branch == "foreground":
                    yield key.replace("conv2", "mask"), parameter, (slice(3, 4),)


def _trunk(trunk: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return ((name.replace("convolutions.", "conv"), p) for name, p in trunk.named_parameters())


def _named(prefix: str, module: nn.Module) -> Iterator[tuple[str, Tensor, Any]]:
    return ((f"{prefix}.{name}", p, (Ellipsis,)) for name, p in module.named_parameters())


def assert_gradients(
    agent: Any, loss: Tensor, stored: dict[str, np.ndarray], name: str, tolerance: float = 1e-4
) -> None:
    """The loss's gradient equals the fixture's in norm and first entries, and reaches the same parameters."""
    entries = [entry for entry in parameters(agent) if entry[1].requires_grad]
    unique = list({id(parameter): parameter for _, parameter, _ in entries}.values())
    gradients = torch.autograd.grad(loss, unique, allow_unused=True, retain_graph=True)
    by_parameter = {id(p): g for p, g in zip(unique, gradients, strict=True)}
    reached = set()
    for key, parameter, part in entries:
        gradient = by_parameter[id(parameter)]
        # Where a gradient cancels, rounding leaves a little of it in one implementation and not in another.
        if gradient is None or gradient[part].norm() < NEGLIGIBLE:
            continue
        reached.add(key)
        expected_norm = float(stored[f"grad_norm/{name}/{key}"])
        head = gradient[part].flatten()[:8].numpy()
        np.testing.assert_allclose(gradient[part].norm(), expected_norm, rtol=tolerance, err_msg=key)
        expected_head = stored[f"grad_head/{name}/{key}"]
        # An entry far below the gradient's norm is a difference of large numbers: its rounding is theirs.
        np.testing.assert_allclose(
            head, expected_head, rtol=tolerance, atol=tolerance * expected_norm, err_msg=key
        )
    expected = {
        key.split("/", 2)[2]
        for key in stored
        if key.startswith(f"grad_norm/{name}/") and stored[key] >= NEGLIGIBLE
    }
    assert reached == expected, f"{name}: gradient reaches {reached ^ expected} in one of the two only"


def assert_step(
    agent: Any,
    before: dict[str, Tensor],
    stored: dict[str, np.ndarray],
    case: str,
    skip: tuple[str, ...] = (),
) -> None:
    """Every parameter but those to skip moved as the fixture says, in norm and first entries."""
    for key, parameter, part in parameters(agent):
        if key in skip:
            continue
        delta = (parameter[part].detach().double() - before[key].double()).flatten().numpy()
        # float32 parameters near 1 hold a change of 1e-3 to 1e-4 of it only.
        resolution = float(np.spacing(before[key].abs().max().float().numpy())) * 2
        expected_norm = float(stored[f"step/{case}/delta_norm/{key}"])
        np.testing.assert_allclose(
            np.linalg.norm(delta),
            expected_norm,
            rtol=1e-3,
            atol=resolution * float(np.sqrt(delta.size)),
            err_msg=key,
        )
        np.testing.assert_allclose(
            delta[:8], stored[f"step/{case}/delta_head/{key}"], rtol=1e-3, atol=resolution, err_msg=key
        )


def snapshot(agent: Any) -> dict[str, Tensor]:
    """Copies of all parameters by the fixture's names."""
    return {key: parameter[part].detach().clone() for key, parameter, part in parameters(agent)}
