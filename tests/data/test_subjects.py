"""Subjects are told by what a file says, then by its path."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import h5py
import pytest

from kgmgt_jax.data.case import DataError
from kgmgt_jax.data.formats import open_files
from kgmgt_jax.data.subjects import identify
from tests.data.formats import writers

CENTRE = "MultiCoil/Cine/TrainingSet/FullSample/Center002/UIH_30T/P001"


def _identify(path, *, format="npy", key="", pattern=None):
    """Of a file that need not exist, below the folder ``/data/set``."""
    file = SimpleNamespace(path=Path("/data/set", path), format=format, key=key)
    return identify(file, Path("/data/set"), pattern)


@pytest.mark.parametrize(
    "path, format, subject, view",
    [
        (f"{CENTRE}/cine_lax_4ch.mat", "cmrxrecon2025", "Center002/UIH_30T/P001", "lax_4ch"),
        ("SingleCoil/Cine/FullSample/P012/cine_sax.mat", "cmrxrecon2023", "P012", "sax"),
        ("FullSample/P012/lvot.mat", "cmrxrecon2024", "P012", "lvot"),
        ("sub-01/ses-2/func/sub-01_cine.nii.gz", "nifti", "sub-01", ""),
        ("patient007/sax/images.npy", "images", "patient007", ""),
        ("vol2/patient007/images.npy", "images", "patient007", ""),
        ("flat/patient007_4d.nii.gz", "nifti", "patient007", ""),
        ("site/alpha_kspace.npy", "npy", "site/alpha_kspace", ""),
        ("alpha.npy", "npy", "set/alpha", ""),
    ],
)
def test_paths_tell_subject_and_view(path, format, subject, view):
    assert _identify(path, format=format) == (subject, view)


def test_a_pattern_of_the_users_comes_first():
    path = "Center002/P001/cine_sax.mat"
    assert _identify(path, pattern=r"(Center\d+)/P")[0] == "Center002"
    assert _identify(path, pattern=r"(Center\d+)/(P\d+)")[0] == "Center002"
    assert _identify(path, pattern=r"P\d+")[0] == "P001"
    assert _identify("a.h5", key="pig/sax", pattern=r"\w+(?=/sax)")[0] == "pig"
    with pytest.raises(DataError, match=r"cine_sax.mat: expected a subject that 'Q\\\\d'"):
        _identify(path, pattern=r"Q\d")


def test_attributes_of_hdf5_tell_the_subject_of_each_series(tmp_path):
    path = writers.write_stacks(tmp_path)
    with h5py.File(path, "a") as file:
        file["a/one"].attrs.update(subject="pig", view="cine_lax")
        file.attrs["subject"] = b"someone"
    told = [identify(file, tmp_path) for file in open_files(path)]
    assert told == [("pig", "lax"), ("someone", "")]


def test_the_patient_of_fastmri_and_dicom_is_told_by_the_file(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    (file,) = open_files(writers.write_fastmri(tmp_path / "x", masked=False))
    assert identify(file, tmp_path)[0] == "0"
    folder = writers.write_dicom(tmp_path / "study/series")
    (file,) = open_files(folder)
    assert identify(file, tmp_path)[0] == "study/series"
    for path in folder.iterdir():
        data = pydicom.dcmread(path)
        data.PatientID = "anna"
        data.save_as(path)
    assert identify(file, tmp_path)[0] == "anna"


def test_real_series_are_grouped_by_animal_and_patient(data_dir):
    path = data_dir / "train.h5"
    told = Counter(identify(file, path)[0] for file in open_files(path))
    assert told["pig"] > 1 and told["Center001-P001"] > 1 and sum(told.values()) == 84
