"""Maps on disk: found again, made anew when anything differs or is damaged, shared safely."""

import json
import threading

import numpy as np
import pytest

from kgmgt_jax.data import sens_cache
from kgmgt_jax.data.formats import DataWarning
from kgmgt_jax.data.sens_cache import cached_sens
from kgmgt_jax.mri.coils import estimate_sens
from tests.data.formats.writers import kspace

SHAPE = (2, 3, 12, 10)
MASK = np.ones((2, 12, 10), np.float32)


def _cached(folder, data=None, mask=MASK, **options):
    data = kspace(SHAPE) if data is None else data
    return cached_sens(data, mask, method="adaptive", cache_dir=folder, **options)


def _forbid_estimates(monkeypatch):
    monkeypatch.setattr(sens_cache, "sens_from_block", None)


@pytest.mark.parametrize("method", ["espirit", "adaptive"])
def test_maps_are_those_of_estimate_sens(tmp_path, method):
    maps = cached_sens(kspace(SHAPE), MASK, acs=8, method=method, cache_dir=tmp_path)
    np.testing.assert_array_equal(maps, estimate_sens(kspace(SHAPE), MASK, acs=8, method=method))


def test_second_call_reads_the_same_maps_from_the_disk(tmp_path, monkeypatch):
    maps = _cached(tmp_path / "new" / "folder")
    _forbid_estimates(monkeypatch)
    np.testing.assert_array_equal(_cached(tmp_path / "new" / "folder"), maps)


def test_without_a_folder_maps_are_estimated_each_time(monkeypatch):
    assert _cached(None).shape == SHAPE[1:]
    _forbid_estimates(monkeypatch)
    with pytest.raises(TypeError):
        _cached(None)


def test_any_change_of_data_or_options_is_another_file(tmp_path, monkeypatch):
    other = kspace(SHAPE)
    other[0, 0, 6, 5] += np.float32(1e-3)
    _cached(tmp_path)
    _cached(tmp_path, other)
    _cached(tmp_path, acs=8)
    _cached(tmp_path, patch=3)
    cached_sens(kspace(SHAPE), MASK, method="espirit", cache_dir=tmp_path)
    monkeypatch.setattr(sens_cache, "_VERSION", 0)
    _cached(tmp_path)
    assert len(list(tmp_path.glob("*.npy"))) == 6


def test_the_same_data_and_options_are_the_same_file(tmp_path):
    outside = np.ones_like(MASK)
    outside[:, 0] = 0  # ten lines from the centre on are complete
    _cached(tmp_path, mask=outside, acs=10)
    _cached(tmp_path, acs=10, patch=5)
    assert len(list(tmp_path.glob("*.npy"))) == 1


def test_what_made_the_maps_is_written_beside_them(tmp_path):
    _cached(tmp_path, acs=8)
    (maps,) = tmp_path.glob("*.npy")
    origin = json.loads(maps.with_suffix(".json").read_text())
    assert (origin["method"], origin["options"]) == ("adaptive", {"patch": 5, "n_iterations": 12})
    assert origin["calibration"]["shape"] == [3, 8, 10]
    assert origin["shape"] == [12, 10]


def test_numpy_reads_the_file_of_maps(tmp_path):
    maps = _cached(tmp_path)
    (path,) = tmp_path.glob("*.npy")
    np.testing.assert_array_equal(np.load(path), maps)


DAMAGE = {
    "truncated": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "one bit": lambda data: data[:300] + bytes([data[300] ^ 1]) + data[301:],
    "header": lambda data: b"X" + data[1:],
    "longer": lambda data: data + b"0",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_made_anew_with_a_warning(tmp_path, damage):
    expected = _cached(tmp_path)
    (path,) = tmp_path.glob("*.npy")
    whole = path.read_bytes()
    path.write_bytes(DAMAGE[damage](whole))
    with pytest.warns(DataWarning, match="expected whole coil maps, got .*; estimated them again"):
        np.testing.assert_array_equal(_cached(tmp_path), expected)
    assert path.read_bytes() == whole


def test_a_file_that_cannot_be_read_is_no_obstacle(tmp_path):
    expected = _cached(tmp_path)
    (path,) = tmp_path.glob("*.npy")
    path.unlink()
    path.mkdir()
    with pytest.warns(DataWarning) as warnings:
        np.testing.assert_array_equal(_cached(tmp_path), expected)
    assert "expected a readable file" in str(warnings[0].message)


def test_a_folder_that_cannot_be_written_is_no_obstacle(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(DataWarning, match="expected a folder to keep coil maps in"):
        assert _cached(tmp_path / "file" / "maps").shape == SHAPE[1:]


def test_threads_may_write_the_same_maps_at_once(tmp_path):
    expected, results = _cached(None), []
    barrier = threading.Barrier(8)

    def work():
        barrier.wait()
        results.append(_cached(tmp_path))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    assert all((maps == expected).all() for maps in results)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".npy"]


def test_an_unknown_option_is_refused(tmp_path):
    with pytest.raises(ValueError, match="options of 'adaptive'"):
        _cached(tmp_path, crop=0.5)
