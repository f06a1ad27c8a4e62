"""A prepared slice is the file's image, cropped about its centre and divided by its scale."""

import numpy as np
import pytest

from kgmgt_jax.data.case import CaseMeta, CineCase, DataError
from kgmgt_jax.data.prepared import PrepareOptions
from kgmgt_jax.data.prepared.processing import process
from kgmgt_jax.data.transforms import coil_combine, fft2c, ifft2c
from kgmgt_jax.mri.coils import estimate_sens
from tests.data.formats.writers import kspace


def _case(shape, **arrays):
    t, _, h, w = shape
    meta = CaseMeta("file.mat", "P1/slice0", "kspace", 0, 1, "npy", True)
    return CineCase(kspace(shape), np.ones((t, h, w), np.float32), meta, **arrays)


@pytest.mark.parametrize("width, kept, start", [(8, 4, 2), (9, 4, 2), (8, 3, 3), (9, 5, 2)])
def test_the_crop_keeps_the_centre(width, kept, start):
    case = _case((2, 1, 5, width))
    processed = process(case, PrepareOptions(readout=kept))
    expected = ifft2c(case.kspace)[..., start : start + kept]
    np.testing.assert_allclose(processed.images * processed.scale, expected, rtol=1e-5)
    assert start + kept // 2 == width // 2


@pytest.mark.parametrize("readout", [None, 8, 20])
def test_a_wider_readout_keeps_all(readout):
    assert process(_case((2, 1, 5, 8)), PrepareOptions(readout=readout)).images.shape[-1] == 8


@pytest.mark.parametrize("width, readout", [(16, 8), (15, 8), (16, 9), (15, 5), (16, None)])
def test_what_the_scanner_left_out_is_kept_at_the_frequencies_of_the_cut_image(width, readout):
    taken = np.zeros((10, width), np.float32)
    taken[2:, 5:] = 1
    case = _case((2, 1, 10, width))
    case = CineCase(case.kspace * taken, np.stack([taken, taken]), case.meta)
    rows, columns = process(case, PrepareOptions(readout=readout)).meta["acquired"]
    kept = readout or width
    frequency = (np.arange(width) - width // 2) / width  # cycles a pixel
    after = (np.arange(kept) - kept // 2) / kept
    inside = np.flatnonzero(after >= frequency[5])
    assert rows == (2, 10) and inside.tolist() == list(range(*columns))


@pytest.mark.parametrize("width, readout", [(16, 9), (15, 8), (8, 8)])
def test_whole_readouts_stay_whole(width, readout):
    case = _case((2, 1, 10, width))
    taken = np.ones_like(case.mask)
    taken[:, :3] = 0
    case = CineCase(case.kspace * taken[:, None], taken, case.meta)
    acquired = process(case, PrepareOptions(readout=readout)).meta["acquired"]
    assert acquired == ((3, 10), (0, readout))


def test_a_scan_of_all_samples_has_no_bounds():
    assert process(_case((2, 1, 5, 8)), PrepareOptions(readout=4)).meta["acquired"] is None


@pytest.mark.parametrize("leading", [(), (3,)])
def test_the_scale_is_the_99th_percentile_of_the_combined_images(leading):
    sens = kspace((*leading, 4, 9, 8), "sens")
    case = _case((3, 4, 9, 8), sens=sens)
    processed = process(case, PrepareOptions())
    combined = np.abs(coil_combine(ifft2c(case.kspace), sens))
    assert processed.scale == pytest.approx(np.percentile(combined, 99), rel=1e-6)
    assert processed.scale == np.float32(processed.scale)
    np.testing.assert_array_equal(processed.sens, sens)
    assert processed.meta["sens"] == "the file"


@pytest.mark.parametrize("method", ["adaptive", "espirit"])
def test_sensitivities_are_estimated_on_the_cropped_field_of_view(method):
    case = _case((2, 3, 12, 16))
    processed = process(case, PrepareOptions(readout=10, sens=method, acs=8))
    average = fft2c(ifft2c(case.kspace)[..., 3:13].mean(0, keepdims=True))
    everything = np.ones((1, 12, 10), np.float32)
    expected = estimate_sens(average, everything, acs=8, method=method)
    np.testing.assert_allclose(processed.sens, expected, atol=1e-4)
    assert processed.meta["sens"] == f"{method}, 8 lines"


def test_maps_of_the_file_are_cut_as_the_images_are():
    sens = kspace((4, 9, 8), "sens")
    processed = process(_case((3, 4, 9, 8), sens=sens), PrepareOptions(readout=4))
    np.testing.assert_array_equal(processed.sens, sens[..., 2:6])


def test_lines_to_calibrate_on_are_all_where_there_are_fewer_than_asked_for():
    processed = process(_case((2, 3, 12, 16)), PrepareOptions(sens="adaptive", acs=24))
    assert processed.meta["sens"] == "adaptive, 12 lines"


def test_a_single_coil_has_no_sensitivities():
    processed = process(_case((2, 1, 5, 8)), PrepareOptions())
    assert processed.sens is None and processed.meta["sens"] == "none: a single coil"


def test_too_few_lines_to_calibrate_on_are_told_by_slice():
    with pytest.raises(DataError, match=r"file.mat \[P1/slice0\]: expected coil maps, or lines"):
        process(_case((2, 3, 3, 8)), PrepareOptions(sens="adaptive"))
