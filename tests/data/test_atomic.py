"""Files appear whole or not at all."""

import errno
import io
import resource
import subprocess
import sys

import h5py
import numpy as np
import pytest

from kgmgt_jax.data.atomic import save_array, write_atomically, write_hdf5

# in a process of its own, which HDF5 would end
_WITHOUT_ROOM = """
import resource, sys
import numpy as np
from kgmgt_jax.data.atomic import write_hdf5

resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
data = np.random.default_rng(0).random(100_000)
try:
    write_hdf5(sys.argv[1], lambda file: file.create_dataset("a", data=data, compression="gzip"))
except OSError:
    sys.exit(7)
"""


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "m.json"
    path.write_text("old")

    def fail(file):
        file.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]


@pytest.mark.parametrize("named", [False, True])
def test_errors_of_the_system_name_the_file(tmp_path, named):
    def fill(temporary):
        raise OSError(errno.ENOSPC, "No space left on device", *([str(temporary)] if named else []))

    with pytest.raises(OSError, match=r"No space left on device: '.*out\.png'") as failure:
        write_atomically(tmp_path / "out.png", fill)
    assert failure.value.errno == errno.ENOSPC


def test_an_array_that_is_too_large_for_the_disk_says_so(tmp_path):
    def fill(temporary):
        with open(temporary, "wb") as file:
            save_array(file, np.zeros(100_000))

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(OSError, match=r"File too large: '.*a\.npy'"):
            write_atomically(tmp_path / "a.npy", fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("array", [np.arange(6.0).reshape(2, 3), np.arange(6)[::2], np.float32(3)])
def test_an_array_is_saved_as_numpy_does(array):
    ours, theirs = io.BytesIO(), io.BytesIO()
    save_array(ours, array)
    np.save(theirs, array)
    assert ours.getvalue() == theirs.getvalue()


def test_name_may_be_as_long_as_names_can_be(tmp_path):
    path = tmp_path / f"{'ü' * 125}.txt"
    assert write_atomically(path, lambda file: file.write_text("new")).read_text() == "new"


def test_hdf5_has_its_header_before_it(tmp_path):
    options = {"header": b"MATLAB", "userblock_size": 512}
    path = write_hdf5(tmp_path / "new" / "a.mat", lambda file: file.update(a=[1, 2]), **options)
    assert path.read_bytes().startswith(b"MATLAB")
    with h5py.File(path) as file:
        assert list(file["a"]) == [1, 2]


def test_hdf5_on_a_full_disk_is_an_error_and_not_the_end(tmp_path):
    command = [sys.executable, "-c", _WITHOUT_ROOM, tmp_path / "a.h5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 7, done.stderr
    assert not list(tmp_path.iterdir())
