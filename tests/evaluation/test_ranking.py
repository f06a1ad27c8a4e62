"""The organisers' crop: MATLAB's rounding, its centre, its file."""

import numpy as np
import pytest
import scipy.io

from kgmgt_jax.evaluation.ranking import ranking_crop, write_ranking


def _indices(t: int, z: int, h: int, w: int) -> np.ndarray:
    """Images whose value says where a pixel lies."""
    y, x = np.mgrid[:h, :w]
    place = np.float32(1000) * y + x
    return place + np.float32(1e6) * np.arange(z)[None, :, None, None] + np.zeros((t, 1, 1, 1))


def test_size_of_the_organisers_example():
    assert ranking_crop(np.zeros((12, 10, 204, 512), np.complex64)).shape == (171, 102, 2, 3)


@pytest.mark.parametrize(
    ("h", "w", "rows", "columns"),
    [(204, 512, 102, 171), (13, 448, 7, 149), (15, 8, 8, 3), (5, 6, 3, 2), (3, 4, 2, 1)],
)
def test_halves_are_rounded_up(h, w, rows, columns):
    assert ranking_crop(np.zeros((3, 2, h, w))).shape == (columns, rows, 2, 3)


@pytest.mark.parametrize(
    ("n_slices", "kept"), [(10, [4, 5]), (3, [1, 2]), (4, [1, 2]), (5, [2, 3])]
)
def test_central_slices_as_matlab_counts(n_slices, kept):
    part = ranking_crop(_indices(3, n_slices, 4, 6))
    assert [
        int(v // 1e6) + 1 for v in part[0, 0, :, 0]
    ] == kept  # from 1, as round(z/2)-1:round(z/2)


@pytest.mark.parametrize("n_slices", [1, 2])
def test_few_slices_are_all_kept(n_slices):
    assert ranking_crop(np.zeros((3, n_slices, 6, 6))).shape[2] == n_slices


@pytest.mark.parametrize(("size", "first"), [(8, 2), (9, 2), (7, 1), (204, 51)])
def test_rows_start_where_matlabs_crop_does(size, first):
    """``floor(m/2) + 1 + ceil(-s/2)`` counted from 1, by hand; s = 4, 5, 4, 102."""
    assert int(ranking_crop(_indices(3, 1, size, 6))[0, 0, 0, 0]) // 1000 == first


@pytest.mark.parametrize(("size", "first"), [(9, 3), (8, 3), (10, 4), (512, 171)])
def test_columns_start_where_matlabs_crop_does(size, first):
    """The same for s = 3, 3, 3, 171."""
    assert int(ranking_crop(_indices(3, 1, 6, size))[0, 0, 0, 0]) % 1000 == first


def test_first_three_frames_of_magnitudes():
    images = np.arange(5, dtype=np.float32)[:, None, None, None] * (-1j) * np.ones((5, 1, 6, 6))
    part = ranking_crop(images)
    assert part.dtype == np.float32
    np.testing.assert_array_equal(part[0, 0, 0], [0, 1, 2])


def test_file_is_mat_v5_with_the_organisers_key(tmp_path):
    images = _indices(3, 3, 8, 9)
    path = write_ranking(tmp_path / "new" / "cine_sax.mat", images)
    assert path.read_bytes().startswith(b"MATLAB 5.0 MAT-file")
    stored = scipy.io.loadmat(path)["img4ranking"]
    assert stored.dtype == np.float32 and stored.shape == (3, 4, 2, 3)
    np.testing.assert_array_equal(stored, ranking_crop(images))


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (3, 8, 8), (3, 0, 8, 8)])
def test_other_images_are_refused(shape):
    with pytest.raises(ValueError, match="expected"):
        ranking_crop(np.zeros(shape))
