"""Measurements, each a module to run: python -m benchmarks.update. They compute as `smg` does."""

from common.threads import be_a_good_neighbour

be_a_good_neighbour()
