"""An agent's update and policy as they stand, or as CUDA graphs that are checked before they are trusted."""

import contextlib
import gc
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor

from common.errors import UserError
from common.rl.batch import Inputs, Metrics

SLACK = 3
"""How many times further from an eager step a replay may end than a second eager step does."""
SMALLEST_NOISE = 1e-6
"""Distance between two eager steps that is taken for granted."""
NUDGE = 4
"""By how many roundings of its precision a state is off that shows how far other kernels' roundings lead."""
GRAPHS = ("graphs", "compiled_graphs")
"""Values of `compile` that capture."""

Step = Callable[[Inputs, Any], Metrics]


class Capture(Protocol):
    """Makes of a step on fixed input tensors something that repeats it; captures by `_CudaGraph`."""

    def __call__(self, step: Callable[[], Metrics], shared: Any) -> Callable[[], Metrics]:
        """Record `step` without running it; the result replays it. `shared` is one for all of a program."""
        ...


class GraphedProgram:
    """Calls `step(inputs, schedule)`, in the modes of `GRAPHS` as one CUDA graph per schedule.

    A step must be a fixed-shape tensor program: every random number is in `inputs`, every Python branch
    depends on the schedule alone, nothing waits for the device. Replaying a graph then does what running
    the step would, without the cost of launching its kernels one by one.

    The first replay of each schedule is compared with an eager step from the same state: every metric,
    every tensor's change and Adam's moments, within `SLACK` times the distance between two eager steps whose
    samples come in different orders, which is what rounding alone does. Compiled parts round otherwise in
    every layer, so with them the distance counts too at which a step ends whose state is off by `NUDGE`
    roundings at random. If capturing or the comparison fails, the state is put back and a warning says why;
    then the same is tried without compiled parts, if there were any, and all steps from then on are eager.

    Args:
        step: the program; may change tensors of `state` in place.
        reference: the same without compiled parts, for the comparison and when graphs have failed.
        mode: those of `GRAPHS` capture (CUDA only), and "compiled_graphs" says that `step` has compiled
            parts; others call the step.
        device: where the agent lives.
        state: returns every tensor that `step` changes in place, by name.
        what: the steps, for messages.
        findings: a list that takes what the comparisons find, a line each, for the run's provenance.
        capture: what makes graphs; CUDA's, or in tests a stand-in that runs on a CPU.

    Raises:
        UserError: a mode that captures, without a CUDA device.
    """

    def __init__(
        self,
        step: Step,
        reference: Step,
        mode: str,
        device: torch.device,
        state: Callable[[], dict[str, Tensor]],
        what: str = "updates",
        findings: list[str] | None = None,
        capture: Capture | None = None,
    ) -> None:
        if mode in GRAPHS and device.type != "cuda" and capture is None:
            raise UserError(f"compile={mode} needs a CUDA device, not {device}: use compile=default or eager")
        self.step = step
        self.reference = reference
        self.graphs = mode in GRAPHS
        self.compiled = mode == "compiled_graphs"
        self.device = device
        self.state = state
        self.what = what
        self.findings: list[str] = [] if findings is None else findings
        self._capture: Capture = capture or _CudaGraph
        self._shared: Any = None
        self._captured: dict[Hashable, tuple[dict[str, Tensor], Callable[[], Metrics]]] = {}

    def __call__(self, inputs: Inputs, schedule: Hashable) -> Metrics:
        """One step; returns detached tensors that later steps do not overwrite."""
        if not self.graphs:
            return self.step(inputs, schedule)
        tensors = cast(dict[str, Tensor], inputs)
        if self.device.type == "cuda":
            with torch.cuda.device(self.device):  # whose streams a capture and its replays use
                return self._replayed(tensors, schedule)
        return self._replayed(tensors, schedule)

    def forget(self) -> None:
        """Drop all graphs, because tensors that they read were replaced; the next steps capture anew."""
        self._captured.clear()
        self._shared = None

    def _replayed(self, inputs: dict[str, Tensor], schedule: Hashable) -> Metrics:
        if schedule not in self._captured:
            return self._first(inputs, schedule)
        buffers, replay = self._captured[schedule]
        for name, value in inputs.items():
            buffers[name].copy_(value, non_blocking=True)
        return detached_copies(replay())

    def _first(self, inputs: dict[str, Tensor], schedule: Hashable) -> Metrics:
        """Capture a schedule and take its first step, checked; or take it eagerly, now and ever after."""
        # Detached: a copy with a history would keep the weights' gradient nodes of this stream alive, and the
        # backward passes that are captured on another would have to wait for it, which no capture allows.
        before = {name: value.detach().clone() for name, value in self.state().items()}
        while self.graphs:
            try:
                outcome, finding = self._checked(inputs, schedule, before)
                self.findings.append(f"{schedule}: {finding}")
                return outcome
            except Exception as error:  # whatever it is, the run can go on without
                self._fall_back(schedule, f"{type(error).__name__}: {error}", before)
        return self.reference(cast(Inputs, inputs), schedule)

    def _checked(
        self, inputs: dict[str, Tensor], schedule: Hashable, before: dict[str, Tensor]
    ) -> tuple[Metrics, str]:
        buffers = {name: value.clone() for name, value in inputs.items()}

        def changes(step: Step, samples: dict[str, Tensor], start: dict[str, Tensor]) -> dict[str, Tensor]:
            restore(self.state(), start)
            return self._changes(start, step(cast(Inputs, samples), schedule))

        # Besides the comparison, these create the optimisers' state and let compilers, cuDNN and the
        # allocator settle.
        with side_stream(self.device), warnings.catch_warnings():
            # Adam remarks that it was made for capture.
            warnings.filterwarnings("ignore", "This instance was constructed with capturable=True")
            eager = changes(self.reference, buffers, before)
            others = [changes(self.reference, reordered(buffers), before)]
            if self.compiled:
                others.append(changes(self.reference, buffers, nudged(before)))
            changes(self.step, buffers, before)
            restore(self.state(), before)
        if self._shared is None and self.device.type == "cuda":
            self._shared = _Shared(torch.cuda.graph_pool_handle(), torch.cuda.Stream())
        replay = self._capture(lambda: self.step(cast(Inputs, buffers), schedule), self._shared)
        outcome = detached_copies(replay())
        finding = compared(eager, others, self._changes(before, outcome))
        self._captured[schedule] = buffers, replay
        return outcome, finding

    def _changes(self, before: dict[str, Tensor], metrics: Metrics) -> dict[str, Tensor]:
        """By how much every tensor of the state differs from `before`, and the metrics."""
        changes = {
            name: value.detach() - before[name] if name in before else value.detach().clone()
            for name, value in self.state().items()
            if value.is_floating_point()
        }
        return changes | {name: value.detach().clone() for name, value in metrics.items()}

    def _fall_back(self, schedule: Hashable, reason: str, before: dict[str, Tensor]) -> None:
        """Do without compiled parts, or if there are none, without graphs."""
        self.forget()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.empty_cache()
        restore(self.state(), before)
        self.step = self.reference
        if self.compiled:
            self.compiled = False
            finding = f"compiled parts are off, CUDA graphs hold eager kernels: {' '.join(reason.split())}"
        else:
            self.graphs = False
            finding = f"CUDA graphs are off, {self.what} run eagerly: {' '.join(reason.split())}"
        self.findings.append(f"{schedule}: {finding}")
        warnings.warn(finding, stacklevel=4)


class _Shared(NamedTuple):
    """What a program's graphs share, and no other's: destroying one may free its stream's workspaces."""

    pool: Any
    stream: torch.cuda.Stream


class _CudaGraph:
    """A step captured as a CUDA graph."""

    def __init__(self, step: Callable[[], Metrics], shared: _Shared) -> None:
        self.graph = torch.cuda.CUDAGraph()
        # The overlay bank's thread may allocate meanwhile, which concerns this capture no more than it does
        # the updates.
        capture = torch.cuda.graph(
            self.graph, pool=shared.pool, stream=shared.stream, capture_error_mode="thread_local"
        )
        with no_collection(), _undone_if_it_fails(shared.pool), capture:
            metrics = step()
            self.names = list(metrics)
            self.values = torch.stack([value.float() for value in metrics.values()])

    def __call__(self) -> Metrics:
        self.graph.replay()
        return dict(zip(self.names, self.values.unbind(), strict=True))


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """Garbage is collected before, and none meanwhile: a graph in it cannot be destroyed during a capture."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextlib.contextmanager
def _undone_if_it_fails(pool: Any) -> Iterator[None]:
    """Put back what PyTorch leaves behind when a capture cannot end: the next random number would raise.

    Those are the current stream, the generator of random numbers and the memory pool that takes allocations.
    """
    device, stream = torch.cuda.current_device(), torch.cuda.current_stream()
    generator = torch.cuda.default_generators[device]
    random = generator.clone_state()
    try:
        yield
    except BaseException:
        torch.cuda.set_stream(stream)
        generator.graphsafe_set_state(random)
        with contextlib.suppress(AttributeError, RuntimeError):  # the pool is closed
            torch._C._cuda_endAllocateToPool(device, pool)  # pyright: ignore
        raise


def side_stream(device: torch.device) -> Any:
    """Where a step must run before it is captured: another stream, on a CPU nothing."""
    if device.type != "cuda":
        return warnings.catch_warnings()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    return _Joined(stream)


class _Joined:
    """A stream as a context that the current stream waits for at its end."""

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self.stream = stream
        self.context = torch.cuda.stream(stream)

    def __enter__(self) -> None:
        self.context.__enter__()

    def __exit__(self, *error: Any) -> None:
        self.context.__exit__(*error)
        torch.cuda.current_stream().wait_stream(self.stream)


def detached_copies(metrics: Metrics) -> Metrics:
    """Metrics that no later replay overwrites."""
    return dict(zip(metrics, torch.stack(list(metrics.values())).unbind(), strict=True))


def reordered(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same samples in reverse: the same update but for the order of its sums."""
    return {name: value.flip(0) if value.dim() else value for name, value in inputs.items()}


@torch.no_grad()
def nudged(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same state, every number off at random by up to `NUDGE` roundings of its precision."""
    moved = dict(tensors)
    for name, value in tensors.items():
        if value.is_floating_point():
            generator = torch.Generator(value.device).manual_seed(0)  # no draw of the run's
            share = torch.rand(value.shape, generator=generator, device=value.device, dtype=value.dtype)
            moved[name] = value * (1 + (2 * share - 1) * NUDGE * torch.finfo(value.dtype).eps)
    return moved


@torch.no_grad()
def restore(tensors: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> None:
    """Put saved values back; a tensor that was created since (an optimiser's fresh state) becomes zero."""
    for name, tensor in tensors.items():
        if name in before:
            tensor.copy_(before[name])
        else:
            tensor.zero_()


def compared(eager: dict[str, Tensor], others: list[dict[str, Tensor]], graph: dict[str, Tensor]) -> str:
    """How near a replay is to an eager step, as a line.

    Args:
        eager: what an eager step changed, by tensor, and its metrics.
        others: the same of further ones, of which the furthest counts.
        graph: the same of the replay.

    Raises:
        GraphMismatch: a tensor lies further from `eager` than `SLACK` times what two eager steps differ by,
            there or in nine tenths of all tensors.
    """
    noise = torch.stack([distances(eager, other) for other in others]).amax(0)
    error = distances(eager, graph)
    usual = torch.quantile(noise, 0.9)
    # One transfer for everything: this waits for the device once.
    noise, error = torch.stack([noise.maximum(usual).clamp_min(SMALLEST_NOISE), error]).cpu()
    excess = error / (SLACK * noise)
    worst = int(excess.nan_to_num(torch.inf).argmax())
    name = list(eager)[worst]
    told = f"{name} by {error[worst]:.2g}, where two eager steps differ by {noise[worst]:.2g}"
    if not excess[worst] <= 1:
        raise GraphMismatch(f"the first replay is not the eager step: it is off most in {told}")
    return f"the first replay equals an eager step: over {len(eager)} tensors it is off most in {told}"


class GraphMismatch(Exception):
    """A captured update does not do what the eager one does."""


def distances(expected: dict[str, Tensor], found: dict[str, Tensor]) -> Tensor:
    """|x − x*| / |x*| of each tensor, (tensors,); of one that is zero, |x − x*|."""

    def norms(tensors: Iterable[Tensor]) -> Tensor:
        return torch.stack([tensor.double().norm() for tensor in tensors])

    size = norms(expected.values())
    difference = norms(found[name].double() - value.double() for name, value in expected.items())
    return difference / torch.where(size > 0, size, 1)
