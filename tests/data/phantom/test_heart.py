"""The beat of the heart against its stated function and conserved quantities."""

import numpy as np
from numpy.testing import assert_allclose

from kgmgt_jax.data.phantom.heart import Heart, contraction


def test_contraction_is_periodic_and_spans_zero_to_one():
    phase = np.linspace(0, 1, 1001)
    curve = contraction(phase, systole=0.34, kick=0.25)
    assert_allclose([curve[0], curve[-1], curve.min(), curve.max()], [0, 0, 0, 1], atol=1e-12)
    assert np.abs(np.diff(curve)).max() < 0.01


def test_atrial_kick_fills_its_share():
    diastasis = contraction(np.array([0.75]), systole=0.34, kick=0.25)
    assert_allclose(diastasis, 0.25, atol=1e-12)


def test_volume_curve_has_the_stated_ejection_fraction():
    heart = Heart.draw(np.random.default_rng(5))
    assert_allclose(heart.beat(400).volume.min(), 1 - heart.ejection_fraction, atol=1e-4)


def test_radius_and_length_make_up_the_volume():
    heart = Heart.draw(np.random.default_rng(5))
    beat = heart.beat(8)
    cylinder = beat.radius**2 * beat.length / (heart.radius**2 * heart.length)
    assert_allclose(cylinder, beat.volume, rtol=1e-5)


def test_muscle_keeps_its_volume():
    heart = Heart.draw(np.random.default_rng(5))
    beat = heart.beat(8)
    muscle = (beat.outer**2 - beat.radius**2) * beat.length
    assert_allclose(muscle, muscle[0, 0, 0], rtol=1e-5)
