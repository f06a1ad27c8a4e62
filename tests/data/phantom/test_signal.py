"""The balanced steady-state signal against closed forms and the Bloch equations."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from kgmgt_jax.data.phantom.signal import TISSUES, Protocol, bssfp_signal

PROTOCOL = Protocol(repetition_time=3.2, flip_angle=0.9)


def test_bssfp_on_resonance_is_the_textbook_formula():
    tissue = TISSUES["blood"]
    e1, e2 = np.exp(-3.2 / tissue.t1), np.exp(-3.2 / tissue.t2)
    sin, cos = np.sin(0.9), np.cos(0.9)
    expected = tissue.density * sin * (1 - e1) * np.sqrt(e2) / (1 - (e1 - e2) * cos - e1 * e2)
    assert_allclose(bssfp_signal(tissue, PROTOCOL, np.zeros(1)), [expected], rtol=1e-12)


def _bloch_steady_state(tissue, off_resonance):
    """Fixed point of one repetition, in the frame that alternates with the RF; then the echo."""
    theta = 2 * np.pi * 3.2e-3 * off_resonance

    def precess(angle, time):
        e1, e2 = np.exp(-time / tissue.t1), np.exp(-time / tissue.t2)
        c, s = np.cos(angle), np.sin(angle)
        decay = np.array([[e2 * c, e2 * s, 0], [-e2 * s, e2 * c, 0], [0, 0, e1]])
        return decay, np.array([0, 0, tissue.density * (1 - e1)])

    c, s = np.cos(0.9), np.sin(0.9)
    flip = np.array([[1, 0, 0], [0, c, s], [0, -s, c]])
    decay, recovery = precess(theta + np.pi, 3.2)
    after_pulse = np.linalg.solve(np.eye(3) - flip @ decay, flip @ recovery)
    decay, recovery = precess(theta / 2, 1.6)
    echo = decay @ after_pulse + recovery
    return echo[0] + 1j * echo[1]


@pytest.mark.parametrize("name", ["blood", "myocardium", "liver"])
def test_bssfp_is_the_steady_state_of_the_bloch_equations(name):
    frequencies = np.array([-290.0, -120.0, -40.0, 0.0, 90.0, 149.0, 220.0])
    signal = bssfp_signal(TISSUES[name], PROTOCOL, frequencies)
    bloch = np.array([_bloch_steady_state(TISSUES[name], f) for f in frequencies])
    phase = bloch[3] / abs(bloch[3])
    assert_allclose(signal, np.conj(bloch / phase), rtol=1e-9, atol=1e-12)


def test_fat_points_against_water():
    signals = {n: bssfp_signal(TISSUES[n], PROTOCOL, np.zeros(1))[0] for n in ("fat", "blood")}
    assert signals["fat"].real < 0 < signals["blood"].real
