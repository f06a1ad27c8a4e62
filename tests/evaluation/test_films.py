"""Films of all slices: one grey window, every frame, sizes that players take."""

import importlib
import subprocess

import imageio.v3 as iio
import numpy as np
import pytest

from kgmgt_jax.evaluation.films import GAP, slice_mosaic, write_film


def _ramp(t: int = 4, z: int = 3, h: int = 300, w: int = 280) -> np.ndarray:
    """Slices of constant grey that grow with the slice and the frame."""
    levels = np.arange(1, z + 1)[None, :] + np.arange(t)[:, None] / 10
    return np.broadcast_to(levels[..., None, None], (t, z, h, w)).astype(np.float32)


def test_high_pixels_put_more_slices_in_a_row():
    magnitude = np.ones((1, 4, 200, 200), np.float32)
    shapes = [slice_mosaic(magnitude, aspect=aspect).shape[1:] for aspect in (1.0, 2.0)]
    assert shapes == [(404, 404), (808, 608)]


def test_slices_lie_in_rows_in_one_grey_window():
    mosaic = slice_mosaic(_ramp())
    assert mosaic.shape == (4, 2 * 300 + GAP, 2 * 280 + GAP)
    centres = [(150, 140), (150, 140 + 280 + GAP), (150 + 300 + GAP, 140)]
    grey = np.array([[mosaic[t, y, x] for y, x in centres] for t in range(4)])
    expected = 255 * (np.arange(1, 4) + np.arange(4)[:, None] / 10) / 3.3
    np.testing.assert_allclose(grey, expected, atol=0.51)
    assert mosaic[0, 500, 500] == 0  # where there is no fourth slice


def test_pixels_above_the_window_are_white():
    magnitude = np.ones((1, 1, 300, 280), np.float32)
    magnitude[..., 0] = 2  # 0.36 % of the pixels
    assert (slice_mosaic(magnitude) == 255).all()


def test_small_pictures_are_magnified_and_large_ones_reduced():
    assert slice_mosaic(_ramp(z=1, h=64, w=50)).shape == (4, 256, 200)
    assert max(slice_mosaic(_ramp(t=1, z=4, h=1500, w=900)).shape) == 1920


def test_pixels_twice_as_high_as_wide_are_shown_so():
    assert slice_mosaic(_ramp(z=1, h=64, w=50), aspect=2.0).shape == (4, 256, 100)
    assert slice_mosaic(_ramp(z=2, h=300, w=150), aspect=0.5).shape == (4, 300, 608)
    with pytest.raises(ValueError, match="aspect=0"):
        slice_mosaic(_ramp(), aspect=0)


def test_gif_has_all_frames_and_loops(tmp_path):
    path = write_film(tmp_path / "new" / "a.gif", _ramp())
    frames = iio.imread(path)
    assert frames.shape[:3] == slice_mosaic(_ramp()).shape
    meta = iio.immeta(path)
    assert meta["loop"] == 0 and meta["duration"] == 80


def test_mp4_repeats_the_beat_and_takes_odd_sizes(tmp_path):
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    path = write_film(tmp_path / "a.mp4", _ramp(z=1, h=257, w=255))
    command = [ffmpeg.get_ffmpeg_exe(), "-i", path, "-f", "rawvideo", "-pix_fmt", "gray", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    assert all(word in done.stderr for word in (b"h264", b"256x258", b"12 fps"))
    frames = np.frombuffer(done.stdout, np.uint8).reshape(-1, 258, 256)
    assert len(frames) == 60  # 5 s
    grey = frames[:4, :250, :250].mean(axis=(1, 2))
    np.testing.assert_allclose(grey, 255 * np.array([1, 1.1, 1.2, 1.3]) / 1.3, atol=4)


def test_mp4_without_its_package_is_refused_in_one_line(tmp_path, monkeypatch):
    def missing(name, *args):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ValueError, match=r"imageio_ffmpeg.*pip install 'kgmgt-jax\[video\]'"):
        write_film(tmp_path / "a.mp4", _ramp(h=16, w=16))
    assert not list(tmp_path.iterdir())


def test_other_films_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"ends in \.gif or \.mp4, got .*a\.avi"):
        write_film(tmp_path / "a.avi", _ramp(h=16, w=16))
