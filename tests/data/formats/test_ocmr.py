"""ISMRMRD files: written by their own library, read back equal or refused."""

from contextlib import nullcontext

import h5py
import numpy as np
import pytest

from kgmgt_jax.data.formats import DataWarning, read_file
from tests.data.formats import writers
from tests.data.formats.refusals import refused


def test_ismrmrd_averages_become_the_data(tmp_path):
    pytest.importorskip("ismrmrd")
    file = read_file(writers.write_ismrmrd(tmp_path))
    assert file[0].meta.pixel_mm == pytest.approx((300 / 9, 300 / 8))
    assert file.fully_sampled and len(file) == 2
    assert file[0].meta.nominal_acceleration == 1
    for z in range(2):
        np.testing.assert_allclose(file[z].kspace, writers.kspace()[:, z], atol=1e-6)
    assert file[0].meta.orientation == "rows to A, columns to L"


def test_ismrmrd_readouts_that_are_no_images_are_skipped(tmp_path):
    ismrmrd = pytest.importorskip("ismrmrd")
    path = writers.write_ismrmrd(tmp_path)
    kinds = ("NOISE_MEASUREMENT", "PARALLEL_CALIBRATION", "NAVIGATION_DATA", "PHASECORR_DATA")
    kinds += ("HPFEEDBACK_DATA", "DUMMYSCAN_DATA", "RTFEEDBACK_DATA")
    kinds += ("PHASE_STABILIZATION_REFERENCE", "PHASE_STABILIZATION")
    with ismrmrd.Dataset(str(path), "dataset") as file:
        for kind in (*kinds, "SURFACECOILCORRECTIONSCAN_DATA"):
            acquisition = file.read_acquisition(1)
            acquisition.clearAllFlags()
            acquisition.setFlag(getattr(ismrmrd, f"ACQ_IS_{kind}"))
            file.append_acquisition(acquisition)
    np.testing.assert_allclose(read_file(path)[0].kspace, writers.kspace()[:, 0], atol=1e-6)


@pytest.mark.parametrize("mode", ["embedded", "interleaved", "separate", "external", "other"])
def test_calibration_lines_count_where_they_are_the_scans_own(tmp_path, mode):
    ismrmrd = pytest.importorskip("ismrmrd")
    path = writers.write_ismrmrd(tmp_path)
    factors = "<kspace_encoding_step_1>2</kspace_encoding_step_1><kspace_encoding_step_2>1"
    told = f"<accelerationFactor>{factors}</kspace_encoding_step_2></accelerationFactor>"
    told = f"<parallelImaging>{told}<calibrationMode>{mode}</calibrationMode></parallelImaging>"
    with h5py.File(path, "r+") as file:
        header = file["dataset/xml"][0].replace(b"</encoding>", told.encode() + b"</encoding>")
        file["dataset/xml"][0] = header
        data = file["dataset/data"][()]
        line = data["head"]["idx"]["kspace_encode_step_1"]
        data["head"]["flags"][line == 5] = 1 << (ismrmrd.ACQ_IS_PARALLEL_CALIBRATION - 1)
        file["dataset/data"][()] = data
    case = read_file(path)[0]
    assert case.mask[:, 5].all() == (mode in ("embedded", "interleaved"))
    lines = case.mask[0, :, 0] > 0
    expected = writers.kspace()[:, 0][..., lines, :]
    np.testing.assert_allclose(case.kspace[..., lines, :], expected, atol=1e-6)


def _place_slices(path, positions, directions, counter="slice"):
    """Makes four slices, or sets of one, of two averages of two, and says where they lie."""
    ismrmrd = pytest.importorskip("ismrmrd")
    with ismrmrd.Dataset(str(path), "dataset") as file:
        for number in range(1, file.number_of_acquisitions()):
            acquisition = file.read_acquisition(number)
            z = 2 * acquisition.idx.slice + acquisition.idx.average
            acquisition.idx.slice, acquisition.position[:] = 0, positions[z]
            setattr(acquisition.idx, counter, z)
            acquisition.read_dir[:], acquisition.phase_dir[:] = directions[z]
            file.write_acquisition(acquisition, number)


@pytest.mark.parametrize(
    ("depths", "order"),
    [
        ((0, 16, 8, 24), (0, 2, 1, 3)),
        ((24, 16, 8, 0), (0, 1, 2, 3)),  # from one end to the other: as they are numbered
        ((0, 0, 0, 0), (0, 1, 2, 3)),  # of a header that does not say
    ],
)
def test_slices_that_ismrmrd_numbers_as_acquired_are_in_order_of_position(tmp_path, depths, order):
    pytest.importorskip("ismrmrd")
    path = writers.write_ismrmrd(tmp_path)
    normal = np.array([0.0, -0.6, -0.8])  # read x phase
    directions = [((1, 0, 0), (0, -0.8, 0.6))] * 4
    _place_slices(path, [(7, 5, 3) + depth * normal for depth in depths], directions)
    told = order != (0, 1, 2, 3)
    with pytest.warns(DataWarning, match="in order of position") if told else nullcontext():
        file = read_file(path)
    for case, z in zip(file, order, strict=True):
        expected = writers.kspace()[:, z // 2] + (0.5 if z % 2 else -0.5)
        np.testing.assert_allclose(case.kspace, expected, atol=1e-6)
        assert case.meta.is_stack
    assert ("slices are in order of position" in file.notes) == told


def test_sets_of_an_ismrmrd_slice_stay_in_order_where_it_follows_the_heart(tmp_path):
    pytest.importorskip("ismrmrd")
    path = writers.write_ismrmrd(tmp_path)
    directions = [((1, 0, 0), (0, 1, 0))] * 4
    _place_slices(path, [(0, 0, depth) for depth in (0, 2, 1, 3)], directions, "set")
    for z, case in enumerate(read_file(path)):
        expected = writers.kspace()[:, z // 2] + (0.5 if z % 2 else -0.5)
        np.testing.assert_allclose(case.kspace, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("other", "lies"),
    [
        (((0, 0, 1), (0, 1, 0)), "rows to P, columns to S"),
        (((1, 0, 0), (0, 0, 1)), "rows to S, columns to L"),  # turned about the readout
        (((0, 0, 1), (0, -1, 0)), "rows to A, columns to S"),
        (((0, 0, 0), (0, 0, 0)), "unknown"),  # of headers that do not say
    ],
)
def test_ismrmrd_slices_of_several_orientations_have_their_own(tmp_path, other, lies):
    pytest.importorskip("ismrmrd")
    path = writers.write_ismrmrd(tmp_path)
    directions = [((1, 0, 0), (0, -1, 0)), other] * 2
    _place_slices(path, [(0, 0, depth) for depth in (0, 16, 8, 24)], directions)
    cases = list(read_file(path))
    found = [case.meta.orientation for case in cases]
    assert found == ["rows to A, columns to L", lies] * 2
    assert not any(case.meta.is_stack for case in cases)
    np.testing.assert_allclose(cases[1].kspace, writers.kspace()[:, 0] + 0.5, atol=1e-6)


def test_repetitions_of_a_gated_cine_are_cases_of_their_own(tmp_path):
    ismrmrd = pytest.importorskip("ismrmrd")
    path = writers.write_ismrmrd(tmp_path)
    with ismrmrd.Dataset(str(path), "dataset") as file:
        for number in range(1, file.number_of_acquisitions()):
            acquisition = file.read_acquisition(number)
            acquisition.idx.repetition = acquisition.idx.average
            file.write_acquisition(acquisition, number)
    cases = list(read_file(path))
    assert len(cases) == 4
    for case, (z, sign) in zip(cases, np.ndindex(2, 2), strict=True):
        expected = writers.kspace()[:, z] + (0.5 if sign else -0.5)
        np.testing.assert_allclose(case.kspace, expected, atol=1e-6)


def test_ismrmrd_lines_that_were_skipped_are_not_in_the_mask(tmp_path):
    pytest.importorskip("ismrmrd")
    case = read_file(writers.write_ismrmrd(tmp_path, skip=(0, 3)))[0]
    expected = np.ones((3, 9, 8), np.float32)
    expected[:, [0, 3]] = 0
    np.testing.assert_array_equal(case.mask, expected)
    assert not case.meta.fully_sampled and case.meta.nominal_acceleration is None


def test_a_late_echo_is_padded_in_front(tmp_path):
    pytest.importorskip("ismrmrd")
    file = read_file(writers.write_ismrmrd(tmp_path, late=2))
    case = file[1]
    assert case.shape == (3, 4, 9, 8)
    assert not case.mask[..., :2].any() and case.mask[..., 2:].all()
    np.testing.assert_allclose(case.kspace[..., 2:], writers.kspace()[:, 1][..., 2:], atol=1e-6)
    assert "asymmetric echo" in file.notes[0]


@pytest.mark.parametrize("late", [0, 2])
@pytest.mark.parametrize("reverse", [0, 1])
def test_readouts_in_reverse_are_turned_round(tmp_path, late, reverse):
    pytest.importorskip("ismrmrd")
    expected = read_file(writers.write_ismrmrd(tmp_path, late=late))[1]
    case = read_file(writers.write_ismrmrd(tmp_path, late=late, reverse=reverse))[1]
    np.testing.assert_array_equal(case.kspace, expected.kspace)
    np.testing.assert_array_equal(case.mask, expected.mask)


@pytest.mark.parametrize(("centre", "front"), [(0, 2), (5, 0)])
def test_an_impossible_centre_of_an_echo_tells_its_side_alone(tmp_path, centre, front):
    """6 of 8 samples do not begin or end at the centre, but lie nearer to it on one side."""
    ismrmrd = pytest.importorskip("ismrmrd")
    path = writers.write_ismrmrd(tmp_path, early=2)
    with ismrmrd.Dataset(str(path), "dataset") as file:
        for number in range(1, file.number_of_acquisitions()):
            acquisition = file.read_acquisition(number)
            acquisition.center_sample = centre
            file.write_acquisition(acquisition, number)
    mask = read_file(path)[0].mask
    np.testing.assert_array_equal(np.flatnonzero(mask[0, 0]), np.arange(6) + front)


@pytest.mark.parametrize("reverse", [None, 1])
def test_samples_to_be_discarded_were_not_measured(tmp_path, reverse):
    pytest.importorskip("ismrmrd")
    file = read_file(writers.write_ismrmrd(tmp_path, discard=(2, 1), reverse=reverse))
    case = file[1]
    assert case.mask[..., 2:7].all() and case.mask.sum() == 3 * 9 * 5
    expected = np.where(case.mask[:, None] > 0, writers.kspace()[:, 1], 0)
    np.testing.assert_allclose(case.kspace, expected, atol=1e-6)
    assert file.fully_sampled and file.notes == ("3 samples of each readout discarded",)


def test_samples_that_one_readout_wants_discarded_are_of_none(tmp_path):
    ismrmrd = pytest.importorskip("ismrmrd")
    path = writers.write_ismrmrd(tmp_path)
    with ismrmrd.Dataset(str(path), "dataset") as file:
        acquisition = file.read_acquisition(7)
        acquisition.discard_pre, acquisition.discard_post = 2, 1
        file.write_acquisition(acquisition, 7)
    mask = read_file(path)[0].mask
    np.testing.assert_array_equal(mask, np.broadcast_to([0, 0, 1, 1, 1, 1, 1, 0], mask.shape))


@pytest.mark.parametrize("reverse", [None, 0])
@pytest.mark.parametrize("tone", [0, 1])
def test_samples_that_a_pilot_tone_spoils_were_not_measured(tmp_path, tone, reverse):
    """The first three of a readout and its last, in the order in which they were sampled."""
    pytest.importorskip("ismrmrd")
    path = writers.write_ismrmrd(tmp_path, reverse=reverse)
    told = f"<userParameterLong><name>PilotTone</name><value>{tone}</value></userParameterLong>"
    told = f"</encoding><userParameters>{told}</userParameters>".encode()
    with h5py.File(path, "r+") as file:
        file["dataset/xml"][0] = file["dataset/xml"][0].replace(b"</encoding>", told)
    file = read_file(path)
    kept = slice(None) if not tone else slice(3, 7) if reverse is None else slice(3, 5)
    expected = np.zeros((3, 9, 8))
    expected[..., kept] = 1
    np.testing.assert_array_equal(file[0].mask, expected)
    np.testing.assert_allclose(
        file[0].kspace, writers.kspace()[:, 0] * expected[:, None], atol=1e-6
    )
    n = {None: 4, 0: 6}[reverse]
    assert file.notes == ((f"{n} samples of each readout discarded, some for a pilot tone",) * tone)


def test_a_short_readout_about_its_own_middle_is_not_padded(tmp_path):
    pytest.importorskip("ismrmrd")
    file = read_file(writers.write_ismrmrd(tmp_path, late=1, early=1))
    assert file[0].shape == (3, 4, 9, 6) and file.notes == ()


def test_ismrmrd_pixels_have_the_height_of_ky(tmp_path):
    pytest.importorskip("ismrmrd")
    path = writers.write_ismrmrd(tmp_path)
    with h5py.File(path, "r+") as file:
        file["dataset/xml"][0] = file["dataset/xml"][0].replace(b"<y>300", b"<y>180")
    assert read_file(path).pixel_mm == pytest.approx((180 / 9, 300 / 8))


def test_readouts_without_a_sample_to_keep_are_refused(tmp_path):
    pytest.importorskip("ismrmrd")
    with refused("some of 8 samples of a readout to be kept, got 5 in front and 3 behind"):
        read_file(writers.write_ismrmrd(tmp_path, discard=(5, 3)))


def test_readouts_of_other_encodings_are_left_out(tmp_path):
    ismrmrd = pytest.importorskip("ismrmrd")
    path = writers.write_ismrmrd(tmp_path)
    expected = read_file(path)[0].kspace
    with ismrmrd.Dataset(str(path), "dataset") as file:
        calibration = ismrmrd.Acquisition.from_array(writers.kspace((4, 6), "other"))
        calibration.encoding_space_ref = 1
        file.append_acquisition(calibration)
    file = read_file(path)
    np.testing.assert_array_equal(file[0].kspace, expected)
    assert file.notes == ("1 readouts of other encodings left out",)


def test_lines_that_were_not_to_be_acquired_are_no_undersampling(tmp_path):
    pytest.importorskip("ismrmrd")
    file = read_file(writers.write_ismrmrd(tmp_path, skip=(0, 1), first=2))
    assert file.fully_sampled and file.notes == ("partial Fourier, without lines 0 to 1",)
    assert not file[0].mask[:, :2].any() and file[0].mask[:, 2:].all()
    assert read_file(writers.write_ismrmrd(tmp_path, first=2)).notes == ()


def test_an_echo_that_ends_early_is_padded_behind(tmp_path):
    pytest.importorskip("ismrmrd")
    case = read_file(writers.write_ismrmrd(tmp_path, early=2))[1]
    assert case.shape == (3, 4, 9, 8) and case.acs == 9
    assert case.meta.pixel_mm == pytest.approx((300 / 9, 300 / 8))
    assert case.mask[..., :6].all() and not case.mask[..., 6:].any()
    np.testing.assert_allclose(case.kspace[..., :6], writers.kspace()[:, 1][..., :6], atol=1e-6)


@pytest.mark.parametrize(("centre", "padding", "n_lines"), [(2, (5, 0), 14), (6, (0, 3), 12)])
def test_the_centre_of_a_partial_fourier_scan_is_padded_to_the_middle(
    tmp_path, centre, padding, n_lines
):
    pytest.importorskip("ismrmrd")
    file = read_file(writers.write_ismrmrd(tmp_path, centre=centre, peak=centre))
    case = file[0]
    assert case.shape == (3, 4, n_lines, 8) and file.fully_sampled
    assert file.pixel_mm == pytest.approx((300 / n_lines, 300 / 8))
    assert int(np.abs(case.kspace).sum(axis=(0, 1, 3)).argmax()) == n_lines // 2
    assert (case.mask.sum(axis=1) == 9).all() and "partial Fourier" in file.notes[0]
    kept = case.kspace[:, :, padding[0] : n_lines - padding[1]]
    line = [y for y in range(9) if y != centre]
    np.testing.assert_allclose(kept[..., line, :], writers.kspace()[:, 0][..., line, :], atol=1e-6)


def test_a_header_whose_centre_the_energy_denies_is_not_followed(tmp_path):
    pytest.importorskip("ismrmrd")
    file = read_file(writers.write_ismrmrd(tmp_path, centre=0, peak=4))
    assert file[0].shape == (3, 4, 9, 8) and "is line 0" in file.notes[0]


def test_ismrmrd_lines_beyond_the_header_are_refused(tmp_path):
    ismrmrd = pytest.importorskip("ismrmrd")
    path = writers.write_ismrmrd(tmp_path)
    with ismrmrd.Dataset(str(path), "dataset") as file:
        acquisition = file.read_acquisition(5)
        acquisition.idx.kspace_encode_step_1 = 9
        file.write_acquisition(acquisition, 5)
    with refused("lines 0 to 8 as its header says, got a readout of line 9"):
        read_file(path)
