"""A slice of a file, reconstructed: what its images are compared by."""

import json

import h5py
import numpy as np
import pytest
from PIL import Image

from kgmgt_jax.data.case import DataError
from kgmgt_jax.data.formats import read_file
from kgmgt_jax.data.phantom import make_cine, write_cmrxrecon2023
from kgmgt_jax.data.transforms import ifft2c
from kgmgt_jax.evaluation.files import _name_of, reconstruct_case, reconstruct_file
from kgmgt_jax.evaluation.methods import Method
from tests.data.formats import writers


class _Nothing(Method):
    """A network whose images are zero."""

    def reconstruct(self, kspace, mask, sens, progress=None):
        return np.zeros(mask.shape, np.complex64)


def test_a_method_that_adds_nothing_scores_as_zero_filling(tmp_path):
    sizes = {"shape": (24, 20), "n_frames": 3, "n_slices": 1, "n_coils": 3, "acs": 8}
    paths = write_cmrxrecon2023(tmp_path, [0], accelerations=(3,), **sizes)
    path = next(path for path in paths if path.match("AccFactor03/*/cine_sax.mat"))
    done = reconstruct_case(read_file(path)[0], _Nothing("nothing", "", None, {}))
    np.testing.assert_allclose(done.zero_filled, done.magnitude, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"template": "none.dcm"}, "none"),
        ({"out": "taken"}, "a folder to write to, got a file"),
        ({"out": "/proc/nowhere"}, "a folder to write to, got"),
    ],
)
def test_what_cannot_be_written_is_refused_before_the_work(tmp_path, monkeypatch, more, message):
    sizes = {"shape": (24, 20), "n_frames": 3, "n_slices": 1, "acs": 8}
    paths = write_cmrxrecon2023(tmp_path, [0], accelerations=(3,), **sizes)
    path = next(path for path in paths if path.match("AccFactor03/*/cine_sax.mat"))
    (tmp_path / "taken").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_Nothing, "reconstruct", lambda *_: pytest.fail("worked"))
    with pytest.raises(ValueError, match=message):
        reconstruct_file(path, _Nothing("nothing", "", None, {}), **{"out": "new"} | more)


def test_a_reference_is_read_by_the_key_and_axes_of_the_file(tmp_path, monkeypatch):
    kspace = make_cine(0, shape=(24, 20), n_frames=3, noise=0.0).kspace
    mask = np.zeros((24, 1), np.float32)
    mask[::3] = mask[8:16] = 1
    for name, array in (("under", kspace * mask), ("full", kspace)):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["mine"], file["other"] = array, array[:2]
    named = {"key": "mine", "axes": "t,coil,ky,kx", "reference": tmp_path / "full.h5"}
    monkeypatch.setattr(_Nothing, "reconstruct", lambda *_: ifft2c(kspace[:, 0]))
    exact = _Nothing("exact", "", None, {})
    told = reconstruct_file(tmp_path / "under.h5", exact, tmp_path / "out", **named)
    scores = json.loads((tmp_path / "out" / "under_metrics.json").read_text())["methods"]
    assert "exact" in told and scores["exact"]["nmse"]["mean"] < 1e-9
    missing = np.sum(np.abs(kspace * (1 - mask)) ** 2) / np.sum(np.abs(kspace) ** 2)
    assert 0.1 * missing < scores["zero_filled"]["nmse"]["mean"] < missing


def test_a_reference_of_arrays_has_the_axes_of_the_file(tmp_path):
    kspace = make_cine(0, shape=(24, 24), n_frames=3, noise=0.0).kspace
    measured = np.zeros((24, 1), np.float32)
    measured[::3] = measured[8:16] = 1
    scores = []
    for order in ("ky,kx", "kx,ky"):
        folder = tmp_path / order
        folder.mkdir()
        for name, array in (("under", kspace * measured), ("full", kspace)):
            np.save(folder / f"{name}.npy", np.swapaxes(array, 2, 3) if order == "kx,ky" else array)
        named = {"axes": f"t,coil,{order}", "reference": folder / "full.npy"}
        method = _Nothing("nothing", "", None, {})
        reconstruct_file(folder / "under.npy", method, folder, **named)
        scores.append(json.loads((folder / "under_metrics.json").read_text())["methods"])
    one, other = (score["nothing"]["psnr"]["mean"] for score in scores)
    assert one == pytest.approx(other, rel=1e-4)


@pytest.mark.parametrize("path", [".", "../images", "cine.npy", "./cine.nii.gz"])
def test_outputs_are_named_like_the_file_or_folder(tmp_path, monkeypatch, path):
    (tmp_path / "images").mkdir()
    monkeypatch.chdir(tmp_path / "images")
    assert _name_of(path) == ("cine" if "cine" in path else "images")


def test_simulated_kspace_is_told(tmp_path):
    images = np.random.default_rng(0).random((3, 24, 20), np.float32)
    np.save(tmp_path / "images.npy", images)
    method = _Nothing("nothing", "", None, {})
    report = reconstruct_file(tmp_path / "images.npy", method, tmp_path / "out", formats=["h5"])
    assert "made up or left out" not in report
    assert "note: simulated from images: 8 coils" in report
    with h5py.File(tmp_path / "out" / "images_recon.h5") as file:
        assert "of simulated k-space" in file.attrs["description"]


def test_few_virtual_coils_are_told_and_scored_by_all_coils(tmp_path):
    kspace = make_cine(0, shape=(24, 20), n_frames=3, n_coils=5, noise=0.0).kspace
    mask = np.zeros((24, 1), np.float32)
    mask[::3] = mask[8:16] = 1
    for name, array in (("under", kspace * mask), ("full", kspace)):
        np.save(tmp_path / f"{name}.npy", array)
    named = {"axes": "t,coil,ky,kx", "reference": tmp_path / "full.npy", "formats": ["h5"]}
    scores = []
    for n, left in ((0, 0), (4, 4), (9, 0)):
        method = _Nothing("nothing", "", None, {}, virtual_coils=n)
        told = reconstruct_file(tmp_path / "under.npy", method, tmp_path / f"{n}", **named)
        assert ("5 coils compressed to 4 virtual ones, which hold" in told) == bool(left)
        with h5py.File(tmp_path / f"{n}" / "under_recon.h5") as file:
            assert file.attrs["virtual_coils"] == left
        written = json.loads((tmp_path / f"{n}" / "under_metrics.json").read_text())
        scores.append(written["methods"]["zero_filled"]["nmse"]["mean"])
    assert 0 < abs(scores[1] - scores[0]) < 0.1 * scores[0] and scores[2] == scores[0]


def test_a_damaged_reference_is_refused_before_the_work(tmp_path, monkeypatch):
    sizes = {"shape": (24, 20), "n_frames": 3, "n_slices": 2, "acs": 8}
    paths = write_cmrxrecon2023(tmp_path, [0], accelerations=(3,), **sizes)
    path = next(path for path in paths if path.match("AccFactor03/*/cine_sax.mat"))
    with h5py.File(paths[0], "r+") as file:
        (key,) = file
        file[key][0, 1, 0, 0] = (np.nan, 0)  # its second slice
    monkeypatch.setattr(_Nothing, "reconstruct", lambda *_: pytest.fail("worked"))
    with pytest.raises(DataError, match="expected finite k-space"):
        method = _Nothing("nothing", "", None, {})
        reconstruct_file(path, method, tmp_path / "out", reference=paths[0])


@pytest.mark.parametrize(
    ("readout", "message"),
    [(None, r"slice1\]: expected .* signal in each frame, got none in \[2\]"), (6, "got 24 x 6")],
)
def test_a_reference_that_cannot_be_scored_by_is_refused_before_the_work(
    tmp_path, monkeypatch, readout, message
):
    sizes = {"shape": (24, 20), "n_frames": 3, "n_slices": 2, "acs": 8}
    paths = write_cmrxrecon2023(tmp_path, [0], accelerations=(3,), **sizes)
    path = next(path for path in paths if path.match("AccFactor03/*/cine_sax.mat"))
    with h5py.File(paths[0], "r+") as file:
        (key,) = file
        file[key][2, 1] = np.zeros((), file[key].dtype)
    monkeypatch.setattr(_Nothing, "reconstruct", lambda *_: pytest.fail("worked"))
    with pytest.raises(DataError, match=message):
        method, out = _Nothing("nothing", "", None, {}), tmp_path / "out"
        reconstruct_file(path, method, out, reference=paths[0], readout=readout)


def test_pixels_and_times_are_the_templates(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    kspace = make_cine(0, shape=(24, 20), n_frames=3).kspace
    np.save(tmp_path / "cine.npy", kspace)
    template = nibabel.Nifti1Image(np.zeros((20, 24, 1, 3), np.float32), np.diag([1, 2, 8, 1]))
    template.header.set_zooms((1, 2, 8, 0.05))
    nibabel.save(template, tmp_path / "template.nii")
    out, method = tmp_path / "out", _Nothing("nothing", "", None, {})
    options = {"template": tmp_path / "template.nii", "formats": ["gif", "h5", "nii"]}
    reconstruct_file(tmp_path / "cine.npy", method, out, **options)
    with Image.open(out / "cine_slices.gif") as film:
        assert film.height / film.width == pytest.approx(2 * 24 / 20, rel=0.02)
    with h5py.File(out / "cine_recon.h5") as file:
        np.testing.assert_allclose(file.attrs["pixel_mm"], (2, 1))
        assert file.attrs["frame_seconds"] == pytest.approx(0.05)
    np.testing.assert_allclose(nibabel.load(out / "cine_recon.nii.gz").affine, template.affine)


def test_pixels_and_frames_keep_their_size(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    images = np.random.default_rng(0).random((20, 24, 1, 3), np.float32)
    image = nibabel.Nifti1Image(images, np.diag([1.5, 1.25, 8.0, 1.0]))
    image.header.set_zooms((1.5, 1.25, 8.0, 0.04))
    nibabel.save(image, tmp_path / "cine.nii.gz")
    method, out = _Nothing("nothing", "", None, {}), tmp_path / "out"
    report = reconstruct_file(tmp_path / "cine.nii.gz", method, out, formats=["nii", "h5"])
    assert "note: position unknown and made up or left out; --template has them" in report
    zooms = nibabel.load(out / "cine_magnitude.nii.gz").header.get_zooms()
    np.testing.assert_allclose(zooms, (1.5, 1.25, 1, 0.04), rtol=1e-6)
    with h5py.File(out / "cine_recon.h5") as file:
        np.testing.assert_allclose(file.attrs["pixel_mm"], (1.25, 1.5), rtol=1e-6)
        assert file.attrs["frame_seconds"] == pytest.approx(0.04)


@pytest.mark.parametrize("kind", ["nii", "dicom"])
def test_geometry_that_is_made_up_is_told(tmp_path, kind):
    pytest.importorskip({"nii": "nibabel", "dicom": "pydicom"}[kind])
    np.save(tmp_path / "kspace.npy", make_cine(0, shape=(24, 20), n_frames=3).kspace)
    method = _Nothing("nothing", "", None, {})
    report = reconstruct_file(tmp_path / "kspace.npy", method, tmp_path / "out", formats=[kind])
    assert "note: position and pixel size and time between frames unknown" in report


@pytest.mark.parametrize(("view", "told"), [("sax", False), ("lax", True)])
def test_slices_that_make_no_volume_are_told(tmp_path, view, told):
    pytest.importorskip("nibabel")
    cine = {"shape": (24, 20), "n_frames": 3, "accelerations": ()}
    (path,) = write_cmrxrecon2023(tmp_path, [0], view=view, **cine)
    report = reconstruct_file(path, _Nothing("nothing", "", None, {}), tmp_path, formats=["nii"])
    assert ("slices are not parallel" in report) == told


@pytest.mark.parametrize(("rows", "turned"), [(-1, False), (1, True)])
def test_a_template_that_lies_otherwise_than_the_file_says_is_told(tmp_path, rows, turned):
    pytest.importorskip("ismrmrd")
    from tests.evaluation.test_geometry import write_template  # which needs packages, too

    plane = {"ImageOrientationPatient": [1, 0, 0, 0, rows, 0]}
    template = write_template(tmp_path / "template", size=(9, 8), **plane)
    for image in writers.edited_dicom(template):
        image.ImagePositionPatient = [0, 0, 8 * (image.InstanceNumber > 3)]
    path = writers.write_ismrmrd(tmp_path / "data")  # rows to A, columns to L
    options = {"template": template, "formats": ["dicom"]}
    report = reconstruct_file(path, _Nothing("nothing", "", None, {}), tmp_path / "out", **options)
    note = "the template has rows to P, columns to L, the input rows to A, columns to L: images lie"
    assert (note in report) == turned


def test_an_oversampled_readout_is_cropped_about_its_middle(tmp_path):
    cine = make_cine(0, shape=(24, 20), n_frames=3, noise=0.0)
    np.save(tmp_path / "kspace.npy", cine.kspace)
    method, out = _Nothing("nothing", "", None, {}), tmp_path / "out"
    reference = {"reference": tmp_path / "kspace.npy"}
    options = {"formats": ["npy"], "readout": 10, **reference}
    reconstruct_file(tmp_path / "kspace.npy", method, out, **options)
    whole = np.abs(ifft2c(cine.kspace))[:, 0]
    found = np.load(out / "kspace_magnitude.npy")
    np.testing.assert_allclose(found[:, 0], whole[..., 5:15], atol=1e-5)
    (scores,) = json.loads((out / "kspace_metrics.json").read_text())["cases"]
    assert scores["methods"]["zero_filled"]["nmse"] < 1e-9  # every sample is measured
    reconstruct_file(tmp_path / "kspace.npy", method, out)
    assert not (out / "kspace_metrics.json").exists()  # of images that are there no more
    with pytest.raises(ValueError, match="expected readout from 1 to the 20 columns there are"):
        reconstruct_file(tmp_path / "kspace.npy", method, out, readout=21)


def test_images_are_scored_against_themselves_without_noise(tmp_path):
    images = np.random.default_rng(0).random((3, 24, 20), np.float32)
    np.save(tmp_path / "images.npy", images)
    method, out = _Nothing("nothing", "", None, {}), tmp_path / "out"
    reconstruct_file(tmp_path / "images.npy", method, out, reference=tmp_path / "images.npy")
    scores = json.loads((out / "images_metrics.json").read_text())
    assert 20 < scores["methods"]["zero_filled"]["psnr"]["mean"] < 60  # the simulated noise
    assert scores["simulation"].startswith("simulated from images: 8 coils")


def test_slices_of_other_accelerations_are_told(tmp_path):
    kspace = make_cine(0, shape=(24, 20), n_frames=3, noise=0.0).kspace[:, None]
    kspace = np.repeat(kspace, 2, axis=1)  # t z n ky kx
    for z, step in enumerate((2, 3)):
        kspace[:, z, :, np.arange(24) % step > 0] = 0
    np.save(tmp_path / "cine.npy", kspace)
    method, out = _Nothing("nothing", "", None, {}), tmp_path / "out"
    options = {"axes": "t,z,coil,ky,kx", "formats": ["h5"]}
    report = reconstruct_file(tmp_path / "cine.npy", method, out, **options)
    assert "2 slices, true acceleration 2.00 to 3.00" in report
    with h5py.File(out / "cine_recon.h5") as file:
        assert file.attrs["true_acceleration"] == 2.5
