"""The folders are datasets of TFDS, which reads them by itself."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from kgmgt_jax.data.prepared import PreparedSet
from kgmgt_jax.data.prepared.records import open_records


def _open(prepared, dataset):
    return tfds.builder_from_directory(str(prepared / dataset / "1.0.0"))


def test_frames_are_read_by_tfds_in_order(prepared):
    for split in ("train", "validation", "test"):
        opened = PreparedSet(prepared, split=split)
        source = _open(prepared, "cine_frames").as_data_source(split)
        assert len(source) == sum(info.shape[0] for info in opened.slices)
        examples = iter(source)
        for number, info in enumerate(opened.slices):
            for t in range(info.shape[0]):
                example = next(examples)
                images = np.frombuffer(example["images"], np.complex64)
                expected = opened.images(number, [t])[0]
                np.testing.assert_array_equal(images.reshape(example["shape"]), expected)
                assert example["t"] == t


def test_slices_are_read_by_tfds_with_all_that_is_known_of_them(prepared):
    frames = _open(prepared, "cine_frames").as_data_source("train")
    slices = _open(prepared, "cine_slices").as_data_source("train")
    opened, first = PreparedSet(prepared), 0
    assert len(slices) == len(opened.slices)
    for info, example in zip(opened.slices, slices, strict=True):
        assert example["name"].decode() == info.name and tuple(example["shape"]) == info.shape
        assert example["subject"].decode() == info.subject and example["view"].decode() == info.view
        assert frames[first]["slice"] == example["id"]
        meta = json.loads(example["meta"])
        assert meta["source"] == info.source and meta["fully_sampled"] is True
        assert {"orientation", "simulation", "format", "notes", "sens"} <= set(meta)
        assert "scale" not in meta and example["scale"] > 0
        first += info.shape[0]


def test_time_and_coils_are_in_the_shape_of_the_maps(prepared):
    shapes = {
        tuple(example["sens_shape"]): len(example["sens"])
        for split in ("train", "validation", "test")
        for example in _open(prepared, "cine_slices").as_data_source(split)
    }
    assert shapes == {(0, 0, 0, 0): 0, (1, 3, 9, 10): 8 * 3 * 9 * 10}


@pytest.mark.parametrize("dataset", ["cine_frames", "cine_slices"])
def test_info_tells_what_was_done_and_that_nothing_is_shuffled(prepared, dataset):
    info = _open(prepared, dataset).info
    assert info.disable_shuffling and info.file_format.value == "array_record"
    assert info.metadata["settings"]["readout"] == 10
    sizes = {name: split.num_examples for name, split in info.splits.items()}
    per_slice = [each["shape"][0] for each in info.metadata["slices"]]
    assert sum(sizes.values()) == (sum(per_slice) if dataset == "cine_frames" else 9)


@pytest.mark.parametrize("dataset", ["cine_frames", "cine_slices"])
def test_info_tells_how_many_bytes_the_records_of_a_split_have(prepared, dataset):
    for split, info in _open(prepared, dataset).info.splits.items():
        readers = map(open_records, map(Path, info.filepaths))
        records = [r for reader in readers for r in reader.read([*range(reader.num_records())])]
        assert info.num_bytes == sum(map(len, records)), split
