"""The decoder's upsampled convolutions as four 2×2 kernels each, which train, and as transposed convolutions.

    python -m benchmarks.upsampling --device cpu

Forward and backward of both layers with a ReLU between them, at the sizes that SMG decodes with, in the
device's usual precision. The two ways take turns, and medians are compared. On a CPU with one thread,
processor time counts, so that other work on the machine matters little.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.machine import clock, command_line, machine, on_gpu, write_json
from benchmarks.update import configured
from common.rl.networks import Convolution, UpsampledConvolution, Weights, memory_format, rounded_weights
from common.run.device import apply_switches


class TransposedConvolution(Convolution):
    """`UpsampledConvolution` as one transposed convolution.

    An input pixel reaches 4×4 output pixels. The output at 2i reads inputs (i−1, i) with weights (w₀, w₁+w₂),
    the one at 2i+1 inputs (i, i+1) with (w₀+w₁, w₂); so input i adds to outputs 2i−1 … 2i+2 with
    (w₂, w₁+w₂, w₀+w₁, w₀).
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1)

    def weights(self) -> Weights:
        """Kernel (I, O, 4, 4) and bias (O,)."""
        kernel = _spread(_spread(self.weight, 2), 3).transpose(0, 1)
        return kernel.contiguous(memory_format=memory_format(self.weight)), self.bias

    def forward(self, input: Tensor, weights: Weights | None = None) -> Tensor:
        return F.conv_transpose2d(input, *(weights or self.weights()), stride=2, padding=1)


def _spread(kernel: Tensor, dimension: int) -> Tensor:
    first, middle, last = kernel.unbind(dimension)
    return torch.stack([last, middle + last, first + middle, first], dimension)


def main() -> None:
    """Measure and print."""
    parser = command_line(__doc__)
    parser.add_argument("--presets", default="paper,laptop")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--amp", default="auto", help="off, bf16 or auto")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    switches = [f"device={arguments.device}", f"amp={arguments.amp}"]
    config = configured("smg", "paper", switches)
    report: dict[str, Any] = {
        "machine": machine(("torch",), config.device) | {"threads": torch.get_num_threads()}
    }
    for preset in arguments.presets.split(","):
        report[preset] = measure(preset, switches, arguments.rounds)
    for name, found in report.items():
        print(f"{name}: {found}")
    if arguments.json is not None:
        write_json(report, arguments.json)


def measure(preset: str, switches: list[str], rounds: int) -> dict[str, Any]:
    """Median milliseconds of both ways, and by how much the transposed convolution is faster."""
    config = configured("smg", preset, switches)
    apply_switches(config)
    torch.manual_seed(0)
    dtype = torch.bfloat16 if config.amp == "bf16" else torch.float32
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    _, hidden, narrow = config.network.decoder_filters
    side = config.env.image_size // 4
    frames = 2 * config.train.batch * config.env.frames  # of two views, as SMG decodes them
    image = torch.randn(frames, hidden, side, side, device=config.device, dtype=dtype)
    image = image.to(memory_format=layout).requires_grad_()

    def passes(kind: type[Convolution]) -> Callable[[], Any]:
        layers = nn.ModuleList([kind(hidden, narrow), kind(narrow, 4)])  # pyright: ignore[reportCallIssue]
        layers.to(config.device).to(memory_format=layout)  # pyright: ignore[reportCallIssue]
        inputs = [image, *layers.parameters()]

        def run() -> None:
            first, second = rounded_weights(list(layers), config.amp == "bf16")  # pyright: ignore
            decoded = layers[1](F.relu(layers[0](image, first)), second)
            loss = decoded.to(torch.float32, memory_format=torch.contiguous_format).sigmoid().sum()
            torch.autograd.grad(loss, inputs)

        return run

    ways = {"phases": passes(UpsampledConvolution), "transposed": passes(TransposedConvolution)}
    calls = 20 if on_gpu(config.device) else 1
    wall = not on_gpu(config.device) and torch.get_num_threads() > 1
    now = time.perf_counter if wall else lambda: clock(config.device)
    spent: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds + 1):
        for way, run in ways.items():
            began = now()
            for _ in range(calls):
                run()
            spent[way].append((now() - began) / calls)
    medians = {way: statistics.median(seconds[1:]) for way, seconds in spent.items()}
    return {
        "amp": config.amp,
        **{f"{way}_ms": 1000 * seconds for way, seconds in medians.items()},
        "transposed_is_faster_by": medians["phases"] / medians["transposed"],
    }


if __name__ == "__main__":
    main()
