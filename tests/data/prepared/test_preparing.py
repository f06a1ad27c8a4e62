"""A prepared set is the same whatever happened on the way, or it is not there."""

import json
import os
import resource
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import kgmgt_jax
from kgmgt_jax.data.case import DataError
from kgmgt_jax.data.matfile import write_mat
from kgmgt_jax.data.prepared import PreparedSet, PrepareOptions, checksums, preparing, scan
from kgmgt_jax.data.prepared.checksums import verify_checksums
from kgmgt_jax.data.prepared.preparing import prepare
from kgmgt_jax.data.prepared.processing import process
from kgmgt_jax.data.prepared.staging import Staging
from tests.data.formats import writers
from tests.data.prepared.conftest import OPTIONS
from tests.data.prepared.interrupted import digests

REPOSITORY = Path(__file__).resolve().parents[3]


def _metadata(out):
    paths = [out / name / "1.0.0/metadata.json" for name in ("cine_frames", "cine_slices")]
    first, second = (json.loads(path.read_text()) for path in paths)
    assert first == second
    return first


def _interrupt(source, folder, stride) -> dict:
    arguments = ["-m", "tests.data.prepared.interrupted", source, folder, stride]
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _check_interruptions(told):
    assert told["exit"] == 0 and told["n_slices"] == 9 and told["processed"]
    assert told["looked_finished"] == [] and told["differ"] == []
    assert max(told["processed"]) <= 10  # the one that was being processed, again


def test_killed_at_any_step_and_resumed_it_ends_in_the_same_bytes(source, prepared, tmp_path):
    """Another process, with other hashes, also makes the bytes of this one."""
    told = _interrupt(source, tmp_path, 35)
    _check_interruptions(told)
    assert told["expected"] == digests(prepared)
    assert not told["asked"]  # for a network or for TensorFlow


@pytest.mark.slow
def test_killed_at_every_step_and_resumed_it_ends_in_the_same_bytes(source, tmp_path):
    told = _interrupt(source, tmp_path, 1)
    _check_interruptions(told)
    assert len(told["processed"]) == told["n_steps"] > 100


def test_no_subject_is_in_two_splits(prepared):
    metadata = _metadata(prepared)
    splits = metadata["subjects"]
    assert list(splits) == ["train", "validation", "test"]
    names = sorted(name for subjects in splits.values() for name in subjects)
    assert names == ["P001", "P002", "P003", "P004", "patient7"]
    for each in metadata["slices"]:
        assert each["subject"] in splits[each["split"]]


def test_the_metadata_says_all_that_was_done(source, prepared):
    metadata = _metadata(prepared)
    assert metadata["made_by"] == f"kgmgt_jax {kgmgt_jax.__version__}"
    assert metadata["settings"] == {"source": str(source), **OPTIONS.settings()}
    assert len(metadata["slices"]) == 9
    last = next(each for each in metadata["slices"] if each["subject"] == "patient7")
    assert last | {"id": "", "scale": 0, "split": ""} == {
        "id": "",
        "split": "",
        "scale": 0,
        "name": "cine_kspace/slice0",
        "subject": "patient7",
        "view": "",
        "shape": [4, 3, 9, 10],
        "source": str(source / "patient7/cine_kspace.npy"),
        "key": "",
        "slice_index": 0,
        "format": "npy",
        "simulation": "",
        "sens": "the file",
        "pixel_mm": None,
        "acquired": None,
    }


def test_a_finished_set_is_left_as_it_is_without_its_source(source, tmp_path):
    tree, out = shutil.copytree(source, tmp_path / "tree"), tmp_path / "set"
    assert prepare(tree, out, OPTIONS).n_made == 9
    before = digests(out)
    shutil.rmtree(tree)
    outcome = prepare(tree, out, OPTIONS)
    assert outcome.n_made == 0 and sum(outcome.n_slices.values()) == 9
    assert len(outcome.skipped) == 4 and digests(out) == before
    assert not (out / ".preparing").exists()


@pytest.mark.parametrize("finished", [True, False])
def test_other_options_are_refused_with_what_differs(source, tmp_path, finished):
    if finished:
        prepare(source, tmp_path / "set", OPTIONS)
    else:
        settings = {"source": str(source), **OPTIONS.settings()}
        with Staging.claim(tmp_path / "set", settings):
            pass
    told = r"set: expected acs=30, seed=1 as asked for, got a set with acs=24, seed=0; "
    with pytest.raises(DataError, match=told):
        prepare(source, tmp_path / "set", replace(OPTIONS, acs=30, seed=1))


def test_a_failure_before_the_first_slice_does_not_refuse_the_corrected_command(tmp_path):
    """Too few subjects to split are seen by the scan, a bad slice after it."""
    tree, out = tmp_path / "tree", tmp_path / "set"
    write_mat(tree / "P1/cine_sax.mat", "kspace_full", np.zeros((1, 1, 1, 9, 8), np.complex64))
    with pytest.raises(ValueError, match="at least 3 subjects to split, got 1"):
        prepare(tree, out, PrepareOptions())
    with pytest.raises(DataError, match="zeros only"):
        prepare(tree, out, PrepareOptions(split=(1.0,)))
    assert not out.exists()
    write_mat(tree / "P2/cine_sax.mat", "kspace_full", writers.kspace((1, 1, 1, 9, 8)))
    prepare(tree, out, PrepareOptions(split=(0.5, 0.5)), skip_bad=True)


def test_a_folder_with_something_else_is_refused(source, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(DataError, match=r"an empty or a new folder, got one with 'thesis.tex'"):
        prepare(source, tmp_path, OPTIONS)
    with pytest.raises(DataError, match=r"expected a folder to write to, got a file"):
        prepare(source, tmp_path / "thesis.tex", OPTIONS)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_that_a_person_has_looked_into_is_as_good_as_an_empty_one(source, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set/.DS_Store").write_bytes(b"of a Mac's file browser")
    assert prepare(source, tmp_path / "set", OPTIONS).n_made > 0
    verify_checksums(tmp_path / "set")


def test_a_full_disk_leaves_nothing_that_looks_finished(source, prepared, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (10_000, 100_000):  # too little for frames; for the joined sensitivities
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            with pytest.raises(OSError, match="File too large"):
                prepare(source, tmp_path / "set", OPTIONS)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert [p.name for p in (tmp_path / "set").iterdir()] == [".preparing"]
        with pytest.raises(DataError, match="whose preparation has not ended; run the same"):
            PreparedSet(tmp_path / "set")
    prepare(source, tmp_path / "set", OPTIONS)
    assert digests(tmp_path / "set") == digests(prepared)


def test_without_hard_links_files_are_copied(source, prepared, tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError("no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    prepare(source, tmp_path / "set", OPTIONS)
    assert digests(tmp_path / "set") == digests(prepared)


def test_frames_are_hashed_once_as_they_are_kept(tmp_path, monkeypatch):
    """A second time would read the whole set again."""
    hashed, digest_of = [], checksums.digest_of
    monkeypatch.setattr(checksums, "digest_of", lambda p: hashed.append(p) or digest_of(p))
    write_mat(tmp_path / "P1/cine_sax.mat", "kspace_full", writers.kspace((1, 2, 1, 9, 8)))
    prepare(tmp_path / "P1", tmp_path / "set", PrepareOptions(split=(1.0,)))
    assert hashed and not any(path.name.startswith("cine_frames-") for path in hashed)


def test_bad_slices_stop_it_or_are_skipped_and_listed(source, tmp_path):
    tree, out = shutil.copytree(source, tmp_path / "tree"), tmp_path / "set"
    data = writers.kspace()
    data[1, 1, 0, 0, 0] = np.nan
    write_mat(tree / "a/P005/cine_sax.mat", "kspace_full", data)
    options = PrepareOptions(split=(0.5, 0.5), sens="adaptive")
    with pytest.raises(DataError, match=r"P005/cine_sax/slice1\]: expected finite k-space"):
        prepare(tree, out, options)
    outcome = prepare(tree, out, options, skip_bad=True)
    (bad,) = [each for each in outcome.skipped if each.bad]
    assert bad.name == "P005/cine_sax/slice1" and "NaN" in bad.reason
    listed = json.loads((out / "skipped.json").read_text())
    assert bad._asdict() in listed and len(listed) == 5
    assert sum(outcome.n_slices.values()) == 10
    assert prepare(tree, out, options).skipped == outcome.skipped


def test_the_good_slice_before_a_bad_one_is_not_made_again(source, tmp_path, monkeypatch):
    tree = tmp_path / "tree"
    data = writers.kspace((3, 3, 1, 9, 8))
    data[:, 1] = 0
    write_mat(tree / "P005/cine_sax.mat", "kspace_full", data)
    options = PrepareOptions(split=(1.0,))
    with pytest.raises(DataError, match="zeros only"):
        prepare(tree, tmp_path / "set", options)
    assert prepare(tree, tmp_path / "set", options, skip_bad=True).n_made == 1


def test_slices_kept_by_an_earlier_version_are_made_again(source, prepared, tmp_path, monkeypatch):
    """What was kept of each has changed since; one that lacks some of it ended in a KeyError."""
    out = tmp_path / "set"

    def earlier(case, options):
        if case.meta.slice_index == 1:
            raise KeyboardInterrupt
        made = process(case, options)
        return replace(made, meta={k: v for k, v in made.meta.items() if k != "acquired"})

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(preparing, "process", earlier)
        patched.setattr(scan, "_KEPT", 1)
        prepare(source, out, OPTIONS)
    assert len(list((out / ".preparing").glob("*.array_record"))) == 1
    assert prepare(source, out, OPTIONS).n_made == sum(
        prepare(source, out, OPTIONS).n_slices.values()
    )
    assert digests(out) == digests(prepared)


def test_what_is_kept_of_a_slice_has_a_number(source):
    """Where this fails, raise the number, in ``scan`` and here."""
    planned = scan.scan(source, OPTIONS)[0][0]
    kept = process(scan.SliceReader(OPTIONS).read(planned), OPTIONS).meta
    fields = (
        "acquired format frame_seconds fully_sampled is_stack key mask_source n_slices name "
        "nominal_acceleration notes orientation pixel_mm sens simulation slice_index source view"
    )
    assert (scan._KEPT, " ".join(sorted(kept))) == (2, fields)


def test_a_set_without_a_usable_slice_is_not_made(tmp_path):
    write_mat(tmp_path / "P1/cine_sax.mat", "kspace_full", np.zeros((1, 1, 1, 9, 8), np.complex64))
    with pytest.raises(DataError, match="expected at least one usable slice, got none in 1"):
        prepare(tmp_path, tmp_path / "set", PrepareOptions(split=(1.0,)), skip_bad=True)


def test_real_layouts_are_prepared(data_dir, tmp_path):
    source = data_dir / "cmrxrecon/2023/SingleCoil"
    outcome = prepare(source, tmp_path / "set", PrepareOptions(split=(1.0,)))
    n_slices = outcome.n_slices["train"]
    assert n_slices == len(PreparedSet(tmp_path / "set").slices) >= 1
    assert {"AccFactor04", "AccFactor08", "AccFactor10"} == {
        Path(each.source).parts[-3] for each in outcome.skipped
    }


@pytest.mark.slow
@pytest.mark.parametrize("path, n_slices", [("cmrxrecon", 8), ("val.h5", 11)])
def test_all_shared_data_is_prepared(data_dir, tmp_path, path, n_slices):
    outcome = prepare(data_dir / path, tmp_path / "set", PrepareOptions(split=(0.6, 0.2, 0.2)))
    assert sum(outcome.n_slices.values()) == n_slices
    assert not any(each.bad for each in outcome.skipped)


_PEAK = """
import resource, sys
from kgmgt_jax.data.prepared import PrepareOptions
from kgmgt_jax.data.prepared.preparing import prepare
prepare(sys.argv[1], sys.argv[2], PrepareOptions(split=(1.0,)))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_slices(tmp_path):
    slice_bytes, peaks = 8 * 20 * 2 * 256 * 256, []
    for number in range(12):
        data = writers.kspace((20, 2, 256, 256), str(number))
        for folder in ("few", "many")[number >= 3 :]:
            path = tmp_path / folder / f"P{number:03d}"
            path.mkdir(parents=True)
            np.save(path / "cine_kspace.npy", data)
            np.save(path / "cine_sens.npy", data[0])
    for folder in ("few", "many"):
        command = [sys.executable, "-c", _PEAK, tmp_path / folder, tmp_path / f"{folder}_set"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout))
    assert peaks[1] - peaks[0] < slice_bytes
