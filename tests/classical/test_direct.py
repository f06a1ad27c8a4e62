"""Zero-filled and temporal average."""

import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from kgmgt_jax.classical import temporal_average, zero_filled
from tests.classical.reference import adjoint, fft2c, problem


@pytest.mark.parametrize("n_coils", [None, 3])
def test_zero_filled_is_the_adjoint(n_coils):
    kspace, mask, sens = problem(n_coils)
    maps = None if sens is None else sens[None]
    expected = adjoint(kspace, mask, maps)
    np.testing.assert_allclose(zero_filled(kspace, mask, sens), expected, atol=1e-6)


def test_average_keeps_measured_samples_and_fills_gaps_from_other_frames():
    kspace, mask, _ = problem()
    result = np.asarray(fft2c(temporal_average(kspace, mask)))
    k, m = np.asarray(kspace[:, 0]), np.asarray(mask)
    for t, y, x in np.ndindex(m.shape):
        measured = k[m[:, y, x] > 0, y, x]
        mean = measured.mean() if measured.size else 0
        expected = k[t, y, x] if m[t, y, x] else mean
        assert abs(result[t, y, x] - expected) < 1e-5


@pytest.mark.parametrize("method", [zero_filled, temporal_average])
def test_one_unit_coil_is_a_single_coil(method):
    kspace, mask, _ = problem()
    unit = jnp.ones((1, *mask.shape[1:]), jnp.complex64)
    alone, with_maps = method(kspace, mask), method(kspace, mask, unit)
    np.testing.assert_allclose(with_maps, alone, atol=1e-6)


@pytest.mark.parametrize("method", [zero_filled, temporal_average])
def test_coils_need_maps(method):
    kspace, mask, _ = problem(3)
    with pytest.raises(ValueError, match="expected n = 1 coils without sens"):
        method(kspace, mask)


@pytest.mark.parametrize("method", [zero_filled, temporal_average])
def test_masks_of_other_values_are_refused(method, monkeypatch):
    kspace, mask, _ = problem()
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # it refuses NumPy's arrays
    with pytest.raises(ValueError, match="zeros and ones, got values from 0 to 255"):
        method(kspace, 255 * np.asarray(mask))
