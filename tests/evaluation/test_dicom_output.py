"""Derived series: valid, in the template's place, with its patient and without its pixels."""

import datetime
import errno
import functools
import itertools
import os
import resource
import shutil
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from kgmgt_jax.data.formats import read_file
from kgmgt_jax.evaluation.dicom_output import write_dicom
from kgmgt_jax.evaluation.geometry import read_geometry
from tests.data.formats import writers

pydicom = pytest.importorskip("pydicom")

from tests.evaluation.test_geometry import (  # noqa: E402
    ORIGIN,
    SPACING,
    write_series_a_slice,
    write_template,
)

SHAPE = (3, 2, 20, 30)


def _magnitude(shape=SHAPE) -> np.ndarray:
    return np.random.default_rng(0).random(shape).astype(np.float32) * 3e-3


def _read(folder):
    """Images by (slice, frame)."""
    paths = sorted(folder.iterdir())
    return {path.stem: pydicom.dcmread(path) for path in paths}


@pytest.fixture
def derived(tmp_path):
    geometry = read_geometry(write_template(tmp_path / "template"), SHAPE)
    out = write_dicom(tmp_path / "out", _magnitude(), geometry, description="KGMgT, true 3.2x")
    return _read(out), geometry


def test_pixels_come_back_in_the_files_units(derived):
    images, _ = derived
    magnitude = _magnitude()
    for z in range(2):
        for t in range(3):
            image = images[f"slice{z:02d}_frame{t:03d}"]
            values = image.pixel_array * float(image.RescaleSlope) + float(image.RescaleIntercept)
            np.testing.assert_allclose(values, magnitude[t, z], atol=magnitude.max() / 65535)


def test_patient_place_and_time_are_the_templates(derived):
    images, geometry = derived
    for z in range(2):
        for t in range(3):
            image, source = images[f"slice{z:02d}_frame{t:03d}"], geometry.datasets[z][t]
            for name in (
                "PatientName",
                "StudyInstanceUID",
                "FrameOfReferenceUID",
                "ImagePositionPatient",
                "ImageOrientationPatient",
                "PixelSpacing",
                "TriggerTime",
            ):
                assert getattr(image, name) == getattr(source, name), name


def test_series_says_that_it_is_derived(derived):
    images, geometry = derived
    sources = {image.SOPInstanceUID for frames in geometry.datasets for image in frames}
    series = {image.SeriesInstanceUID for image in images.values()}
    assert len(series) == 1 and series != {geometry.datasets[0][0].SeriesInstanceUID}
    assert len({image.SOPInstanceUID for image in images.values()} - sources) == 6
    image = images["slice01_frame002"]
    assert list(image.ImageType)[:2] == ["DERIVED", "SECONDARY"]
    assert image.DerivationDescription == "KGMgT, true 3.2x"
    assert image.SourceImageSequence[0].ReferencedSOPInstanceUID in sources
    assert [i.InstanceNumber for i in images.values()] == [1, 2, 3, 4, 5, 6]


def test_a_series_has_one_time_however_long_it_takes(tmp_path, monkeypatch):
    begun, ticks = datetime.datetime(2024, 1, 1), itertools.count()

    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return begun + next(ticks) * datetime.timedelta(minutes=1)

    monkeypatch.setattr(datetime, "datetime", Clock)
    images = _read(write_dicom(tmp_path / "out", _magnitude(), description="x")).values()
    assert len({(image.SeriesDate, image.SeriesTime) for image in images}) == 1


def test_a_template_without_identifiers_is_no_source_by_name(tmp_path):
    """Some programs that anonymise leave them out; the images have their own all the same."""
    template = write_template(tmp_path / "template", PatientID="")
    series = ("StudyInstanceUID", "FrameOfReferenceUID", "Modality")
    for image in writers.edited_dicom(template):
        for name in (*series, "SOPInstanceUID", "PatientName"):
            del image[name]
    geometry = read_geometry(template, SHAPE)
    images = _read(write_dicom(tmp_path / "out", _magnitude(), geometry, description="x")).values()
    assert len({image.SOPInstanceUID for image in images}) == 6
    assert not any("SourceImageSequence" in image for image in images)
    assert all(len({image[name].value for image in images}) == 1 for name in series)
    assert {image.PatientName == image.PatientID == "" for image in images} == {True}


def test_a_big_endian_template_is_as_good_as_any(tmp_path):
    template = write_template(tmp_path / "template")
    for path in template.iterdir():
        image = pydicom.dcmread(path)
        image.RequestAttributesSequence = [pydicom.Dataset()]
        image.RequestAttributesSequence[0].ScheduledProcedureStepID = "7"
        image.RequestAttributesSequence[0].SelectorUSValue = 258
        image.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRBigEndian
        pydicom.dcmwrite(path, image, enforce_file_format=True)
    geometry = read_geometry(template, SHAPE)
    images = _read(write_dicom(tmp_path / "out", _magnitude(), geometry, description="x"))
    image = images["slice01_frame002"]
    assert image.file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
    assert (image.Rows, image.RequestAttributesSequence[0].SelectorUSValue) == (20, 258)


def test_a_long_description_is_cut_where_dicom_wants_it_short(tmp_path):
    out = write_dicom(tmp_path / "out", _magnitude((1, 1, 8, 8)), description=70 * "x")
    (image,) = _read(out).values()
    assert image.SeriesDescription == 64 * "x" and image.DerivationDescription == 70 * "x"


def test_the_range_of_the_templates_pixels_and_their_loss_are_gone(tmp_path):
    told = {
        f"{end}{where}": ("US", 400)
        for end in ("Smallest", "Largest")
        for where in ("ImagePixelValue", "PixelValueInSeries")
    }
    told["LossyImageCompression"], told["DerivationCodeSequence"] = ("CS", "01"), ("SQ", [])
    told["LossyImageCompressionMethod"] = ("CS", "ISO_10918_1")
    told["LossyImageCompressionRatio"] = ("DS", 3)
    template = write_template(tmp_path / "template")
    for image in writers.edited_dicom(template):
        for name, value in told.items():
            image.add_new(name, *value)
    geometry = read_geometry(template, SHAPE)
    image = _read(write_dicom(tmp_path / "out", _magnitude(), geometry, description="x"))
    assert not any(name in each for each in image.values() for name in told)


def test_overlays_padding_and_private_elements_of_the_template_are_gone(tmp_path):
    template = write_template(tmp_path / "template")
    for image in writers.edited_dicom(template):
        image.add_new((0x6002, 0x0010), "US", 20)  # rows of an overlay
    geometry = read_geometry(template, SHAPE)
    images = _read(write_dicom(tmp_path / "out", _magnitude(), geometry, description="x")).values()
    gone = ((0x6002, 0x0010), "PixelPaddingValue", (0x0029, 0x0010))
    assert not any(name in image for image in images for name in gone)


def test_another_matrix_moves_the_first_pixel(tmp_path):
    folder = write_template(tmp_path / "template")
    shape = (3, 2, 40, 90)
    out = write_dicom(
        tmp_path / "out", _magnitude(shape), read_geometry(folder, shape), description="x"
    )
    image = _read(out)["slice00_frame000"]
    assert [float(v) for v in image.PixelSpacing] == pytest.approx([SPACING[0] / 2, SPACING[1] / 3])
    shift = np.array([float(v) for v in image.ImagePositionPatient]) - ORIGIN
    # half an old pixel back, half a new one forth: along columns 1 - 1/3 mm, along rows .75 - .375
    expected = -(1 - 1 / 3) * np.array([1, 0, 0]) - 0.375 * np.array([0, 0.6, -0.8])
    np.testing.assert_allclose(shift, expected, atol=1e-5)


def test_other_frames_are_spread_over_the_cycle(tmp_path):
    shape = (6, 2, 20, 30)
    geometry = read_geometry(write_template(tmp_path / "template"), shape)
    options = {"description": "x", "frame_seconds": 0.5}  # a template goes before it
    images = _read(write_dicom(tmp_path / "out", _magnitude(shape), geometry, **options))
    times = [float(images[f"slice00_frame{t:03d}"].TriggerTime) for t in range(6)]
    assert {image.SeriesNumber for image in images.values()} == {1004}  # 4 of the template
    assert times == pytest.approx([0, 20, 40, 60, 80, 100])


@pytest.mark.parametrize("seconds", [None, 0.03])
def test_a_template_of_one_frame_has_no_times(tmp_path, seconds):
    geometry = read_geometry(write_template(tmp_path / "template", n_frames=1), SHAPE)
    options = {"description": "x", "frame_seconds": seconds}
    images = _read(write_dicom(tmp_path / "out", _magnitude(), geometry, **options))
    times = [images[f"slice00_frame{t:03d}"].get("TriggerTime") for t in range(SHAPE[0])]
    expected = [None if seconds is None else 30.0 * t for t in range(SHAPE[0])]
    assert [None if time is None else float(time) for time in times] == expected


def test_a_template_without_times_leaves_those_of_the_input(tmp_path):
    template = write_template(tmp_path / "template")
    for image in writers.edited_dicom(template):
        del image.TriggerTime
    options = {"description": "x", "frame_seconds": 0.03}
    geometry = read_geometry(template, SHAPE)
    images = _read(write_dicom(tmp_path / "out", _magnitude(), geometry, **options))
    times = [float(images[f"slice01_frame{t:03d}"].TriggerTime) for t in range(SHAPE[0])]
    assert times == [0, 30, 60]


@pytest.mark.parametrize("n_frames", [3, 4])
def test_numbers_of_the_templates_frames_are_kept_for_as_many_alone(tmp_path, n_frames):
    told = {"NumberOfTemporalPositions": 3, "TemporalPositionIdentifier": 2}
    template, shape = write_template(tmp_path / "template", **told), (n_frames, *SHAPE[1:])
    geometry = read_geometry(template, shape)
    images = _read(write_dicom(tmp_path / "out", _magnitude(shape), geometry, description="x"))
    for image in images.values():
        assert (image.get("NumberOfTemporalPositions") == 3) == (n_frames == 3)
        assert ("TemporalPositionIdentifier" in image) == (n_frames == 3)


@pytest.mark.parametrize(("n_frames", "expected"), [(3, [1, 3, 5, 2, 4, 6]), (2, [1, 3, 2, 4])])
def test_images_are_numbered_as_the_templates_are(tmp_path, n_frames, expected):
    """Frame by frame here, by which programs that go by numbers stack them."""
    template, shape = write_template(tmp_path / "template"), (n_frames, *SHAPE[1:])
    for image in writers.edited_dicom(template):
        z, t = divmod(image.InstanceNumber - 1, 3)
        image.InstanceNumber = 1 + 2 * t + z
    geometry = read_geometry(template, shape)
    images = _read(write_dicom(tmp_path / "out", _magnitude(shape), geometry, description="x"))
    assert [image.InstanceNumber for image in images.values()] == expected


def test_of_a_series_a_slice_one_is_derived(tmp_path):
    geometry = read_geometry(write_series_a_slice(tmp_path / "template"), SHAPE)
    out = write_dicom(tmp_path / "out", _magnitude(), geometry, description="KGMgT")
    images = list(_read(out).values())
    assert len({image.SeriesInstanceUID for image in images}) == 1
    assert {image.SeriesNumber for image in images} == {1004}
    assert [image.InstanceNumber for image in images] == [1, 3, 5, 2, 4, 6]


def test_images_are_counted_frame_by_frame_where_the_templates_numbers_are_not_distinct(tmp_path):
    template = write_template(tmp_path / "template")
    for image in writers.edited_dicom(template):
        image.InstanceNumber = 1 + (image.InstanceNumber - 1) % 3  # each slice by itself
    geometry = read_geometry(template, SHAPE)
    images = _read(write_dicom(tmp_path / "out", _magnitude(), geometry, description="x"))
    assert [image.InstanceNumber for image in images.values()] == [1, 3, 5, 2, 4, 6]


def test_the_new_series_is_there_before_the_old_one_goes(tmp_path, monkeypatch):
    out = write_dicom(tmp_path / "out", _magnitude((1, 1, 8, 8)), description="x")
    rmtree, there = shutil.rmtree, []
    monkeypatch.setattr(
        shutil, "rmtree", lambda *a, **k: there.append(out.exists()) or rmtree(*a, **k)
    )
    write_dicom(out, _magnitude(), description="x")
    assert there and all(there) and len(list(out.iterdir())) == 6


def test_the_window_shows_small_values(derived):
    image = derived[0]["slice00_frame000"]
    assert (image.BitsStored, image.HighBit) == (16, 15)
    white = np.percentile(_magnitude(), 99.5)
    window = float(image.WindowCenter), float(image.WindowWidth)
    assert window == pytest.approx((white / 2, white), rel=1e-5)
    values = pydicom.pixels.apply_modality_lut(image.pixel_array, image)
    shown = pydicom.pixels.apply_voi_lut(values, image)
    assert len(np.unique(shown)) > 100 and "WindowCenterWidthExplanation" not in image


def test_without_a_template_it_is_a_series_of_nobody(tmp_path):
    options = {"description": "x", "pixel_mm": (1.25, 1.5), "frame_seconds": 0.03125}
    images = _read(write_dicom(tmp_path / "out", _magnitude(), **options))
    image = images["slice01_frame002"]
    assert image.PatientName == "" and image.PixelSpacing == [1.25, 1.5]
    assert float(image.TriggerTime) == 62.5 and image.CardiacNumberOfImages == 3
    assert len({i.StudyInstanceUID for i in images.values()}) == 1


def test_without_a_template_all_that_an_mr_image_must_have_is_there(tmp_path):
    """Type 2 of PS3.3, C.8.3 and C.7: present, if only empty."""
    wanted = (
        "ScanOptions MRAcquisitionType EchoTime EchoTrainLength RepetitionTime SliceThickness "
        "PatientPosition PositionReferenceIndicator Manufacturer ReferringPhysicianName StudyID"
    )
    out = write_dicom(tmp_path / "out", _magnitude((1, 1, 8, 8)), description="x")
    (image,) = _read(out).values()
    assert [name for name in wanted.split() if name not in image] == []


def test_our_own_reader_finds_slices_and_frames(tmp_path):
    magnitude = _magnitude()
    out = write_dicom(tmp_path / "out", magnitude, description="x", frame_seconds=0.03)
    file = read_file(out)
    assert len(file) == 2
    np.testing.assert_allclose(np.abs(file[1].reference), magnitude[:, 1], atol=1e-7)


def test_series_is_replaced_and_nothing_else_is(tmp_path):
    out = write_dicom(tmp_path / "out", _magnitude(), description="x")
    write_dicom(out, _magnitude((1, 1, 8, 8)), description="x")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert [p.name for p in out.iterdir()] == ["slice00_frame000.dcm"]
    (out / ".DS_Store").write_bytes(b"of a Mac's file browser")
    write_dicom(out, _magnitude((1, 1, 8, 8)), description="x")
    assert [p.name for p in out.iterdir()] == ["slice00_frame000.dcm"]
    (out / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"notes\.txt"):
        write_dicom(out, _magnitude(), description="x")
    assert (out / "notes.txt").exists()


def test_failure_leaves_the_old_series(tmp_path):
    out = write_dicom(tmp_path / "out", _magnitude((1, 1, 8, 8)), description="x")
    with pytest.raises(TypeError):
        write_dicom(out, _magnitude(), description=None)
    assert len(list(out.iterdir())) == 1 and len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_is_told_in_one_line_that_names_the_folder(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match=r"^\[Errno 27\] File too large: '.*/out'$"):
            write_dicom(tmp_path / "out", _magnitude(), description="x")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mask", [0o077, 0o027, 0o002])
def test_the_folder_is_for_those_whom_the_umask_lets(tmp_path, mask):
    before = os.umask(mask)
    try:
        out = write_dicom(tmp_path / "out", _magnitude((1, 1, 8, 8)), description="x")
    finally:
        os.umask(before)
    assert stat.S_IMODE(out.stat().st_mode) == 0o777 & ~mask


def test_of_several_at_once_the_last_leaves_its_series(tmp_path):
    with ThreadPoolExecutor(4) as pool:
        write = functools.partial(write_dicom, tmp_path / "out", _magnitude(), description="x")
        done = [pool.submit(write) for _ in range(24)]
    assert {each.result() for each in done} == {tmp_path / "out"}
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert len(list((tmp_path / "out").iterdir())) == SHAPE[0] * SHAPE[1]


def test_a_series_that_cannot_be_moved_to_its_place_leaves_the_old_one_there(tmp_path, monkeypatch):
    out, replace = (
        write_dicom(tmp_path / "out", _magnitude((1, 1, 8, 8)), description="x"),
        os.replace,
    )

    def fails(source, target):
        if Path(target) == out and not str(source).endswith(".old"):
            raise PermissionError(errno.EPERM, "not now")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(PermissionError):
        write_dicom(out, _magnitude(), description="x")
    assert len(list(out.iterdir())) == 1 and [p.name for p in tmp_path.iterdir()] == ["out"]
