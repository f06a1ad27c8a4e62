"""Every format holds the same images, in the same order, and refuses what it cannot write."""

import dataclasses

import h5py
import imageio.v3 as iio
import numpy as np
import pytest

from kgmgt_jax.data.formats import find_units, read_file
from kgmgt_jax.data.formats.arrays import attribute_text
from kgmgt_jax.data.transforms import fft2c, ifft2c
from kgmgt_jax.evaluation import outputs
from kgmgt_jax.evaluation.films import slice_mosaic
from kgmgt_jax.evaluation.geometry import read_geometry
from kgmgt_jax.evaluation.outputs import ImageVolume, consistent_images, write_outputs

nibabel = pytest.importorskip("nibabel")
pytest.importorskip("pydicom")

from tests.evaluation.test_geometry import write_template  # noqa: E402


def _complex(*shape: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


@pytest.fixture
def volume():
    images = _complex(3, 2, 20, 30)
    return ImageVolume(
        images, np.abs(images), "KGMgT, true 3.2x", (1.5, 1.25), 0.04, {"true_acceleration": 3.2}
    )


def test_arrays_come_back_from_every_array_format(tmp_path, volume):
    paths = write_outputs(tmp_path / "new", "case", volume, ["mat", "h5", "npy"])
    assert {p.name for p in paths} == {p.name for p in (tmp_path / "new").iterdir()}
    found = {}
    for name, key in (("recon", "reconstruction"), ("magnitude", "magnitude")):
        with h5py.File(tmp_path / "new" / f"case_{name}.mat") as file:
            stored = file[key][:]
            found["mat", name] = stored["real"] + 1j * stored["imag"] if name == "recon" else stored
        with h5py.File(tmp_path / "new" / "case_recon.h5") as file:
            found["h5", name] = file[key][:]
            assert file.attrs["axes"] == "t,z,ky,kx" and file.attrs["true_acceleration"] == 3.2
        found["npy", name] = np.load(tmp_path / "new" / f"case_{name}.npy")
    for (_, name), array in found.items():
        expected = volume.images if name == "recon" else volume.magnitude
        assert array.dtype == expected.dtype
        np.testing.assert_array_equal(array, expected)


def test_arrays_beside_their_kspace_are_not_read_as_such(tmp_path, volume):
    kspace = tmp_path / "a_kspace.npy"
    np.save(kspace, _complex(3, 4, 20, 30))
    write_outputs(tmp_path, "a_kspace", volume, ["mat", "h5", "npy"])
    assert [unit.path for unit in find_units(tmp_path)] == [kspace]


def test_nifti_is_x_y_z_t_in_mm_and_s(tmp_path, volume):
    write_outputs(tmp_path, "case", volume, ["nii"])
    image = nibabel.load(tmp_path / "case_magnitude.nii.gz")
    np.testing.assert_array_equal(np.asarray(image.dataobj).transpose(3, 2, 1, 0), volume.magnitude)
    assert image.header.get_zooms() == pytest.approx((1.25, 1.5, 1, 0.04))
    assert image.header.get_xyzt_units() == ("mm", "sec")
    recon = nibabel.load(tmp_path / "case_recon.nii.gz")
    np.testing.assert_array_equal(np.asarray(recon.dataobj).transpose(3, 2, 1, 0), volume.images)
    assert not any(p.name.startswith(".") for p in tmp_path.iterdir())


def test_nifti_of_unknown_pixels_has_pixels_of_one_and_no_times(tmp_path, volume):
    unknown = dataclasses.replace(volume, pixel_mm=None, frame_seconds=None)
    write_outputs(tmp_path, "case", unknown, ["nii"])
    assert nibabel.load(tmp_path / "case_magnitude.nii.gz").header.get_zooms() == (1, 1, 1, 0)


def test_nifti_and_dicom_lie_alike_without_a_template(tmp_path, volume):
    pydicom = pytest.importorskip("pydicom")
    write_outputs(tmp_path, "case", volume, ["nii", "dicom"])
    affine = nibabel.load(tmp_path / "case_magnitude.nii.gz").affine
    dicom = pydicom.dcmread(tmp_path / "case_dicom" / "slice00_frame000.dcm")
    along = np.asarray(dicom.ImageOrientationPatient, float).reshape(2, 3)  # L, P, S
    steps = along * np.asarray(dicom.PixelSpacing, float)[::-1, None]
    np.testing.assert_allclose(affine[:3, :2].T, steps * [-1, -1, 1], atol=1e-6)


def test_matlab_files_say_how_they_were_simulated(tmp_path, volume):
    told = dataclasses.replace(volume, attributes={"simulation": "erdacht für 山田"})
    for path in write_outputs(tmp_path, "case", told, ["mat"]):
        with h5py.File(path) as file:
            (item,) = file.values()
            assert attribute_text(item, "simulation") == "erdacht für 山田"


def test_our_own_reader_takes_the_nifti(tmp_path, volume):
    write_outputs(tmp_path, "case", volume, ["nii"])
    file = read_file(tmp_path / "case_magnitude.nii.gz")
    np.testing.assert_allclose(np.abs(file[1].reference), volume.magnitude[:, 1], rtol=1e-5)


def test_nifti_and_dicom_take_the_templates_place(tmp_path, volume):
    template = write_template(tmp_path / "template")
    geometry = read_geometry(template, volume.magnitude.shape)
    write_outputs(tmp_path / "out", "case", volume, ["nii", "dicom"], geometry=geometry)
    image = nibabel.load(tmp_path / "out" / "case_magnitude.nii.gz")
    np.testing.assert_allclose(
        image.affine @ [4, 7, 1, 1], _place_of(template, column=4, row=7, z=1), atol=1e-4
    )
    assert image.header.get_zooms() == pytest.approx((2, 1.5, 8, 0.04))
    other = dataclasses.replace(volume, frame_seconds=0.5)
    write_outputs(tmp_path / "other", "case", other, ["nii"], geometry=geometry)
    again = nibabel.load(tmp_path / "other" / "case_magnitude.nii.gz")
    assert again.header.get_zooms() == image.header.get_zooms()
    assert len(list((tmp_path / "out" / "case_dicom").iterdir())) == 6


@pytest.mark.parametrize(
    ("codes", "expected"), [((0, 4), 4), ((3, 1), 1), ((2, 0), 2), ((0, 0), 2)]
)
def test_nifti_says_in_both_ways_where_it_lies_and_in_what_space(tmp_path, volume, codes, expected):
    dicom = read_geometry(write_template(tmp_path / "template"), volume.magnitude.shape)
    template = nibabel.Nifti1Image(np.zeros((30, 20, 2, 3), np.float32), dicom.affine)
    template.set_qform(dicom.affine, codes[0])
    template.set_sform(dicom.affine, codes[1])
    template.to_filename(tmp_path / "t.nii.gz")
    nifti = read_geometry(tmp_path / "t.nii.gz", volume.magnitude.shape)
    for geometry, code in ((dicom, 1), (nifti, expected)):
        write_outputs(tmp_path, "case", volume, ["nii"], geometry=geometry)
        image = nibabel.load(tmp_path / "case_magnitude.nii.gz")
        for affine, found in (image.get_qform(coded=True), image.get_sform(coded=True)):
            np.testing.assert_allclose(affine, geometry.affine, atol=1e-4)
            assert found == code


@pytest.mark.parametrize("aside", [0.0, 0.005, 3.0])
def test_nifti_says_in_one_way_alone_where_slices_shift_within_their_plane(tmp_path, volume, aside):
    affine = np.array([[-1.5, 0, aside, 9], [0, -1.5, 0, 8], [0, 0, 8, 7], [0, 0, 0, 1.0]])
    template = nibabel.Nifti1Image(np.zeros((30, 20, 2, 3), np.float32), affine)
    template.to_filename(tmp_path / "t.nii.gz")
    geometry = read_geometry(tmp_path / "t.nii.gz", volume.magnitude.shape)
    write_outputs(tmp_path, "case", volume, ["nii"], geometry=geometry)
    image = nibabel.load(tmp_path / "case_magnitude.nii.gz")
    np.testing.assert_allclose(image.get_sform(), affine, atol=1e-4)
    qform, code = image.get_qform(coded=True)
    assert code == (0 if aside > 1 else 2)
    if qform is not None:
        np.testing.assert_allclose(qform, affine, atol=0.01)


def _place_of(template, *, column: int, row: int, z: int) -> list[float]:
    from tests.evaluation.test_geometry import COLUMNS, GAP, NORMAL, ORIGIN, ROWS, SPACING

    x, y, s = ORIGIN + column * SPACING[1] * COLUMNS + row * SPACING[0] * ROWS + z * GAP * NORMAL
    return [-x, -y, s, 1]


def test_films_are_written_beside_the_figure(tmp_path, volume):
    paths = write_outputs(tmp_path, "case", volume, ["gif"])
    assert [p.name for p in paths] == ["case_slices.gif"]
    expected = slice_mosaic(volume.magnitude, aspect=1.5 / 1.25)
    assert iio.imread(paths[0]).shape[:3] == expected.shape


def test_nothing_is_left_of_a_nifti_file_that_could_not_be_written(tmp_path, volume, monkeypatch):
    def to_filename(image, path):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(nibabel.Nifti1Image, "to_filename", to_filename)
    with pytest.raises(OSError, match="No space left"):
        write_outputs(tmp_path, "case", volume, ["nii"])
    assert not list(tmp_path.iterdir())


def test_formats_are_written_once(tmp_path, volume):
    assert len(write_outputs(tmp_path, "case", volume, ["npy", "npy"])) == 2


@pytest.mark.parametrize(
    ("formats", "message"),
    [
        (["npy", "jpeg"], "jpeg"),
        (["npy", "dicom"], "of DICOM, got NIfTI"),
        ([], "formats among mat, .*got none"),
    ],
)
def test_what_cannot_be_written_is_refused_before_anything_is(tmp_path, volume, formats, message):
    template = tmp_path / "t.nii.gz"
    nibabel.Nifti1Image(np.zeros((30, 20, 2, 3), np.float32), np.eye(4)).to_filename(template)
    geometry = read_geometry(template, volume.magnitude.shape)
    with pytest.raises(ValueError, match=message):
        write_outputs(tmp_path / "out", "case", volume, formats, geometry=geometry)
    assert not (tmp_path / "out").exists()


def test_an_empty_path_is_not_the_current_folder():
    with pytest.raises(ValueError, match="expected a folder to write to, got an empty path"):
        outputs.check_outputs("", ["mat"])


def test_a_package_without_ffmpeg_is_told_before_the_work(tmp_path, monkeypatch):
    """As imageio-ffmpeg before 0.6 on Macs with Apple silicon, for which it has no wheel."""
    ffmpeg = pytest.importorskip("imageio_ffmpeg")

    def none():
        raise RuntimeError("No ffmpeg exe could be found.")

    monkeypatch.setattr(ffmpeg, "get_ffmpeg_exe", none)
    with pytest.raises(ValueError, match=r"got No ffmpeg exe.*pip install 'kgmgt-jax\[video\]'"):
        outputs.check_outputs(tmp_path, ["mp4"])


@pytest.mark.parametrize("kind", [*outputs._PACKAGES, "mp4"])
def test_missing_package_is_named_with_its_extra(tmp_path, volume, kind, monkeypatch):
    def missing(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(outputs.importlib, "import_module", missing)
    with pytest.raises(ValueError, match=r"to write '\w+'.*pip install 'kgmgt-jax\[\w+\]'"):
        write_outputs(tmp_path / "out", "case", volume, ["npy", kind])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("images", "message"),
    [(_complex(3, 2, 20, 31), "one shape"), (np.full((3, 2, 20, 30), np.nan), "finite")],
)
def test_unfit_images_are_refused(images, message):
    with pytest.raises(ValueError, match=message):
        ImageVolume(images, np.zeros((3, 2, 20, 30), np.float32), "x")


def test_single_coil_keeps_every_measured_sample():
    truth, guess = _complex(2, 16, 15), _complex(2, 16, 15, seed=1)
    mask = (np.random.default_rng(2).random((2, 16, 15)) < 0.3).astype(np.float32)
    kspace = (fft2c(truth) * mask)[:, None]
    kspace[:, 0][tuple(np.argwhere(mask)[0])] = 0  # which was measured, too
    combined, magnitude = consistent_images(guess, kspace, mask, None)
    after = fft2c(combined)
    np.testing.assert_allclose(after[mask > 0], kspace[:, 0][mask > 0], atol=1e-5)
    np.testing.assert_allclose(after[mask == 0], fft2c(guess)[mask == 0], atol=1e-5)
    np.testing.assert_allclose(magnitude, np.abs(combined), atol=1e-6)


def test_all_samples_give_the_root_sum_of_squares_whatever_the_guess():
    kspace, sens = _complex(2, 3, 16, 15), _complex(3, 16, 15, seed=1)
    sens /= np.sqrt(np.sum(np.abs(sens) ** 2, axis=0))
    combined, magnitude = consistent_images(
        _complex(2, 16, 15, seed=2), kspace, np.ones((2, 16, 15), np.float32), sens
    )
    coil_images = ifft2c(kspace)
    rss = np.sqrt(np.sum(np.abs(coil_images) ** 2, axis=1))
    np.testing.assert_allclose(magnitude, rss, rtol=1e-5)
    np.testing.assert_allclose(combined, np.sum(sens.conj() * coil_images, axis=1), atol=1e-5)


@pytest.mark.parametrize("wrong", [{"mask": np.ones((1, 16, 15), np.float32)}, {"sens": None}])
def test_arrays_of_several_cines_are_not_made_consistent(wrong):
    arrays = {"mask": np.ones((2, 16, 15), np.float32), "sens": _complex(3, 16, 15)} | wrong
    with pytest.raises(ValueError, match=r"expected images and mask \(t, h, w\), k-space"):
        consistent_images(_complex(2, 16, 15), _complex(2, 3, 16, 15), **arrays)


def test_consistent_reconstruction_is_left_alone():
    sens = _complex(3, 16, 15, seed=1)
    sens /= np.sqrt(np.sum(np.abs(sens) ** 2, axis=0))
    image = _complex(2, 16, 15)
    mask = (np.random.default_rng(2).random((2, 16, 15)) < 0.3).astype(np.float32)
    kspace = fft2c(sens * image[:, None]) * mask[:, None]
    combined, magnitude = consistent_images(image, kspace, mask, sens)
    np.testing.assert_allclose(combined, image, atol=1e-5)
    np.testing.assert_allclose(magnitude, np.abs(image), atol=1e-5)


def test_shapes_that_disagree_are_refused():
    with pytest.raises(ValueError, match=r"kspace.shape=\(2, 1, 16, 14\)"):
        consistent_images(_complex(2, 16, 15), _complex(2, 1, 16, 14), np.ones((2, 16, 15)), None)
