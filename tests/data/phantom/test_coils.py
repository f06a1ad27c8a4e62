"""Coil maps against the Biot-Savart integral, and the statistics of the noise."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from kgmgt_jax.data.phantom.canvas import superellipse
from kgmgt_jax.data.phantom.coils import coil_sensitivities, complex_noise, loop_field


def test_loop_field_on_its_axis_is_the_closed_form():
    normal = np.array([0.0, 0.6, 0.8])
    height = np.array([-50.0, 0.0, 20.0, 300.0])
    field = loop_field(height[:, None] * normal + 7.0, np.full(3, 7.0), normal, 60.0)
    expected = 60.0**2 / (2 * (60.0**2 + height**2) ** 1.5)
    assert_allclose(field, expected[:, None] * normal, rtol=1e-9, atol=1e-18)


def test_loop_field_is_the_biot_savart_integral():
    rng = np.random.default_rng(1)
    points = rng.uniform(-100, 100, (20, 3)) + np.array([0.0, 0.0, 130.0])
    turn = np.linspace(0, 2 * np.pi, 2001)[:-1]
    wire = 65.0 * np.stack([np.cos(turn), np.sin(turn), 0 * turn], -1)
    element = 65.0 * np.stack([-np.sin(turn), np.cos(turn), 0 * turn], -1) * (2 * np.pi / 2000)
    separation = points[:, None] - wire
    distance = np.linalg.norm(separation, axis=-1, keepdims=True)
    integral = (np.cross(element, separation) / (4 * np.pi * distance**3)).sum(1)
    field = loop_field(points, np.zeros(3), np.array([0.0, 0.0, 1.0]), 65.0)
    assert_allclose(field, integral, rtol=1e-8, atol=1e-14)


def test_loop_field_is_continuous_across_the_near_axis_limit():
    points = np.array([[0.99e-4 * 60, 0, 40.0], [1.01e-4 * 60, 0, 40.0]])
    inside, outside = loop_field(points, np.zeros(3), np.array([0.0, 0.0, 1.0]), 60.0)
    assert_allclose(inside[0] / points[0, 0], outside[0] / points[1, 0], rtol=1e-5)


def _maps(n_coils):
    y, x = np.mgrid[-34:34, -34:34] * 5.0
    rng = np.random.default_rng(3)
    return coil_sensitivities(rng, x, y, n_coils, tilt=0.4, half_widths=(110.0, 155.0)), x, y


@pytest.mark.parametrize("n_coils", [2, 5, 10])
def test_coil_maps_have_unit_power_and_differ(n_coils):
    sens, x, y = _maps(n_coils)
    assert_allclose((np.abs(sens) ** 2).sum(0), 1, atol=1e-5)
    body = superellipse(x, y, (105.0, 150.0)) > 0
    inside = sens[:, body]
    overlap = np.abs(inside.conj() @ inside.T)
    power = np.sqrt(np.diag(overlap))
    correlation = overlap / power / power[:, None] - np.eye(n_coils)
    assert correlation.max() < 0.95


def test_coil_maps_are_smooth_in_the_body():
    sens, x, y = _maps(8)
    body = superellipse(x, y, (100.0, 145.0)) > 0
    step = np.abs(np.diff(sens, axis=-1))[:, body[:, 1:]]
    assert step.max() < 0.15  # a pixel is 5 mm; the loops measure 110 mm and more


def test_one_coil_is_uniform():
    assert_array_equal(_maps(1)[0], np.ones((1, 68, 68), np.complex64))


def test_complex_noise_is_circular_with_the_std_asked_for():
    noise = complex_noise(np.random.default_rng(0), (400, 500), 3.0)
    assert_allclose(np.sqrt(np.mean(np.abs(noise) ** 2)), 3.0, rtol=0.01)
    assert abs(np.mean(noise**2)) < 0.05
