"""Runs an agent's update as it stands or as captured CUDA graphs."""

import warnings
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

from common.errors import UserError

Inputs = dict[str, Tensor]
Metrics = dict[str, Tensor]


class Programs:
    """Calls `step(inputs, plan)`, keeping one CUDA graph per plan in mode "graphs".

    A step must be a fixed-shape tensor program: every random number is in `inputs`, every Python branch
    depends on `plan` alone, nothing waits for the device. Replaying a graph then does what running the
    step would, without the cost of launching its kernels one by one.

    Args:
        step: the update; may change parameters and optimiser state in place.
        mode: "graphs" (CUDA only) captures; "eager" and "default" call the step, in which the agent may
            have compiled parts.
        state: returns every tensor that `step` changes in place; capture runs the step for warm-up and
            puts these back, so that capturing costs no update.

    Raises:
        UserError: "graphs" without a CUDA device.
    """

    def __init__(
        self,
        step: Callable[[Inputs, Any], Metrics],
        mode: str,
        device: torch.device,
        state: Callable[[], list[Tensor]],
    ) -> None:
        if mode == "graphs" and device.type != "cuda":
            raise UserError(f"compile=graphs needs a CUDA device, not {device}: use compile=default or eager")
        self.mode = mode
        self.device = device
        self.step = step
        self.state = state
        self.graphs: dict[Hashable, _Graph] = {}

    def __call__(self, inputs: Inputs, plan: Hashable) -> Metrics:
        """One update; returns detached 0-d tensors that later updates do not overwrite."""
        if self.mode != "graphs":
            return self.step(inputs, plan)
        with torch.cuda.device(self.device):  # whose streams a capture and its replays use
            if plan not in self.graphs:
                self.graphs[plan] = _Graph(lambda inputs: self.step(inputs, plan), inputs, self.state)
            return self.graphs[plan].replay(inputs)


class _Graph:
    """One plan's update captured as a CUDA graph, with its own input buffers."""

    def __init__(
        self, step: Callable[[Inputs], Metrics], inputs: Inputs, state: Callable[[], list[Tensor]]
    ) -> None:
        self.inputs = {name: value.clone() for name, value in inputs.items()}
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream), warnings.catch_warnings():
            # Adam remarks that it was made for capture.
            warnings.filterwarnings("ignore", "This instance was constructed with capturable=True")
            # The warm-up creates the optimisers' state where there was none; `_restore` zeroes it again, as
            # a fresh Adam would find it.
            before = {id(tensor): tensor.clone() for tensor in state()}
            for _ in range(3):  # lets cuDNN and the allocator settle before capture
                step(self.inputs)
            _restore(state(), before)
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        # The overlay bank's thread may allocate meanwhile, which concerns this capture no more than it does
        # the updates.
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            metrics = step(self.inputs)
            self.names = list(metrics)
            self.values = torch.stack([value.float() for value in metrics.values()])
        # Capture records kernels without running them, so the state needs no second restore.

    def replay(self, inputs: Inputs) -> Metrics:
        for name, value in inputs.items():
            self.inputs[name].copy_(value, non_blocking=True)
        self.graph.replay()
        return dict(zip(self.names, self.values.clone().unbind(), strict=True))


@torch.no_grad()
def _restore(tensors: list[Tensor], before: dict[int, Tensor]) -> None:
    """Put saved values back; a tensor that was created since (an optimiser's fresh state) becomes zero."""
    for tensor in tensors:
        saved = before.get(id(tensor))
        if saved is None:
            tensor.zero_()
        else:
            tensor.copy_(saved)
