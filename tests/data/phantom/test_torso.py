"""The torso around the heart: closed by the chest wall, filled with lung."""

import numpy as np
import pytest

from kgmgt_jax.data.phantom.canvas import Plane
from kgmgt_jax.data.phantom.heart import Heart
from kgmgt_jax.data.phantom.motion import Motion
from kgmgt_jax.data.phantom.signal import TISSUES
from kgmgt_jax.data.phantom.torso import paint_torso_axial, paint_torso_oblique

PAINTERS = {"oblique": paint_torso_oblique, "axial": paint_torso_axial}


@pytest.fixture(scope="module", params=PAINTERS)
def torso(request):
    """Tissue shares (1 where there is any but air and lung) and distance into the chest, in mm."""
    y, x = (np.mgrid[-64:64, -64:64] * 3.0).astype(np.float32)
    image, labels = np.zeros((1, 128, 128), np.float32), np.zeros((1, 128, 128), np.uint8)
    signals = {n: np.full(x.shape, float(n not in ("air", "lung")), np.float32) for n in TISSUES}
    plane = Plane(x=x, y=y, pixel=3.0, signals=signals, image=image, labels=labels)
    heart, rng = Heart.draw(np.random.default_rng(0)), np.random.default_rng(1)
    motion = Motion.draw(rng, x, y, heart, heart.beat(1), breathing=0.0, taper=0.0)
    return plane.image[0], PAINTERS[request.param](plane, rng, motion, 0.5)[0], plane.labels


def test_no_tissue_lies_outside_the_skin(torso):
    image, inside, _ = torso
    assert (inside < -45).sum() > 1000
    assert np.all(image[inside < -45] == 0)


def test_the_chest_wall_is_tissue(torso):
    image, inside, _ = torso
    wall = (inside < -4) & (inside > -12)
    assert image[wall].min() > 0.5  # textures vary by a tenth or so


def test_lungs_fill_much_of_the_chest(torso):
    image, inside, _ = torso
    assert 0.2 < (image[inside > 0] < 0.5).mean() < 0.9


def test_the_torso_carries_no_heart_labels(torso):
    assert not torso[2].any()
