from types import SimpleNamespace
from typing import Any

import pytest
import torch

from common.rl.augment import build_augmentation
from common.rl.upload import upload


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A device on the host that values are page-locked for, as PyTorch does it, and sent to."""

    def pin_memory(values: torch.Tensor) -> torch.Tensor:
        return torch.empty_strided(values.size(), values.stride(), dtype=values.dtype).copy_(values)

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin_memory)
    monkeypatch.setattr(torch.Tensor, "to", lambda values, *_, **how: values.clone())
    return SimpleNamespace(type="cuda")


def test_on_a_cpu_values_are_themselves():
    values = torch.arange(3)
    assert upload(values, torch.device("cpu")) is values


@pytest.mark.parametrize(
    "values", [torch.arange(6).view(2, 3), torch.arange(3).expand(4, 3), torch.tensor(2.0)]
)
def test_values_arrive_whole_that_are_seen_as_many_too(values: torch.Tensor, gpu: Any):
    arrived = upload(values, gpu)
    assert torch.equal(arrived, values) and arrived.is_contiguous()


@pytest.mark.parametrize("name", ["RandomAffine", "RandomRotation"])
def test_all_draws_of_an_augmentation_reach_a_gpu(name: str, gpu: Any):
    augmentation = build_augmentation({"name": name, "degrees": 10}, None, 24)
    drawn = {}
    for device in (torch.device("cpu"), gpu):
        torch.manual_seed(0)
        drawn[device.type] = augmentation.draw(4, 24, 24, device)
    assert drawn["cpu"].keys() == drawn["cuda"].keys()
    for key, value in drawn["cpu"].items():
        assert torch.equal(drawn["cuda"][key], value), key
