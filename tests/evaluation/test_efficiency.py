"""Costs of a method that does little, by hand."""

import time

import numpy as np
import pytest

from kgmgt_jax.evaluation.efficiency import device_name, measure_efficiency
from tests.evaluation.small_set import Scaled


class _Slow(Scaled):
    def reconstruct(self, kspace, mask, sens, progress=None):
        time.sleep(0.02 * len(kspace))
        return super().reconstruct(kspace, mask, sens, progress)


def test_costs_are_counted_and_measured():
    kspace = np.ones((3, 1, 64, 32), np.complex64)
    mask = np.ones((3, 64, 32), np.float32)
    cost = measure_efficiency(_Slow("slow", 2.0), kspace, mask, None)
    assert cost.parameters == 3 and cost.device == device_name()
    assert 20 <= cost.latency_ms < 60  # of a frame, not of all three
    megabytes = (kspace.nbytes + kspace.nbytes / 2) / 2**20  # in and out
    assert cost.peak_mib == pytest.approx(megabytes, rel=0.5)
    assert cost.gflops is not None and 0 < cost.gflops < 1e-3
