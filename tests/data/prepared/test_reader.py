"""A prepared set gives back the images of its files, in any order, to threads and processes."""

import json
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import numpy as np
import pytest

from kgmgt_jax.data.case import DataError
from kgmgt_jax.data.file_slices import FileSlices
from kgmgt_jax.data.formats import read_file
from kgmgt_jax.data.prepared import PreparedSet, PrepareOptions, is_prepared
from kgmgt_jax.data.prepared.preparing import prepare
from kgmgt_jax.data.slices import SliceSource
from kgmgt_jax.data.sources import open_slices
from kgmgt_jax.data.transforms import ifft2c
from kgmgt_jax.evaluation.cases import open_evaluation
from tests.data.formats import writers
from tests.data.prepared.conftest import OPTIONS
from tests.data.small_files import write_file

SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def sets(prepared) -> list[PreparedSet]:
    return [PreparedSet(prepared, split=split) for split in SPLITS]


@pytest.fixture(scope="module")
def with_maps(sets) -> tuple[PreparedSet, int]:
    """The slice of several coils: its set and number there."""
    for opened in sets:
        for number, info in enumerate(opened.slices):
            if info.shape[1] > 1:
                return opened, number
    raise AssertionError("no slice of several coils")


def _scale(opened, number):
    """What the images of a slice were divided by, from the record of the slice."""
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(str(opened._root / "cine_slices/1.0.0"))
    return builder.as_data_source(opened._split)[number]["scale"]


def test_images_are_those_of_the_file_over_the_scale(sets):
    """To rounding: a division and a multiplication in single precision."""
    n_slices = 0
    for opened in sets:
        for number, info in enumerate(opened.slices):
            files = read_file(info.source)
            case = files[int(info.name[-1])]
            expected = ifft2c(case.kspace)
            start = expected.shape[-1] // 2 - OPTIONS.readout // 2
            expected = expected[..., start : start + OPTIONS.readout]
            images = opened.images(number, range(info.shape[0]))
            assert images.dtype == np.complex64 and images.shape == info.shape
            np.testing.assert_allclose(images * _scale(opened, number), expected, rtol=3e-7)
            n_slices += 1
    assert n_slices == 9


def test_it_is_a_slice_source(sets):
    source = cast(SliceSource, sets[0])
    info = source.slices[0]
    assert (info.subject, info.view) == (info.name.split("/")[0], "sax")
    assert info.shape == (3, 1, 18, 10) and info.source.endswith("cine_sax.mat")


def test_slices_keep_height_and_width_of_their_pixels(tmp_path):
    pytest.importorskip("nibabel")
    prepare(writers.write_nifti(tmp_path / "data"), tmp_path / "set", PrepareOptions(split=(1.0,)))
    infos = PreparedSet(tmp_path / "set").slices
    assert [info.pixel_mm for info in infos] == [pytest.approx((1.25, 1.5))] * 2


def test_samples_that_the_scanner_left_out_are_known(sets, tmp_path):
    pytest.importorskip("ismrmrd")
    writers.write_ismrmrd(tmp_path / "data", late=2)
    prepare(tmp_path / "data", tmp_path / "set", PrepareOptions(split=(1.0,)))
    opened = pickle.loads(pickle.dumps(PreparedSet(tmp_path / "set")))
    expected = FileSlices([tmp_path / "data" / "fs_0001.h5"], acs=4).acquired(0)
    np.testing.assert_array_equal(opened.acquired(0), expected)
    assert sets[0].acquired(0) is None


def test_sensitivities_of_each_frame_are_kept(tmp_path):
    maps = np.stack([writers.maps((3, 9, 14)), writers.maps((3, 9, 14))[::-1]])
    (tmp_path / "data").mkdir()
    np.save(tmp_path / "data" / "a_kspace.npy", writers.kspace((2, 3, 9, 14)))
    np.save(tmp_path / "data" / "a_sens.npy", maps)
    prepare(tmp_path / "data", tmp_path / "set", PrepareOptions(split=(1.0,)))
    np.testing.assert_array_equal(PreparedSet(tmp_path / "set").sens(0), maps)


def test_slices_say_how_they_were_simulated(sets):
    for opened in sets:
        for info in opened.slices:
            phantom = info.subject != "patient7"
            assert info.simulation == ("simulated phantom" if phantom else "")
            assert info.simulated == phantom


def test_frames_come_in_the_order_asked_for(with_maps):
    opened, number = with_maps
    whole = opened.images(number, range(4))
    for frames in ([3, 0, 1], [2], [1, 1, 0, 1], np.array([3, 2]), []):
        np.testing.assert_array_equal(opened.images(number, frames), whole[list(frames)])
    assert len({image.tobytes() for image in whole}) == 4


def test_images_are_the_callers_to_change(sets):
    before = sets[0].images(0, [0]).copy()
    sets[0].images(0, [0])[:] = 0
    np.testing.assert_array_equal(sets[0].images(0, [0]), before)


def test_sensitivities_are_those_of_the_file_and_none_for_one_coil(sets, with_maps):
    opened, number = with_maps
    expected = writers.maps((3, 9, 14))[..., 2:12]
    np.testing.assert_array_equal(opened.sens(number), expected)
    single = next(each for each in sets if each.slices[0].shape[1] == 1)
    assert single.sens(0) is None
    assert opened.sens_method(number) is None and single.sens_method(0) is None


@pytest.mark.parametrize("method", ["adaptive", "espirit"])
def test_estimated_sensitivities_say_how(tmp_path, method):
    write_file(tmp_path / "files", "P001", (3, 1, 3, 16, 12))
    options = PrepareOptions(acs=6, sens=method, split=(1.0,))
    prepare(tmp_path / "files", tmp_path / "set", options)
    opened = PreparedSet(tmp_path / "set")
    assert opened.sens_method(0) == pickle.loads(pickle.dumps(opened)).sens_method(0) == method


@pytest.mark.parametrize("frames", [[-1], [0, 3], range(2, 5)])
def test_frames_that_are_not_there_are_refused(sets, frames):
    with pytest.raises(ValueError, match=r"frames must lie in \[0, 3\)"):
        sets[0].images(0, frames)


@pytest.mark.parametrize("after_last", [False, True])
def test_slices_that_are_not_there_are_refused(sets, after_last):
    opened = sets[0]
    number = len(opened.slices) if after_last else -1
    reads = (lambda i: opened.images(i, [0]), opened.sens, opened.sens_method, opened.acquired)
    for read in reads:
        with pytest.raises(ValueError, match=r"number must lie in \[0, "):
            read(number)


def test_a_pickled_set_is_small_and_reads_the_same(with_maps):
    opened, number = with_maps
    expected, sens = opened.images(number, [1, 2]), opened.sens(number)
    sent = pickle.dumps(opened)
    assert len(sent) < 3000
    received = pickle.loads(sent)
    np.testing.assert_array_equal(received.images(number, [1, 2]), expected)
    np.testing.assert_array_equal(received.sens(number), sens)
    assert received.slices == opened.slices and received.readout == OPTIONS.readout


def test_threads_share_a_set(sets):
    opened = sets[0]
    jobs = [(i % len(opened.slices), (i * 7) % 3) for i in range(200)]
    expected = [opened.images(number, [t]) for number, t in jobs]
    fresh = pickle.loads(pickle.dumps(opened))
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda job: (fresh.sens(job[0]), fresh.images(job[0], [job[1]])), jobs))
    for (_, images), wanted in zip(got, expected, strict=True):
        np.testing.assert_array_equal(images, wanted)


def test_few_files_stay_open_and_few_maps_in_memory(sets, monkeypatch):
    monkeypatch.setattr("kgmgt_jax.data.prepared.reader._OPEN_FILES", 2)
    monkeypatch.setattr("kgmgt_jax.data.prepared.reader._KEPT_SENS", 1)
    opened = pickle.loads(pickle.dumps(sets[0]))
    assert len(opened.slices) > 2
    for number in (*range(len(opened.slices)), 0):
        opened.images(number, [0])
        opened.sens(number)
    assert (opened._open.cache_info().currsize, opened._sens.cache_info().currsize) == (2, 1)


def test_an_unknown_split_names_those_there_are(prepared):
    with pytest.raises(DataError, match="a split among train, validation, test, got 'training'"):
        PreparedSet(prepared, split="training")


def test_no_set_is_refused_with_the_command_that_makes_one(prepared, tmp_path):
    with pytest.raises(DataError, match=r"expected a prepared set, got none; .* prepare"):
        PreparedSet(tmp_path)
    assert is_prepared(prepared) and not is_prepared(tmp_path)


def test_damage_is_named_when_read_unverified(prepared, tmp_path):
    copied = shutil.copytree(prepared, tmp_path / "set")
    for path in copied.rglob("*.array_record*"):
        path.write_bytes(path.read_bytes()[:100])
    opened = PreparedSet(copied, verify=False)
    for read in (lambda: opened.images(0, [0]), lambda: opened.sens(0)):
        with pytest.raises(DataError, match=r"train.array_record-00000-.*a prepared set, got "):
            read()


def test_records_of_other_sizes_than_the_metadata_tells_are_named(prepared, tmp_path):
    copied = shutil.copytree(prepared, tmp_path / "set")
    path = copied / "cine_slices/1.0.0/metadata.json"
    told = json.loads(path.read_text())
    for each in told["slices"]:
        each["shape"][2] += 1
    path.write_text(json.dumps(told))
    with pytest.raises(DataError, match=r"array_record-0.*expected an array .* got \d+ bytes"):
        PreparedSet(copied, verify=False).images(0, [0])


def test_damaged_metadata_is_named(prepared, tmp_path):
    copied = shutil.copytree(prepared, tmp_path / "set")
    path = copied / "cine_slices/1.0.0/metadata.json"
    for text in ("{", "[]", '{"settings": 1}', "\xff"):
        path.write_text(text, encoding="latin-1")
        with pytest.raises(DataError, match=r"metadata.json: expected the metadata"):
            PreparedSet(copied, verify=False)


@pytest.mark.parametrize(
    "edit",
    [
        lambda told: told["slices"][0].pop("sens"),
        lambda told: told["slices"][0].update(shape=[3, 1, 10]),
        lambda told: told["slices"][0].update(slice_index="0/../.."),
        lambda told: told.update(slices=None),
        lambda told: told.update(settings=[]),
    ],
)
def test_metadata_of_another_kind_is_refused(prepared, tmp_path, edit):
    copied = shutil.copytree(prepared, tmp_path / "set")
    path = next(copied.rglob("cine_slices/*/metadata.json"))
    told = json.loads(path.read_text())
    edit(told)
    path.write_text(json.dumps(told))
    with pytest.raises(DataError, match="expected the metadata of a prepared set"):
        PreparedSet(copied, verify=False)


@pytest.mark.parametrize("opened", [open_slices, open_evaluation])
def test_that_reading_options_do_not_change_it_is_said(prepared, caplog, opened):
    options = {"split": "test"} if opened is open_slices else {}
    with caplog.at_level("INFO", "kgmgt_jax"):
        data = opened(prepared, acs=4, sens="adaptive", **options)
    assert len(data.slices) > 0
    assert f"{prepared} (test): coils, their maps and simulated k-space as prepared" in caplog.text
    first = caplog.records[0].getMessage()  # a log that is no terminal has no bar
    assert first == f"{prepared} (test): reading it once, to hold it against its checksums"
