"""Fully sampled slices are planned; everything else is left out, with the reason."""

import os
import shutil

import numpy as np
import pytest

from kgmgt_jax.data.case import DataError
from kgmgt_jax.data.formats import ReadOptions
from kgmgt_jax.data.matfile import write_mat
from kgmgt_jax.data.prepared import PrepareOptions
from kgmgt_jax.data.prepared import scan as scanning
from kgmgt_jax.data.prepared.scan import SliceReader, scan
from tests.data.formats import writers

ALL = PrepareOptions()


def test_slices_are_planned_in_the_order_of_the_tree(source):
    slices, skipped = scan(source, ALL)
    assert [each.name for each in slices[:3]] == [
        "P001/cine_sax/slice0",
        "P001/cine_sax/slice1",
        "P002/cine_sax/slice0",
    ]
    assert slices[-1].subject == "patient7" and len(slices) == 9
    assert len({each.id for each in slices}) == len({each.key for each in slices}) == 9
    assert [each.reason for each in skipped] == ["undersampled 'kspace_single_sub02'"] * 4
    assert not any(each.bad for each in skipped)


def test_planned_slices_are_read_as_they_are_in_their_files(source):
    reader, (slices, _) = SliceReader(ALL), scan(source, ALL)
    case = reader.read(slices[-1])
    np.testing.assert_array_equal(case.kspace, writers.kspace((4, 3, 9, 14)))
    names = [reader.read(each).meta.name for each in slices]
    assert names == [each.name for each in slices]


def test_an_undersampled_file_needs_no_mask(source, tmp_path):
    tree = shutil.copytree(source, tmp_path / "tree")
    for mask in tree.rglob("*_mask.mat"):
        mask.unlink()
    assert len(scan(tree, ALL)[0]) == 9


def test_views_are_kept_by_name_or_family(tmp_path):
    for stem in ("cine_sax", "cine_lax_2ch", "cine_lax", "lvot"):
        write_mat(tmp_path / f"P001/{stem}.mat", "kspace_full", writers.kspace())
    slices, skipped = scan(tmp_path, PrepareOptions(views=("lax",)))
    assert [each.view for each in slices] == ["lax"] * 2 + ["lax_2ch"] * 2
    assert [each.reason for each in skipped] == [
        "view 'sax', not one of lax",
        "view 'lvot', not one of lax",
    ]


def test_the_view_of_a_file_is_that_of_its_cases(tmp_path):
    for stem in ("cine_sax", "cine_lax_2ch", "lvot"):
        write_mat(tmp_path / f"P001/{stem}.mat", "kspace_full", writers.kspace())
    reader, (slices, _) = SliceReader(ALL), scan(tmp_path, ALL)
    assert all(reader.read(each).meta.view == each.view for each in slices)


def test_images_beside_kspace_and_files_of_no_cine_are_left_out(tmp_path):
    writers.write_stacks(tmp_path)
    write_mat(tmp_path / "P001/cine_sax.mat", "kspace_full", writers.kspace())
    write_mat(tmp_path / "P001/T1map.mat", "kspace_full", writers.kspace())
    slices, skipped = scan(tmp_path, ALL)
    assert [each.name for each in slices] == ["P001/cine_sax/slice0", "P001/cine_sax/slice1"]
    reasons = {os.path.basename(each.source): each.reason for each in skipped}
    assert reasons["train.h5"] == "magnitude images where there is k-space"
    assert "another kind of scan" in reasons["T1map.mat"]


def test_images_alone_are_planned_and_simulated_as_asked(tmp_path):
    writers.write_stacks(tmp_path)
    slices, _ = scan(tmp_path, ALL)
    assert len(slices) == 2
    assert SliceReader(ALL).read(slices[0]).n_coils == 8


def test_named_arrays_are_planned(tmp_path):
    path = write_mat(tmp_path / "data.mat", "mine", writers.kspace((4, 9, 8)))
    options = PrepareOptions(read=ReadOptions(key="mine", axes="coil,ky,kx"))
    (planned,), _ = scan(path, options)
    assert SliceReader(options).read(planned).shape == (1, 4, 9, 8)


def test_arrays_of_a_folder_are_planned_by_their_axes_alone(tmp_path):
    for name in ("P1_recon", "P2_recon"):  # without axes they were images
        np.save(tmp_path / f"{name}.npy", writers.kspace((4, 9, 8)))
    options = PrepareOptions(read=ReadOptions(axes="coil,ky,kx"))
    assert len(scan(tmp_path, options)[0]) == 2


def test_a_damaged_file_is_an_error_unless_it_may_be_skipped(source, tmp_path):
    tree = shutil.copytree(source, tmp_path / "tree")
    broken = tree / "P009/cine_sax.mat"
    broken.parent.mkdir()
    broken.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(50))
    with pytest.raises(DataError, match=r"P009/cine_sax.mat: expected a complete HDF5 file"):
        scan(tree, ALL)
    slices, skipped = scan(tree, ALL, skip_bad=True)
    assert len(slices) == 9
    assert [each.source for each in skipped if each.bad] == [str(broken)]


@pytest.mark.parametrize("skip_bad", [False, True])
def test_nothing_to_prepare_says_what_was_there(tmp_path, skip_bad):
    writers.write_cmrxrecon(tmp_path)
    with pytest.raises(DataError, match=r"got none in 1 files, such as .*: undersampled"):
        scan(tmp_path, ALL, skip_bad=skip_bad)


def test_only_what_changes_the_images_changes_the_key(source, tmp_path):
    tree = shutil.copytree(source, tmp_path / "tree")
    keys = [each.key for each in scan(tree, ALL)[0]]
    other_split = PrepareOptions(split=(1.0,), seed=4, subject=".*")
    assert [each.key for each in scan(tree, other_split)[0]] == keys
    for options in (
        PrepareOptions(readout=8),
        PrepareOptions(acs=8),
        PrepareOptions(sens="adaptive"),
    ):
        assert not {each.key for each in scan(tree, options)[0]} & set(keys)
    shutil.copy(tree / "patient7/cine_sens.npy", tree / "patient7/other_sens.npy")
    assert [each.key for each in scan(tree, ALL)[0]] == keys
    os.utime(tree / "patient7/cine_sens.npy", (0, 0))
    touched = [each.key for each in scan(tree, ALL)[0]]
    assert touched[:-1] == keys[:-1] and touched[-1] != keys[-1]
    assert [each.id for each in scan(tree, ALL)[0]] == [each.id for each in scan(source, ALL)[0]]


def test_a_dicom_file_that_is_written_anew_changes_the_keys_of_its_series(tmp_path):
    pytest.importorskip("pydicom")
    folder = writers.write_dicom(tmp_path / "series")
    keys = [each.key for each in scan(tmp_path, ALL)[0]]
    os.utime(max(folder.iterdir()), (0, 0))  # the folder's own time stays
    assert not {each.key for each in scan(tmp_path, ALL)[0]} & set(keys)


def test_the_files_of_a_folder_are_looked_at_once_for_all_its_series(tmp_path, monkeypatch):
    generate_uid = pytest.importorskip("pydicom").uid.generate_uid
    (tmp_path / "study").mkdir()
    for i in range(3):
        folder = writers.write_dicom(tmp_path / f"{i}")
        for image in writers.edited_dicom(folder):
            image.SeriesInstanceUID = f"1.2.{i}"
            image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        for path in folder.iterdir():
            shutil.copy(path, tmp_path / "study" / f"{i}{path.name}")
    states, state = [], scanning._state
    monkeypatch.setattr(scanning, "_state", lambda path: states.append(path) or state(path))
    slices, _ = scan(tmp_path / "study", PrepareOptions())
    assert len(slices) == 6 and len({each.key for each in slices}) == 6
    assert states == [tmp_path / "study"]
