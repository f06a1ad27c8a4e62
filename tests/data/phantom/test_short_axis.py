"""The ventricles in short axis: areas follow the stated volumes, and everything twists."""

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage

from kgmgt_jax.data.phantom import make_cine
from kgmgt_jax.data.phantom.canvas import Plane
from kgmgt_jax.data.phantom.heart import CAVITY, MYOCARDIUM, Heart
from kgmgt_jax.data.phantom.motion import Motion
from kgmgt_jax.data.phantom.short_axis import _left_ventricle_across, short_axis_radii


def test_cavity_area_in_the_image_follows_the_volume(sax):
    area = (sax.labels == CAVITY).sum((1, 2))
    assert_allclose(area / area[0], sax.lv_volume / sax.lv_length, atol=0.05)
    assert area.min() < 0.75 * area[0]


def test_muscle_area_in_the_image_is_roughly_conserved(sax):
    area = (sax.labels == MYOCARDIUM).sum((1, 2))
    assert_allclose(area / area[0], 1 / sax.lv_length, atol=0.06)


def test_wall_thickens_in_systole():
    heart = Heart.draw(np.random.default_rng(5))
    beat = heart.beat(12)
    inner, outer = short_axis_radii(heart, beat, 0.5)
    systole = int(beat.volume.argmin())
    thickening = (outer - inner)[systole] / (outer - inner)[0]
    assert 1.2 < thickening.item() < 2.0


def _turn_between_frames(signals, ring):
    """Angle (degrees) that best maps ring ``ring[0]`` of frame 0 to ring ``ring[1]`` of frame 1."""
    heart, level = Heart.draw(np.random.default_rng(8)), 0.2
    beat = heart.beat(3)
    y, x = (np.mgrid[-64:64, -64:64] * 0.75).astype(np.float32)
    image, labels = np.zeros((3, 128, 128), np.float32), np.zeros((3, 128, 128), np.uint8)
    signals = {name: np.full((128, 128), value, np.float32) for name, value in signals.items()}
    plane = Plane(x=x, y=y, pixel=0.75, signals=signals, image=image, labels=labels)
    still = np.zeros((3, 1, 1), np.float32)
    at = (x[None], y[None])
    motion = Motion(image=at, body=at, organs=at, drift=(still, still), beat=beat)
    inner, outer = short_axis_radii(heart, beat, level)
    centre, rng = (still, still), np.random.default_rng(0)
    _left_ventricle_across(plane, rng, heart, motion, centre, (inner, outer), level)
    angle = np.deg2rad(np.arange(360))
    profiles = []
    for frame, radius in enumerate(ring(inner.ravel(), outer.ravel(), beat.length.ravel())):
        position = 64 + radius / 0.75 * np.stack([np.sin(angle), np.cos(angle)])
        profiles.append(ndimage.map_coordinates(image[frame], position, order=1))
    first, second = (np.fft.fft(p - p.mean()) for p in profiles)
    turn = np.fft.ifft(second * first.conj()).real.argmax()
    return turn, np.rad2deg(heart.twist * beat.contraction[1, 0, 0] * (0.8 - 1.2 * level))


def test_texture_turns_with_the_muscle():
    def middle_of_the_wall(inner, outer, length):
        start = (inner[0] + outer[0]) / 2
        yield start
        yield np.sqrt((start**2 - inner[0] ** 2) * length[0] / length[1] + inner[1] ** 2)

    turn, twist = _turn_between_frames({"myocardium": 1.0, "blood": 1.0}, middle_of_the_wall)
    assert twist > 4
    assert_allclose(turn, twist, atol=1.6)


def test_papillary_muscles_turn_with_the_wall():
    def through_the_papillaries(inner, *_):
        return 0.72 * inner[:2]

    turn, twist = _turn_between_frames({"myocardium": 0.0, "blood": 1.0}, through_the_papillaries)
    assert twist > 4
    assert_allclose(turn, twist, atol=2.6)


def test_slices_share_the_heart_and_taper_to_the_apex():
    apex, base = (make_cine(6, shape=(64, 64), n_frames=2, level=v) for v in (0.2, 0.8))
    assert_array_equal(apex.lv_volume, base.lv_volume)
    cavity = [(c.labels[0] == CAVITY).sum() for c in (apex, base)]
    assert 0.2 < cavity[0] / cavity[1] < 0.9
