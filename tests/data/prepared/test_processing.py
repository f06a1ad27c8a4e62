"""A prepared slice is the file's image, cropped about its centre and divided by its scale."""

import json
from dataclasses import replace

import numpy as np
import pytest

from kgmgt_jax.data.case import CaseMeta, CineCase, DataError
from kgmgt_jax.data.prepared import PrepareOptions
from kgmgt_jax.data.prepared.acquired import acquired_mask
from kgmgt_jax.data.prepared.processing import process
from kgmgt_jax.data.sens_cache import missing_sens
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


def _undersampled(shape, columns: slice = slice(None), **arrays):
    """A case whose frames measured every second line, others in turn, and the central six."""
    t, _, h, w = shape
    mask = np.zeros((t, h, w), np.float32)
    for frame in range(t):
        mask[frame, frame % 2 :: 2, columns] = 1
    mask[:, h // 2 - 3 : h // 2 + 3, columns] = 1
    meta = CaseMeta("file.mat", "P1/slice0", "kspace", 0, 1, "npy", fully_sampled=False)
    return CineCase(kspace(shape) * mask[:, None], mask, meta, **arrays)


@pytest.mark.parametrize("readout, columns", [(6, slice(None)), (None, slice(3, None))])
def test_an_undersampled_slice_keeps_its_lines(readout, columns):
    case = _undersampled((3, 1, 13, 9), columns)
    processed = process(case, PrepareOptions(readout=readout, undersampled=True))
    stored = json.loads(json.dumps(processed.meta["acquired"]))
    width = processed.images.shape[-1]
    mask = acquired_mask(stored, (3, 13, width))
    np.testing.assert_array_equal(mask, case.mask[..., :width] if readout else case.mask)
    found = np.abs(fft2c(processed.images[:, 0])) > 1e-4
    np.testing.assert_array_equal(found, mask > 0)


@pytest.mark.parametrize("columns", [slice(None), slice(3, None)])
def test_maps_of_an_undersampled_slice_come_of_all_it_measured(columns):
    case = _undersampled((3, 3, 16, 12), columns)
    processed = process(case, PrepareOptions(undersampled=True))
    expected = missing_sens(case, "espirit")
    np.testing.assert_allclose(processed.sens, expected, atol=1e-3)  # eigenvectors, of noise alone
    assert processed.meta["sens"] == "espirit, all lines"


def test_maps_of_an_undersampled_slice_are_those_of_its_cut_images():
    case = _undersampled((3, 3, 16, 12))
    processed = process(case, PrepareOptions(readout=8, undersampled=True))
    kept = fft2c(ifft2c(case.kspace)[..., 2:10])
    expected = missing_sens(replace(case, kspace=kept, mask=case.mask[..., :8]), "espirit")
    np.testing.assert_allclose(processed.sens, expected, atol=1e-3)


@pytest.mark.parametrize("cut", [False, True])
def test_an_undersampled_slice_without_whole_lines_is_refused(cut):
    case = _undersampled((3, 1, 13, 9), slice(3, None))
    told = "lines of all 9 columns to cut them to 6, got 6 columns; leave out --readout"
    if not cut:
        case.mask[0, 0, 5] = 1 - case.mask[0, 0, 5]
        told = "a mask of lines to prepare, got one of single samples; --skip-bad leaves it out"
    with pytest.raises(DataError, match=rf"\[P1/slice0\]: expected {told}"):
        process(case, PrepareOptions(readout=6 if cut else None, undersampled=True))


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
