"""Panels side by side in one grey window, labelled, and large enough to be seen."""

import gc
import os
import resource

import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image

from kgmgt_jax.evaluation import gif
from kgmgt_jax.evaluation.gif import cine_gif
from kgmgt_jax.figures import grey_window
from tests.evaluation.cines import beating_disc


def _frames(path) -> np.ndarray:
    return iio.imread(path, plugin="pillow", mode="L")


def test_gif_shows_the_panels_side_by_side_in_one_window(tmp_path):
    cine = beating_disc(h=200, w=100, centre=(100, 50))
    panels = {"one": cine * 1j, "dim": 0.4 * cine, "bright": 3 * cine}
    frames = _frames(cine_gif(tmp_path / "c.gif", panels))
    assert frames.shape == (6, 200 + 22, 100 + 4 + 100 + 4 + 100)
    white = grey_window(cine)
    levels = [np.round(255 * np.minimum(cine / white * factor, 1)) for factor in (1, 3)]
    np.testing.assert_array_equal(frames[:, 22:, :100], levels[0])
    np.testing.assert_array_equal(frames[:, 22:, 104:204], np.round(255 * 0.4 * cine / white))
    np.testing.assert_allclose(frames[:, 22:, 208:], levels[1], atol=1)


def test_gif_loops_for_ever(tmp_path):
    with Image.open(cine_gif(tmp_path / "c.gif", {"a": beating_disc()})) as movie:
        assert (movie.n_frames, movie.info["loop"], movie.info["duration"]) == (6, 0, 80)


def test_gif_is_magnified_to_192_rows(tmp_path):
    frames = _frames(cine_gif(tmp_path / "c.gif", {"a": beating_disc(h=41, w=20)}))
    assert frames.shape[1:] == (5 * 41 + 22, 100)


def test_pixels_twice_as_high_as_wide_are_shown_so(tmp_path):
    panels = {"a": beating_disc(h=41, w=20)}
    frames = _frames(cine_gif(tmp_path / "c.gif", panels, aspect=2.0))
    assert frames.shape[1:] == (3 * 2 * 41 + 22, 3 * 20)


def test_gif_labels_its_panels(tmp_path):
    frames = _frames(cine_gif(tmp_path / "c.gif", {"": beating_disc(), "name": beating_disc()}))
    left, right = frames[0, :22, :160], frames[0, :22, 164:]
    assert left.max() == 0
    assert right.max() > 200


def test_long_label_is_set_smaller_to_fit():
    strips = [gif._label_strip("a longer label", width) for width in (300, 80)]
    (rows, _), (small_rows, small_columns) = (np.nonzero(strip) for strip in strips)
    assert np.ptp(small_rows) < np.ptp(rows)
    assert np.ptp(small_columns) < 80 - 2


def test_gif_of_one_frame_is_written(tmp_path):
    assert _frames(cine_gif(tmp_path / "c.gif", {"a": beating_disc(t=1)})).shape[-2:] == (214, 160)
    assert os.listdir(tmp_path) == ["c.gif"]


@pytest.mark.parametrize(
    ("panels", "options", "message"),
    [
        ({}, {}, "at least one"),
        ({"a": beating_disc(), "b": beating_disc(t=5)}, {}, "one shape"),
        ({"a": beating_disc()[0]}, {}, "one shape"),
        ({"a": beating_disc()}, {"aspect": 0}, "aspect=0"),
    ],
)
def test_gif_refuses_what_it_cannot_show(tmp_path, panels, options, message):
    with pytest.raises(ValueError, match=message):
        cine_gif(tmp_path / "c.gif", panels, **options)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_told_once(tmp_path):
    """A second time would be a warning of an exception that Python ignores, an error here."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    noise = np.random.default_rng(0).integers(0, 255, (4, 99, 99), np.uint8)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match=r"c\.gif"):
            gif.write_gif(tmp_path / "c.gif", noise)
        gc.collect()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())
