"""Templates say where images lie; both cover the same field of view."""

from pathlib import Path

import numpy as np
import pytest

from kgmgt_jax.data.case import DataError
from kgmgt_jax.data.formats import read_file
from kgmgt_jax.evaluation.geometry import read_geometry
from tests.data.formats import writers
from tests.data.formats.no_images import add_files_without_images

pydicom = pytest.importorskip("pydicom")
nibabel = pytest.importorskip("nibabel")

ROWS, COLUMNS = np.array([0.0, 0.6, -0.8]), np.array([1.0, 0.0, 0.0])
NORMAL = np.cross(COLUMNS, ROWS)
ORIGIN, SPACING, GAP = np.array([-120.0, -80.0, 40.0]), (1.5, 2.0), 8.0


def write_template(
    folder: Path, n_slices: int = 2, n_frames: int = 3, size: tuple[int, int] = (20, 30), **more
) -> Path:
    """An oblique series whose files are named against their order."""
    folder.mkdir(parents=True, exist_ok=True)
    series, study, frame = (pydicom.uid.generate_uid() for _ in range(3))
    for z in range(n_slices):
        for t in range(n_frames):
            image = pydicom.Dataset()
            image.SOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
            image.SOPInstanceUID = pydicom.uid.generate_uid()
            image.SeriesInstanceUID, image.StudyInstanceUID = series, study
            image.FrameOfReferenceUID = frame
            image.PatientName, image.PatientID, image.Modality = "Doe^Jane", "X7", "MR"
            image.SeriesNumber, image.InstanceNumber = 4, 1 + z * n_frames + t
            image.TriggerTime = (0, 37, 80)[t]  # ms, 40 on average
            image.Rows, image.Columns = size
            image.PixelSpacing = list(SPACING)
            image.SliceThickness = GAP
            image.ImageOrientationPatient = [*COLUMNS, *ROWS]
            image.ImagePositionPatient = list(ORIGIN + z * GAP * NORMAL)
            image.add_new((0x0029, 0x0010), "LO", "PRIVATE")
            image.PixelPaddingValue = 7
            for name, value in more.items():
                setattr(image, name, value)
            image.file_meta = pydicom.dataset.FileMetaDataset()
            image.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
            image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
            image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
            path = folder / f"{9 - z}_{9 - t}.dcm"
            image.save_as(path, enforce_file_format=True)
    return folder


def _turned(folder: Path) -> Path:
    """The series, one of its images in another plane."""
    path = min(folder.iterdir())
    image = pydicom.dcmread(path)
    image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    image.save_as(path)
    return folder


def _patient(affine: np.ndarray, column: float, row: float, z: float) -> np.ndarray:
    """Where a pixel lies, in DICOM's axes."""
    return np.diag([-1, -1, 1]) @ (affine @ [column, row, z, 1])[:3]


def test_pixels_lie_where_dicom_says(tmp_path):
    geometry = read_geometry(write_template(tmp_path / "t"), (3, 2, 20, 30))
    expected = ORIGIN + 4 * SPACING[1] * COLUMNS + 7 * SPACING[0] * ROWS + GAP * NORMAL
    np.testing.assert_allclose(_patient(geometry.affine, 4, 7, 1), expected, atol=1e-9)


def write_series_a_slice(folder: Path) -> Path:
    """As `write_template` of two slices, but each slice is a series of its own."""
    above = {"ImagePositionPatient": list(ORIGIN + GAP * NORMAL), "SeriesNumber": 3}
    write_template(folder / "below", n_slices=1)
    return write_template(folder / "above", n_slices=1, **above).parent


def test_directions_are_named_as_those_of_the_images(tmp_path):
    series = writers.write_dicom(tmp_path)
    geometry = read_geometry(series, (3, 2, 9, 8))
    assert geometry.orientation == "rows to P, columns to L"
    assert geometry.orientation == read_file(series)[0].meta.orientation


def test_a_series_a_slice_says_what_one_of_all_says(tmp_path):
    one = read_geometry(write_template(tmp_path / "one"), (3, 2, 20, 30))
    several = read_geometry(write_series_a_slice(tmp_path / "several"), (3, 2, 20, 30))
    np.testing.assert_array_equal(several.affine, one.affine)
    assert several.frame_seconds == one.frame_seconds


@pytest.mark.parametrize(("more", "gap"), [({}, GAP), ({"SpacingBetweenSlices": 10.0}, 10.0)])
def test_a_single_slice_is_as_far_from_the_next_as_its_header_says(tmp_path, more, gap):
    folder = write_template(tmp_path / "t", n_slices=1, **more)
    affine = read_geometry(folder, (3, 1, 20, 30)).affine
    np.testing.assert_allclose(_patient(affine, 0, 0, 1), ORIGIN + gap * NORMAL, atol=1e-9)


@pytest.mark.parametrize(
    ("aside", "off"), [((0, 0, 0.4), None), ((3, 0, 4), "5.0"), ((0, 0, 9), "9.0")]
)
def test_a_slice_out_of_line_is_told(tmp_path, aside, off):
    folder = write_template(tmp_path / "t", n_slices=3)
    for image in writers.edited_dicom(folder):
        image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        z = (image.InstanceNumber - 1) // 3
        image.ImagePositionPatient = list(np.array([0, 0, 20.0 * z]) + (z == 1) * np.array(aside))
    notes = read_geometry(folder, (3, 3, 20, 30)).notes
    assert [f"up to {off} mm off" in note for note in notes] == [True] * (off is not None)


def test_a_single_slice_is_not_numbered_backwards(tmp_path):
    folder = write_template(tmp_path / "t", n_slices=1)
    assert read_geometry(folder, (3, 1, 20, 30)).notes == ()


def test_an_empty_path_is_no_template_though_the_current_folder_is_one(tmp_path, monkeypatch):
    monkeypatch.chdir(write_template(tmp_path))
    with pytest.raises(DataError, match="template: expected a path, got an empty one"):
        read_geometry("", (3, 2, 20, 30))


def test_files_without_images_are_no_part_of_a_template(tmp_path):
    folder = add_files_without_images(write_template(tmp_path / "t"))
    (folder / "notes.txt").write_text("what a scanner's export adds")
    assert [len(frames) for frames in read_geometry(folder, (3, 2, 20, 30)).datasets] == [3, 3]


def test_slices_and_frames_are_in_order_whatever_the_names(tmp_path):
    geometry = read_geometry(write_template(tmp_path / "t"), (3, 2, 20, 30))
    numbers = [[image.InstanceNumber for image in frames] for frames in geometry.datasets]
    assert numbers == [[1, 2, 3], [4, 5, 6]]


def test_frames_of_one_time_are_in_the_order_of_their_numbers(tmp_path):
    folder = write_template(tmp_path / "t")  # of files named against it
    for image in writers.edited_dicom(folder):
        image.TriggerTime = 0
    datasets = read_geometry(folder, (3, 2, 20, 30)).datasets
    assert [[i.InstanceNumber for i in frames] for frames in datasets] == [[1, 2, 3], [4, 5, 6]]


def test_frames_are_in_the_order_of_their_times_before_that_of_their_numbers(tmp_path):
    folder = write_template(tmp_path / "t")
    for image in writers.edited_dicom(folder):
        image.InstanceNumber = 7 - image.InstanceNumber
    for frames in read_geometry(folder, (3, 2, 20, 30)).datasets:
        assert [image.TriggerTime for image in frames] == [0, 37, 80]


def test_images_without_numbers_are_not_numbered_backwards(tmp_path):
    folder = write_template(tmp_path / "t")
    for image in writers.edited_dicom(folder):
        del image.InstanceNumber
    assert read_geometry(folder, (3, 2, 20, 30)).notes == ()


def test_directions_that_differ_a_little_make_no_slices(tmp_path):
    """0.001 off, which counts as parallel, is 0.1 mm along the normal at this distance."""
    folder = write_template(tmp_path / "t")
    for path in sorted(folder.iterdir())[::2]:
        image = pydicom.dcmread(path)
        image.ImageOrientationPatient = [1.0, 0.001, 0.0, *ROWS]
        image.save_as(path)
    assert [len(frames) for frames in read_geometry(folder, (3, 2, 20, 30)).datasets] == [3, 3]


def test_pixels_have_the_size_of_the_templates(tmp_path):
    folder = write_template(tmp_path / "t")
    assert read_geometry(folder, (3, 2, 20, 30)).pixel_mm == pytest.approx(SPACING)
    assert read_geometry(folder, (3, 2, 40, 30)).pixel_mm == pytest.approx((0.75, 2.0))


def test_another_matrix_covers_the_same_field(tmp_path):
    folder = write_template(tmp_path / "t")
    coarse, fine = (read_geometry(folder, (3, 2, *size)) for size in ((20, 30), (40, 90)))
    for corner in ((-0.5, -0.5), (29.5, 19.5)):
        scaled = (3 * (corner[0] + 0.5) - 0.5, 2 * (corner[1] + 0.5) - 0.5)
        np.testing.assert_allclose(
            _patient(fine.affine, *scaled, 0), _patient(coarse.affine, *corner, 0), atol=1e-9
        )


@pytest.mark.parametrize("kind", ["dicom", "nifti"])
def test_slices_can_be_turned_round(tmp_path, kind):
    shape, template = (3, 2, 20, 30), write_template(tmp_path / "t")
    if kind == "nifti":
        affine = read_geometry(template, shape).affine
        template = tmp_path / "t.nii.gz"
        nibabel.Nifti1Image(np.zeros((30, 20, 2, 3), np.float32), affine).to_filename(template)
    usual, turned = (read_geometry(template, shape, reverse=reverse) for reverse in (False, True))
    for z in range(2):
        got, expected = (_patient(g.affine, 4, 7, i) for g, i in ((turned, z), (usual, 1 - z)))
        np.testing.assert_allclose(got, expected, atol=1e-4)
    for one, other in zip(turned.datasets, usual.datasets[::-1], strict=True):
        assert [a.SOPInstanceUID for a in one] == [b.SOPInstanceUID for b in other]


@pytest.mark.parametrize(
    ("size", "against", "told"),
    [((20, 30), False, []), ((20, 60), False, ["stretched"]), ((20, 30), True, ["--reverse"])],
)
def test_what_may_not_fit_is_told(tmp_path, size, against, told):
    folder = write_template(tmp_path / "t")
    for path in folder.iterdir() if against else ():
        image = pydicom.dcmread(path)
        image.InstanceNumber = 100 - image.InstanceNumber
        image.save_as(path)
    notes = read_geometry(folder, (3, 2, *size)).notes
    assert len(notes) == len(told)
    assert all(word in note for word, note in zip(told, notes, strict=True))


def test_slices_turned_against_their_numbers_are_told_to_be_left(tmp_path):
    folder = write_template(tmp_path / "t")
    (note,) = read_geometry(folder, (3, 2, 20, 30), reverse=True).notes
    assert "numbered from the last" in note and note.endswith("leave out --reverse_slices")


@pytest.mark.parametrize(("n_frames", "seconds"), [(3, 0.04), (6, 0.02)])
def test_frames_share_the_templates_cycle(tmp_path, n_frames, seconds):
    geometry = read_geometry(write_template(tmp_path / "t"), (n_frames, 2, 20, 30))
    assert geometry.frame_seconds == pytest.approx(seconds)


def test_images_of_phase_and_copies_are_no_frames_of_a_template(tmp_path):
    folder = write_template(tmp_path / "t")
    for path in list(folder.iterdir()):
        path.with_name(f"again_{path.name}").write_bytes(path.read_bytes())
        image = pydicom.dcmread(path)
        image.ImageType = ["ORIGINAL", "PRIMARY", "P"]
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = (
            pydicom.uid.generate_uid()
        )
        image.save_as(path.with_name(f"phase_{path.name}"), enforce_file_format=True)
    geometry = read_geometry(folder, (3, 2, 20, 30))
    assert geometry.frame_seconds == pytest.approx(0.04)
    assert [len(frames) for frames in geometry.datasets] == [3, 3]
    for path in folder.iterdir():
        if not path.name.startswith("phase_"):
            path.unlink()
    with pytest.raises(DataError, match="magnitude images as template, got 6 of phase"):
        read_geometry(folder, (3, 2, 20, 30))


def test_images_that_anonymising_gave_one_identifier_are_no_copies(tmp_path):
    folder = write_template(tmp_path / "t", SOPInstanceUID="1.2.3")
    assert [len(frames) for frames in read_geometry(folder, (3, 2, 20, 30)).datasets] == [3, 3]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: write_template(f, n_slices=3), "2 slices.*got 3"),
        (lambda f: write_template(f / "a") and write_template(f / "b").parent, "2 series of a"),
        (lambda f: write_template(f, NumberOfFrames=5), "multi-frame"),
        (lambda f: _turned(write_template(f)), "parallel slices.*several orientations"),
        (lambda f: write_template(f, ImagePositionPatient=None), "where it lies"),
        (lambda f: write_template(f, PixelSpacing=[0, 0]), "slices have a size, got"),
        (lambda f: f.mkdir() or f, "got none"),
    ],
)
def test_unfit_templates_are_refused_in_one_line(tmp_path, make, message):
    with pytest.raises(ValueError, match=message) as refusal:
        read_geometry(make(tmp_path / "t"), (3, 2, 20, 30))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "keyword", ["InstanceNumber", "TriggerTime", "SliceThickness", "SeriesNumber"]
)
def test_headers_that_cannot_be_read_are_refused_by_name(tmp_path, keyword):
    (path,) = write_template(tmp_path / "series", n_slices=1, n_frames=1).iterdir()
    image = pydicom.dcmread(path)
    image[keyword] = pydicom.DataElement(keyword, "LO", ["REMOVED", "REMOVED"])
    image.save_as(path, implicit_vr=False)
    with pytest.raises(DataError, match="series: expected a template whose headers are as DICOM"):
        read_geometry(tmp_path / "series", (1, 1, 20, 30))
