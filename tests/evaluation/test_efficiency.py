"""Costs of a method that does little, by hand."""

import time

import jax.numpy as jnp
import numpy as np
import pytest

from kgmgt_jax.evaluation.efficiency import device_name, measure_efficiency
from kgmgt_jax.evaluation.flops import count_flops
from tests.evaluation.small_set import Scaled


class _Slow(Scaled):
    """Its program is that of as many frames as it takes at once."""

    def reconstruct(self, kspace, mask, sens, progress=None):
        time.sleep(0.02 * len(kspace))
        return super().reconstruct(kspace, mask, sens, progress)

    def program(self, kspace, mask, sens):
        return super().program(kspace[: self.n_at_once], mask, sens)


@pytest.mark.parametrize("n_at_once", [1, 3])
def test_costs_are_counted_and_measured(monkeypatch, n_at_once):
    monkeypatch.setattr(_Slow, "n_at_once", n_at_once, raising=False)
    kspace = np.ones((3, 1, 64, 32), np.complex64)
    mask = np.ones((3, 64, 32), np.float32)
    cost = measure_efficiency(_Slow("slow", 2.0), kspace, mask, None)
    assert cost.parameters == 3 and cost.device == device_name()
    assert cost.shape == kspace.shape
    assert 20 <= cost.latency_ms < 60  # of a frame, not of all three
    megabytes = n_at_once / 3 * (kspace.nbytes + kspace.nbytes / 2) / 2**20  # in and out
    assert cost.peak_mib == pytest.approx(megabytes, rel=0.5)
    of_a_frame = count_flops(lambda x: 2.0 * jnp.abs(x), kspace[:1])
    assert of_a_frame and cost.gflops == pytest.approx(of_a_frame / 1e9)


def test_work_done_several_times_is_counted_as_often():
    class Repeated(Scaled):
        def program(self, kspace, mask, sens):
            return super().program(kspace, mask, sens)._replace(n_times=4)

    arrays = np.ones((3, 1, 64, 32), np.complex64), np.ones((3, 64, 32), np.float32), None
    once, often = (measure_efficiency(kind("any", 2.0), *arrays) for kind in (Scaled, Repeated))
    assert once.gflops and often.gflops == pytest.approx(4 * once.gflops)
