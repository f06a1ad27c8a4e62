"""Slices straight from files: read once, calibrated on what every mask contains."""

import pickle
import tracemalloc
from pathlib import Path

import h5py
import jax.numpy as jnp
import numpy as np
import pytest

from kgmgt_jax.data.case import DataError
from kgmgt_jax.data.file_slices import FileSlices
from kgmgt_jax.data.formats import CineFile, find_full, read_file
from kgmgt_jax.data.sens_cache import missing_sens
from kgmgt_jax.data.simulation import Simulation
from kgmgt_jax.data.transforms import coil_combine, fft2c
from kgmgt_jax.mri.coils import estimate_sens
from tests.data.draws import random_complex
from tests.data.small_files import write_file


def test_slices_come_in_order_with_their_shapes(files):
    slices = FileSlices(files, acs=4).slices
    assert [s.name for s in slices] == [f"P00{p}/cine_sax/slice{z}" for p in (1, 2) for z in (0, 1)]
    assert {s.shape for s in slices} == {(4, 1, 16, 12)}
    assert [s.subject for s in slices] == ["P001", "P001", "P002", "P002"]
    assert slices[2].source == str(files[1]) and not slices[0].simulated


@pytest.mark.parametrize("frames", [[3, 0], [3, 0, 1, 2]])
def test_images_are_those_of_the_kspace(files, frames):
    images = FileSlices(files, acs=4).images(1, frames)
    expected = read_file(files[0])[1].kspace[frames]
    np.testing.assert_allclose(fft2c(images), expected, atol=1e-6)


def test_simulated_slices_say_so(tmp_path):
    np.save(tmp_path / "cine.npy", np.ones((3, 16, 12), np.float32))
    assert FileSlices([tmp_path / "cine.npy"], acs=4).slices[0].simulated


def test_images_of_one_coil_without_noise_come_back_as_they_are(tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (3, 16, 12)).astype(np.uint8)
    np.save(tmp_path / "cine.npy", images)
    simulation = Simulation(n_coils=(1, 1), noise=0.0)
    source = FileSlices([tmp_path / "cine.npy"], acs=4, simulation=simulation)
    assert source.slices[0].shape == (3, 1, 16, 12) and source.sens(0) is None
    np.testing.assert_allclose(np.abs(source.images(0, range(3))[:, 0]), images, atol=1e-3)


def test_a_slice_too_narrow_for_maps_is_named(tmp_path):
    np.save(tmp_path / "picture.npy", np.ones((4, 16, 3), np.float32))
    source = FileSlices([tmp_path / "picture.npy"], acs=4)
    with pytest.raises(DataError, match=r"picture.npy \[picture/slice0\]: expected coil maps, or"):
        source.sens(0)


def test_a_choice_of_coils_gives_each_file_its_own(tmp_path):
    names = [f"cine{i}.npy" for i in range(8)]
    for name in names:
        np.save(tmp_path / name, np.ones((2, 16, 12), np.float32))
    simulation = Simulation(n_coils=(1, 4))
    source = FileSlices([tmp_path / name for name in names], acs=4, simulation=simulation)
    coils = [info.shape[1] for info in source.slices]
    assert len(set(coils)) > 1
    assert [source.images(i, [0]).shape[1] for i in range(8)] == coils


def _count_reads(monkeypatch) -> list[int]:
    reads, read = [], CineFile.__getitem__

    def counted(self, z):
        reads.append(z)
        return read(self, z)

    monkeypatch.setattr(CineFile, "__getitem__", counted)
    return reads


def test_a_slice_is_read_once(files, monkeypatch):
    source, reads = FileSlices(files, acs=4), _count_reads(monkeypatch)
    for number in (0, 0, 1, 0):
        source.images(number, [0])
        source.sens(number)
    assert reads == [0, 1]


def test_a_full_cache_forgets_the_slice_unused_for_longest(files, monkeypatch):
    two_slices = 2 * (4 * 16 * 12 * 8) / 2**30
    source, reads = FileSlices(files, acs=4, cache_gib=two_slices), _count_reads(monkeypatch)
    for number in (0, 1, 0, 2, 0, 1):  # slice 1 makes room for slice 2 and is read again
        source.images(number, [0])
    assert reads == [0, 1, 0, 1]


def test_slices_can_go_to_another_process(files):
    source = FileSlices(files, acs=4)
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copy.images(2, [1]), source.images(2, [1]))


@pytest.mark.parametrize("method", ["adaptive", "espirit"])
def test_sensitivities_use_the_calibration_lines_and_nothing_else(tmp_path, method):
    path = write_file(tmp_path, "P001", (3, 1, 3, 16, 12))
    before = FileSlices([path], acs=6, sens=method).sens(0)
    with h5py.File(path, "r+") as file:
        raw = file["kspace_full"][()]
        outside = np.r_[0:5, 11:16]
        raw["real"][..., outside, :] += 1
        file["kspace_full"][...] = raw
    after = FileSlices([path], acs=6, sens=method).sens(0)
    np.testing.assert_allclose(after, before, atol=1e-4)


@pytest.mark.parametrize("method", ["adaptive", "espirit"])
def test_sensitivities_are_estimated_of_all_frames_and_kept(tmp_path, method):
    path, kept = write_file(tmp_path, "P001", (3, 1, 3, 16, 12)), tmp_path / "kept"
    kspace = jnp.asarray(read_file(path)[0].kspace)
    expected = estimate_sens(kspace, jnp.ones((3, 16, 12)), acs=6, method=method)
    found = FileSlices([path], acs=6, sens=method, sens_cache=kept).sens(0)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert len(list(kept.glob("*.npy"))) == 1


def test_a_crop_is_calibrated_on_the_same_extent_of_kspace(tmp_path):
    path = write_file(tmp_path, "P001", (3, 1, 3, 16, 12))
    cropped, whole = FileSlices([path], acs=4, crop_rows=8), FileSlices([path], acs=8)
    np.testing.assert_array_equal(cropped.sens(0), whole.sens(0))


@pytest.mark.parametrize("method", ["adaptive", "espirit"])
def test_official_coils_combine_with_little_loss(data_dir, method):
    paths = find_full(data_dir / "cmrxrecon/2023/MultiCoil")
    source = FileSlices(paths, acs=24, sens=method)
    images = source.images(0, [3])
    rss = np.sqrt(np.sum(np.abs(images) ** 2, axis=1))
    lost = rss - np.abs(coil_combine(images, source.sens(0)))
    assert np.linalg.norm(lost) < 0.03 * np.linalg.norm(rss)


# Undersampled files


def _write_undersampled(root: Path, shape: tuple[int, ...]) -> tuple[Path, np.ndarray]:
    """A file of one slice whose frames measured every second line and the central four, and its
    mask."""
    t, *_, h, w = shape
    mask = np.zeros((t, h, w), np.float32)
    for frame in range(t):
        mask[frame, frame % 2 :: 2] = 1
    mask[:, h // 2 - 2 : h // 2 + 2] = 1
    root.mkdir(exist_ok=True)
    np.save(root / "P1_kspace.npy", random_complex(*shape) * mask[:, None])
    np.save(root / "P1_mask.npy", mask)
    return root / "P1_kspace.npy", mask


def test_an_undersampled_file_keeps_its_mask_and_gives_zero_filled_images(tmp_path):
    path, mask = _write_undersampled(tmp_path, (4, 1, 16, 12))
    source = FileSlices([path], acs=2, undersampled=True)
    assert source.slices[0].undersampled
    np.testing.assert_array_equal(source.acquired(0), mask)
    kspace = fft2c(source.images(0, range(4)))
    np.testing.assert_allclose(kspace, np.load(path), atol=1e-5)


def test_a_fully_sampled_file_among_undersampled_ones_is_one(tmp_path, files):
    path, _ = _write_undersampled(tmp_path / "other", (4, 1, 16, 12))
    slices = FileSlices([path, files[0]], acs=4, undersampled=True).slices
    assert [info.undersampled for info in slices] == [True, False, False]


def test_maps_of_an_undersampled_file_are_those_of_its_reconstruction(tmp_path):
    path, _ = _write_undersampled(tmp_path, (4, 3, 16, 12))
    source = FileSlices([path], acs=2, undersampled=True)
    expected = missing_sens(read_file(path)[0], "espirit")
    np.testing.assert_allclose(source.sens(0), expected, atol=1e-4)


def test_masks_of_undersampled_files_count_as_memory(tmp_path):
    paths = [_write_undersampled(tmp_path / str(i), (4, 1, 64, 64))[0] for i in range(8)]
    limit = 5 * 8 * 4 * 64 * 64  # five slices without masks, three with
    source = FileSlices(paths, acs=2, cache_gib=limit / 2**30, undersampled=True)
    source.images(0, [0])  # what is imported and cached once
    tracemalloc.start()
    for number in range(8):
        source.acquired(number)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < limit


# What is refused


def test_an_undersampled_file_is_refused(tmp_path):
    path = write_file(tmp_path, "P001", kind="sub04")
    with h5py.File(path.with_name("cine_sax_mask.mat"), "w") as file:
        file["mask04"] = np.ones((16, 12))
    with pytest.raises(
        DataError, match=r"fully sampled .*'kspace_single_sub04'; leave it out, or give its folder"
    ):
        FileSlices([path], acs=4)


def test_no_files_are_refused():
    with pytest.raises(DataError, match="at least one cine file"):
        FileSlices([], acs=4)


def test_a_damaged_file_is_named(files):
    files[1].write_bytes(files[1].read_bytes()[:-50])
    with pytest.raises(DataError, match=rf"^{files[1]}: .*truncated"):
        FileSlices(files, acs=4)


def test_too_few_calibration_lines_for_several_coils_are_refused(tmp_path):
    path = write_file(tmp_path, "P001", (4, 1, 3, 16, 12))
    with pytest.raises(ValueError, match="several coils needs acs >= 4, got acs=2"):
        FileSlices([path], acs=2)


def test_maps_of_the_file_need_no_calibration_lines(tmp_path):
    draw = np.random.default_rng(0).standard_normal
    kspace, maps = ((draw(s) + 1j * draw(s)).astype("c8") for s in ((2, 3, 16, 12), (3, 16, 12)))
    np.save(tmp_path / "P1_kspace.npy", kspace)
    np.save(tmp_path / "P1_sens.npy", maps / np.linalg.norm(maps, axis=0))
    source = FileSlices([tmp_path / "P1_kspace.npy"], acs=2)
    np.testing.assert_array_equal(source.sens(0), np.load(tmp_path / "P1_sens.npy"))


def test_what_is_kept_for_the_next_reader_cannot_be_written_to(files):
    images = FileSlices(files, acs=4).images(0, range(4))
    with pytest.raises(ValueError, match="read-only"):
        images /= 2


def test_as_many_slices_are_kept_as_there_is_room_for_the_largest(tmp_path):
    shapes = [(1, 8, 8), (6, 16, 12), (2, 16, 12)]
    for number, shape in enumerate(shapes):
        np.save(tmp_path / f"cine{number}.npy", np.ones(shape, np.float32))
    files = [tmp_path / f"cine{number}.npy" for number in range(3)]
    room = 2.5 * 8 * 6 * 16 * 12  # bytes of two and a half of the largest
    source = FileSlices(
        files, acs=4, cache_gib=room / 2**30, simulation=Simulation(n_coils=1, noise=0.0)
    )
    for number in range(3):
        source.images(number, [0])
    assert source._load_cached.cache_info().currsize == 2


def test_slices_of_one_frame_keep_to_the_memory_they_are_given(tmp_path):
    shape = (1, 1, 4, 64, 64)  # maps of such take as much as the slice
    files = [write_file(tmp_path, f"P00{i}", shape) for i in range(8)]
    limit = 4 * 8 * np.prod(shape)
    source = FileSlices(files, acs=8, cache_gib=limit / 2**30)
    source.sens(0)  # what is imported and cached once
    tracemalloc.start()
    for number in range(1, 8):
        assert source.sens(number) is not None
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < limit
