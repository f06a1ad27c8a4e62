"""The Grain pipeline: what a batch holds, that it repeats bit for bit, and that it resumes."""

import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest

from kgmgt_jax.data.case import DataError
from kgmgt_jax.data.formats import CineFile, find_files, read_file
from kgmgt_jax.data.pipeline import TripletSource, make_training_loader, validation_batches
from kgmgt_jax.data.transforms import coil_combine, fft2c, ifft2c

MASKS = {"mask_kinds": ("variable_density", "kt_uniform"), "accelerations": (2.0, 3.0), "acs": 4}
SETTINGS = {"batch_size": 3, "crop": (12, 10), "seed": 7, **MASKS}


def _write(
    root: Path, subject: str, shape: tuple[int, ...] = (4, 2, 16, 12), kind: str = "full"
) -> Path:
    """A file of band-limited random images, (t, z, ky, kx) or (t, z, n, ky, kx)."""
    rng = np.random.default_rng(list(subject.encode()))
    decay = np.exp(-0.1 * np.abs(np.arange(shape[-2]) - shape[-2] // 2))[:, None]
    compound = np.empty(shape, [("real", "<f4"), ("imag", "<f4")])
    compound["real"], compound["imag"] = rng.normal(size=(2, *shape)) * decay
    path = root / subject / "cine_sax.mat"
    path.parent.mkdir(parents=True)
    single = "single_" if len(shape) == 4 else ""
    with h5py.File(path, "w") as file:
        file[f"kspace_{single}{kind}"] = compound
    return path


@pytest.fixture
def files(tmp_path) -> list[Path]:
    """Two subjects of two slices of four frames: 16 examples."""
    return [_write(tmp_path, subject) for subject in ("P001", "P002")]


def _same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)


def _take(iterator, n: int) -> list[dict[str, np.ndarray]]:
    return [next(iterator) for _ in range(n)]


# Source


def test_the_source_has_every_frame_of_every_slice_once(files):
    source = TripletSource(files, acs=4)
    names = [(source[i].name, source[i].frame) for i in range(len(source))]
    cases = [f"P00{p}/cine_sax/slice{z}" for p in (1, 2) for z in (0, 1)]
    assert names == [(case, t) for case in cases for t in range(4)]


def test_the_source_holds_the_images_of_the_kspace(files):
    frame = TripletSource(files, acs=4)[5]
    np.testing.assert_allclose(fft2c(frame.images), read_file(files[0])[1].kspace, atol=1e-6)


def _count_reads(monkeypatch) -> list[int]:
    reads, read = [], CineFile.__getitem__

    def counted(self, z):
        reads.append(z)
        return read(self, z)

    monkeypatch.setattr(CineFile, "__getitem__", counted)
    return reads


def test_a_slice_is_read_once(files, monkeypatch):
    source, reads = TripletSource(files, acs=4), _count_reads(monkeypatch)
    for index in (0, 1, 4, 2, 0):
        source[index]
    assert reads == [0, 1]


def test_a_full_cache_forgets_the_slice_unused_for_longest(files, monkeypatch):
    two_slices = 2 * (4 * 16 * 12 * 8) / 2**30
    source, reads = TripletSource(files, acs=4, cache_gib=two_slices), _count_reads(monkeypatch)
    for index in (0, 4, 0, 8, 0, 4):  # slice 1 makes room for slice 2 and is read again
        source[index]
    assert reads == [0, 1, 0, 1]


def test_a_source_can_go_to_another_process(files):
    source = TripletSource(files, acs=4)
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copy[9].images, source[9].images)


def test_sensitivities_use_the_calibration_lines_and_nothing_else(tmp_path):
    path = _write(tmp_path, "P001", (3, 1, 3, 16, 12))
    before = TripletSource([path], acs=6)[0].sens
    with h5py.File(path, "r+") as file:
        raw = file["kspace_full"][()]
        outside = np.r_[0:5, 11:16]
        raw["real"][..., outside, :] += 1
        file["kspace_full"][...] = raw
    np.testing.assert_allclose(TripletSource([path], acs=6)[0].sens, before, atol=1e-5)


def test_a_crop_is_calibrated_on_the_same_extent_of_kspace(tmp_path):
    path = _write(tmp_path, "P001", (3, 1, 3, 16, 12))
    cropped, whole = TripletSource([path], acs=4, crop=(8, None)), TripletSource([path], acs=8)
    np.testing.assert_array_equal(cropped[0].sens, whole[0].sens)


def test_official_coils_combine_with_little_loss(data_dir):
    paths = find_files(data_dir / "cmrxrecon/2023/MultiCoil", fully_sampled=True)
    frame = TripletSource(paths, acs=24)[3]
    rss = np.sqrt(np.sum(np.abs(frame.images) ** 2, axis=1))
    lost = rss - np.abs(coil_combine(frame.images, frame.sens))
    assert np.linalg.norm(lost) < 0.03 * np.linalg.norm(rss)


# Training batches


def test_shapes_and_dtypes_of_a_single_coil_batch(files):
    batch = next(make_training_loader(files, **SETTINGS))
    found = {name: (array.shape, array.dtype.name) for name, array in batch.items()}
    assert found == {
        "target": ((3, 12, 10), "complex64"),
        "preceding": ((3, 12, 10), "complex64"),
        "succeeding": ((3, 12, 10), "complex64"),
        "reference": ((3, 12, 10), "complex64"),
        "kspace": ((3, 1, 12, 10), "complex64"),
        "mask": ((3, 12, 10), "float32"),
        "scale": ((3,), "float32"),
    }


def test_a_multi_coil_batch_has_sensitivities_of_unit_norm(tmp_path):
    path = _write(tmp_path, "P001", (4, 1, 3, 16, 12))
    sens = next(make_training_loader([path], **SETTINGS))["sens"]
    assert sens.shape == (3, 3, 12, 10) and sens.dtype == np.complex64
    np.testing.assert_allclose(np.sum(np.abs(sens) ** 2, axis=1), 1, atol=1e-5)


def test_the_target_is_the_combined_measurement(tmp_path):
    path = _write(tmp_path, "P001", (4, 1, 3, 16, 12))
    batch = next(make_training_loader([path], **SETTINGS))
    expected = coil_combine(ifft2c(batch["kspace"]), batch["sens"])
    np.testing.assert_allclose(batch["target"], expected, atol=1e-5)


def test_kspace_is_measured_where_the_mask_is_one_and_nowhere_else(files):
    batch = next(make_training_loader(files, **SETTINGS))
    np.testing.assert_array_equal(batch["kspace"][:, 0] != 0, batch["mask"] == 1)


def test_measured_kspace_is_that_of_the_reference(files):
    batch = next(make_training_loader(files, **SETTINGS))
    expected = fft2c(batch["reference"]) * batch["mask"]
    np.testing.assert_allclose(batch["kspace"][:, 0], expected, atol=1e-5)


def test_one_seed_gives_the_same_batches(files):
    runs = [_take(make_training_loader(files, **SETTINGS), 8) for _ in range(2)]
    assert all(map(_same, *runs))


def test_another_seed_gives_others(files):
    other = next(make_training_loader(files, **SETTINGS | {"seed": 8}))
    assert not _same(next(make_training_loader(files, **SETTINGS)), other)


@pytest.mark.slow  # each process starts its own JAX
def test_worker_processes_give_the_same_batches(files):
    alone = _take(make_training_loader(files, **SETTINGS), 5)
    iterator = make_training_loader(files, **SETTINGS, worker_count=2)
    shared = _take(iterator, 5)
    iterator.close()
    assert all(map(_same, alone, shared))


def test_a_restored_iterator_goes_on_with_the_same_batches(files):
    iterator = make_training_loader(files, **SETTINGS)
    _take(iterator, 4)
    state = pickle.loads(pickle.dumps(iterator.get_state()))
    expected = _take(iterator, 5)
    resumed = make_training_loader(files, **SETTINGS)
    resumed.set_state(state)
    assert all(map(_same, expected, _take(resumed, 5)))


def test_an_epoch_shows_every_frame_once_and_the_next_draws_anew(files):
    whole = {"batch_size": 16, "seed": 0, "num_epochs": 2, **MASKS}
    first, second = make_training_loader(files, **whole)
    energies = [
        np.sort((np.abs(b["reference"]) ** 2).sum(axis=(1, 2)) * b["scale"] ** 2)
        for b in (first, second)
    ]
    assert np.unique(energies[0].round(3)).size == 16
    np.testing.assert_allclose(*energies, rtol=1e-4)  # whole frames: flips keep the energy
    assert not np.array_equal(first["mask"], second["mask"])


def test_epochs_end(files):
    assert len(list(make_training_loader(files, **SETTINGS, num_epochs=1))) == 16 // 3


def test_examples_of_a_batch_have_masks_of_their_own(files):
    mask = next(make_training_loader(files, **SETTINGS))["mask"]
    assert not (mask == mask[:1]).all()


@pytest.mark.parametrize("shape", [(1, 1, 9, 7), (2, 1, 5, 3), (1, 1, 1, 1)])
def test_odd_and_tiny_cines_and_single_frames_work(tmp_path, shape):
    path = _write(tmp_path, "P001", shape)
    loader = make_training_loader(
        [path], batch_size=1, mask_kinds=("variable_density",), accelerations=(1.0,), acs=1
    )
    assert next(loader)["target"].shape == (1, *shape[2:])


def test_a_single_frame_is_its_own_reference(tmp_path):
    path = _write(tmp_path, "P001", (1, 1, 16, 12))
    batch = next(make_training_loader([path], **SETTINGS))
    np.testing.assert_array_equal(batch["preceding"], batch["target"])
    np.testing.assert_array_equal(batch["succeeding"], batch["target"])


def test_crops_make_files_of_different_sizes_share_a_batch(tmp_path):
    paths = [_write(tmp_path, "P001"), _write(tmp_path, "P002", (3, 1, 15, 20))]
    assert next(make_training_loader(paths, **SETTINGS))["mask"].shape == (3, 12, 10)


# What training refuses


def test_sizes_that_cannot_share_a_batch_are_refused(tmp_path):
    paths = [_write(tmp_path, "P001"), _write(tmp_path, "P002", (3, 1, 15, 20))]
    with pytest.raises(DataError, match=r"one shape .*\(1, 12, 12\), \(1, 12, 15\).*set crop"):
        make_training_loader(paths, **SETTINGS | {"crop": (12, 15)})


def test_an_undersampled_file_is_refused(tmp_path):
    path = _write(tmp_path, "P001", kind="sub04")
    with h5py.File(path.with_name("cine_sax_mask.mat"), "w") as file:
        file["mask04"] = np.ones((16, 12))
    with pytest.raises(DataError, match=r"fully sampled .*'kspace_single_sub04'; leave it out"):
        make_training_loader([path], **SETTINGS)


def test_no_files_are_refused():
    with pytest.raises(DataError, match="at least one fully sampled cine file"):
        make_training_loader([], **SETTINGS)


def test_a_damaged_file_is_named(files):
    files[1].write_bytes(files[1].read_bytes()[:-50])
    with pytest.raises(DataError, match=rf"^{files[1]}: .*truncated"):
        make_training_loader(files, **SETTINGS)


def test_too_few_calibration_lines_for_several_coils_are_refused(tmp_path):
    path = _write(tmp_path, "P001", (4, 1, 3, 16, 12))
    with pytest.raises(ValueError, match="several coils needs acs >= 4, got acs=2"):
        make_training_loader([path], **SETTINGS | {"acs": 2})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"worker_count": -1}, "worker_count=-1"),
        ({"crop": (0, None)}, r"crop=\(0, None\)"),
        ({"crop": (8,)}, r"crop=\(8,\)"),
        ({"mask_kinds": ("spiral",)}, "kind='spiral'"),
        ({"accelerations": (6.0,)}, "lower acs or the acceleration"),
        ({"batch_size": 17, "num_epochs": 1}, "no full batch: batch_size=17 with 16 frames"),
    ],
)
def test_impossible_settings_are_refused_at_once(files, change, message):
    with pytest.raises(ValueError, match=message):
        make_training_loader(files, **SETTINGS | change)


# Validation batches

VALIDATION = {"acceleration": 3.0, "acs": 4}


def test_validation_shows_whole_slices_in_order(files):
    batches = list(validation_batches(files, **VALIDATION))
    assert [batch["target"].shape for batch in batches] == [(4, 16, 12)] * 4
    expected = ifft2c(read_file(files[0])[1].kspace)[:, 0]
    found = batches[1]["reference"] * batches[1]["scale"][:, None, None]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_validation_can_split_a_slice(files):
    whole = next(validation_batches(files, **VALIDATION))
    parts = _take(validation_batches(files, **VALIDATION, batch_size=3), 2)
    assert [part["mask"].shape[0] for part in parts] == [3, 1]
    assert _same(whole, {k: np.concatenate([part[k] for part in parts]) for k in whole})


def test_validation_repeats_exactly(files):
    runs = [list(validation_batches(files, **VALIDATION)) for _ in range(2)]
    assert all(map(_same, *runs))


def test_a_validation_mask_does_not_depend_on_the_other_files(files):
    together = list(validation_batches(files, **VALIDATION))[2]
    assert _same(together, next(validation_batches(files[1:], **VALIDATION)))


def test_slices_have_validation_masks_of_their_own(files):
    one, other = _take(validation_batches(files, **VALIDATION), 2)
    assert not np.array_equal(one["mask"], other["mask"])


def test_validation_refuses_at_once_and_not_at_the_first_batch(files):
    with pytest.raises(ValueError, match="batch_size=0"):
        validation_batches(files, **VALIDATION, batch_size=0)
    with pytest.raises(ValueError, match="kind='spiral'"):
        validation_batches(files, mask_kind="spiral")
