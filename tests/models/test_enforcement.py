"""Data consistency with a learned strength: one coil by hand, several as one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kgmgt_jax.models.enforcement import DataConsistency, enforce
from kgmgt_jax.mri.fourier import fft2c
from kgmgt_jax.types import Measurement


def _draw(seed, *shape):
    parts = jax.random.normal(jax.random.key(seed), (*shape, 2))
    return jax.lax.complex(parts[..., 0], parts[..., 1])


IMAGE, KSPACE = _draw(0, 2, 7, 6), _draw(1, 2, 1, 7, 6)
MASK = jax.random.bernoulli(jax.random.key(2), 0.4, (2, 7, 6)).astype(jnp.float32)
UNIT = jnp.ones((2, 1, 7, 6), jnp.complex64)


def _enforced(sens, strength, consistency, solver="gradient"):
    measurement = Measurement(KSPACE * MASK[:, None], MASK, sens)
    how = {"consistency": consistency, "solver": solver}
    return fft2c(enforce(IMAGE, measurement, jnp.float32(strength), **how))


def _between(weight):
    """K-space of the image, moved by ``weight`` to the measured samples."""
    predicted = fft2c(IMAGE)
    return predicted + weight * MASK * (KSPACE[:, 0] - predicted)


@pytest.mark.parametrize(("sens", "solver"), [(None, "gradient"), (UNIT, "gradient"), (UNIT, "cg")])
def test_soft_consistency_weighs_the_measurement_by_the_exponential(sens, solver):
    """With log 3 the measurement counts three times as much as the image."""
    found = _enforced(sens, np.log(3), "soft", solver)
    np.testing.assert_allclose(found, _between(3 / 4), atol=1e-4)


def test_hard_consistency_steps_by_the_strength_where_there_are_maps():
    np.testing.assert_allclose(_enforced(None, 0.5, "hard"), _between(1), atol=1e-5)
    np.testing.assert_allclose(_enforced(UNIT, 0.5, "hard"), _between(0.5), atol=1e-5)


def test_no_consistency_leaves_the_image():
    assert enforce(IMAGE, None, None, consistency="none", solver="gradient") is IMAGE


@pytest.mark.parametrize(("consistency", "weight"), [("soft", 10 / 11), ("hard", 1.0)])
def test_strength_starts_at_ten_times_the_image_or_a_whole_step(consistency, weight):
    module = DataConsistency(consistency)
    measurement = Measurement(KSPACE * MASK[:, None], MASK, UNIT)
    image, _ = module.init_with_output(jax.random.key(0), IMAGE, measurement)
    np.testing.assert_allclose(fft2c(image), _between(weight), atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"consistency": "firm"}, "'hard', 'soft' or 'none', got 'firm'"),
        ({"solver": "newton"}, "'gradient' or 'cg', got 'newton'"),
        ({"consistency": "hard", "solver": "cg"}, "needs consistency='soft'"),
    ],
)
def test_unknown_kinds_and_solvers_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        DataConsistency(**fields).init(jax.random.key(0), IMAGE, None)


def test_consistency_without_a_measurement_is_refused():
    with pytest.raises(ValueError, match="consistency='hard' needs the measured k-space"):
        enforce(IMAGE, None, jnp.float32(1), consistency="hard", solver="gradient")
