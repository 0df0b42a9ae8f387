"""The benchmark of upsampled convolutions; test_networks.py shows that both ways are one function."""

import pytest

from benchmarks.upsampling import measure


@pytest.mark.parametrize("amp", ["off", "bf16"])
def test_both_ways_are_measured(amp):
    found = measure("smoke", ["device=cpu", f"amp={amp}"], rounds=1)
    assert found["amp"] == amp
    ratio = found["phases_ms"] / found["transposed_ms"]
    assert found["transposed_is_faster_by"] == pytest.approx(ratio)
