"""Frames of reference: at rest in the first frame, then following breath and heart."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from kgmgt_jax.data.phantom.heart import Heart
from kgmgt_jax.data.phantom.motion import Motion


@pytest.fixture(scope="module")
def heart():
    return Heart.draw(np.random.default_rng(2))


def _motion(heart, breathing):
    y, x = (np.mgrid[-32:32, -32:32] * 5.0).astype(np.float32)
    rng = np.random.default_rng(4)
    return Motion.draw(rng, x, y, heart, heart.beat(12), breathing=breathing, taper=0.3)


def test_organs_start_at_rest(heart):
    motion = _motion(heart, 3.0)
    for moving, resting in zip(motion.organs, motion.body, strict=True):
        assert_allclose(moving[0], resting[0], atol=1e-5)


def test_far_from_the_heart_organs_follow_the_breath_alone(heart):
    motion = _motion(heart, 3.0)
    shift = motion.body[1] - motion.organs[1]
    assert np.abs(motion.drift[1]).max() > 0.5
    assert_allclose(shift[:, -1, 0], motion.drift[1].ravel(), atol=0.02)


def test_without_breath_the_heart_pulls_its_neighbours_inwards(heart):
    motion = _motion(heart, 0.0)
    systole = int(motion.beat.contraction.argmax())
    dx = motion.image[0][0] - heart.position[0] + 20
    pull = (motion.organs[0][systole] - motion.body[0][0]) * np.sign(dx)
    assert pull.min() > -1e-4  # shapes are drawn at larger coordinates, hence nearer
    assert 0.5 < pull.max() < 3.0
