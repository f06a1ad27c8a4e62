"""NIfTI templates: their affine, units, time, and what is told of their axes."""

import numpy as np
import pytest

from kgmgt_jax.data.case import DataError
from kgmgt_jax.evaluation.geometry import read_geometry

nibabel = pytest.importorskip("nibabel")


@pytest.mark.parametrize(
    ("units", "in_mm", "in_seconds"),
    [
        ((None, None), 1, 1),
        (("mm", "sec"), 1, 1),
        (("meter", "msec"), 1e3, 1e-3),
        (("micron", "usec"), 1e-3, 1e-6),
    ],
)
def test_nifti_template_keeps_its_affine(tmp_path, units, in_mm, in_seconds):
    affine = np.array([[-2, 0, 0, 9], [0, 0.1, 3, 8], [0, 1.5, 0, 7], [0, 0, 0, 1.0]])
    in_units = np.diag([*3 * [1 / in_mm], 1]) @ affine
    image = nibabel.Nifti1Image(np.zeros((30, 20, 2, 3), np.float32), in_units)
    image.header.set_zooms((*image.header.get_zooms()[:3], 0.05 / in_seconds))
    image.header.set_xyzt_units(*units)
    image.to_filename(tmp_path / "t.nii.gz")
    geometry = read_geometry(tmp_path / "t.nii.gz", (3, 2, 20, 30))
    np.testing.assert_allclose(geometry.affine, affine, atol=1e-6)
    assert geometry.frame_seconds == pytest.approx(0.05) and geometry.datasets == ()


@pytest.mark.parametrize("name", ["t.nii", "T.NII", "T.NII.GZ"])
def test_a_nifti_template_may_be_compressed_or_not_and_named_in_capitals(tmp_path, name):
    image = nibabel.Nifti1Image(np.zeros((30, 20, 2, 3), np.float32), np.diag([-2, -1.5, 8, 1]))
    image.to_filename(tmp_path / name)
    affine = read_geometry(tmp_path / name, (3, 2, 20, 30)).affine
    np.testing.assert_array_equal(affine, np.diag([-2, -1.5, 8, 1]))


@pytest.mark.parametrize("rows", [1, -1])
def test_a_nifti_template_with_its_rows_turned_round_is_told(tmp_path, rows):
    images, path = np.zeros((30, 20, 2, 3), np.float32), tmp_path / "t.nii.gz"
    nibabel.Nifti1Image(images, np.diag([-2, -rows, 8, 1])).to_filename(path)
    for reverse in (False, True):
        notes = read_geometry(path, (3, 2, 20, 30), reverse=reverse).notes
        assert ["dcm2niix" in note for note in notes] == [True] * (rows < 0)


def test_frames_share_the_cycle_of_a_nifti_template(tmp_path):
    image = nibabel.Nifti1Image(np.zeros((30, 20, 2, 3), np.float32), np.eye(4))
    image.header.set_zooms((1, 1, 1, 0.05))
    image.to_filename(tmp_path / "t.nii.gz")
    geometry = read_geometry(tmp_path / "t.nii.gz", (6, 2, 20, 30))
    assert geometry.frame_seconds == pytest.approx(0.025)


@pytest.mark.parametrize("side", [0.0, np.nan])
def test_a_nifti_template_without_size_is_refused(tmp_path, side):
    """As of one slice, whose thickness some programs leave at zero; NIfTI could not be written."""
    image = nibabel.Nifti1Image(np.zeros((30, 20, 1, 3), np.float32), None)
    image.header["sform_code"], image.header["srow_z"] = 1, [0, 0, side, 0]
    image.header["srow_x"], image.header["srow_y"] = [2, 0, 0, 0], [0, 1.5, 0, 0]
    nibabel.Nifti1Image(image.dataobj, None, image.header).to_filename(tmp_path / "t.nii.gz")
    with pytest.raises(DataError, match="pixels and slices have a size, got"):
        read_geometry(tmp_path / "t.nii.gz", (3, 1, 20, 30))


def test_damaged_nifti_is_refused(tmp_path):
    (tmp_path / "t.nii.gz").write_bytes(b"no")
    with pytest.raises(ValueError, match="complete NIfTI"):
        read_geometry(tmp_path / "t.nii.gz", (3, 2, 20, 30))
