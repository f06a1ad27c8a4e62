"""Distances of shapes, and painting with partial volume."""

import numpy as np
from numpy.testing import assert_allclose

from kgmgt_jax.data.phantom.canvas import Plane, superellipse


def test_superellipse_is_the_distance_to_a_circle():
    y, x = np.mgrid[-20:21, -20:21] * 1.0
    expected = 12.0 - np.hypot(x, y)
    assert_allclose(superellipse(x, y, (12.0, 12.0)), expected, atol=2e-3)


def test_superellipse_vanishes_on_its_rotated_edge():
    turn = np.linspace(0, 2 * np.pi, 9)
    u, v = 30 * np.cos(turn), 10 * np.sin(turn)
    x, y = u * np.cos(0.5) - v * np.sin(0.5), u * np.sin(0.5) + v * np.cos(0.5)
    assert_allclose(superellipse(x, y, (30.0, 10.0), angle=0.5), 0, atol=1e-9)


def _disc(shift):
    y, x = (np.mgrid[-16:16, -16:16] * 2.0).astype(np.float32)
    image, labels = np.zeros((1, 32, 32), np.float32), np.zeros((1, 32, 32), np.uint8)
    ones = np.ones((32, 32), np.float32)
    plane = Plane(x=x, y=y, pixel=2.0, signals={"blood": ones}, image=image, labels=labels)
    plane.blob("blood", (x[None], y[None]), (shift, 0.0), (14.0, 14.0))
    return image[0], x


def test_edges_move_by_fractions_of_a_pixel():
    for shift in (0.0, 0.3, 0.9, 1.7):
        image, x = _disc(shift)
        assert_allclose((image * x).sum() / image.sum(), shift, atol=0.02)
        assert_allclose(4 * image.sum(), np.pi * 14.0**2, rtol=6e-3)


def test_a_line_thinner_than_a_pixel_keeps_its_amount():
    y, x = (np.mgrid[-16:16, -16:16] * 2.0).astype(np.float32)
    image, labels = np.zeros((1, 32, 32), np.float32), np.zeros((1, 32, 32), np.uint8)
    signals = {"fibrous": np.ones((32, 32), np.float32)}
    plane = Plane(x=x, y=y, pixel=2.0, signals=signals, image=image, labels=labels)
    plane.stroke("fibrous", (x[None], y[None]), (1.0, -40.0), (1.0, 40.0), 0.5)
    assert_allclose(2.0 * image[0, 16].sum(), 0.5, rtol=1e-6)


def test_a_window_covers_every_place_of_what_moves():
    y, x = (np.mgrid[-16:16, -20:20] * 2.0).astype(np.float32)
    image, labels = np.zeros((2, 32, 40), np.float32), np.zeros((2, 32, 40), np.uint8)
    plane = Plane(x=x, y=y, pixel=2.0, signals={}, image=image, labels=labels)
    rows, columns = plane.window((np.array([-10.0, 4.0]), np.array([6.0, -8.0])), 5.0)
    assert (y[rows, 0].min(), y[rows, 0].max()) == (-12, 10)
    assert (x[0, columns].min(), x[0, columns].max()) == (-14, 8)
