"""One preparation at a time, on whatever file system."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from kgmgt_jax.data.case import DataError
from kgmgt_jax.data.matfile import write_mat
from kgmgt_jax.data.prepared import PrepareOptions
from kgmgt_jax.data.prepared.preparing import prepare
from kgmgt_jax.data.prepared.staging import Staging
from tests.data.prepared.conftest import OPTIONS
from tests.data.prepared.interrupted import digests


def test_two_processes_do_not_make_one_set(source, tmp_path):
    settings = {"source": str(source), **OPTIONS.settings()}
    with (
        Staging.claim(tmp_path / "set", settings),
        pytest.raises(DataError, match="one preparation at a time"),
    ):
        prepare(source, tmp_path / "set", OPTIONS)


def test_file_system_without_locks_is_no_reason_to_refuse(source, prepared, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)
    prepare(source, tmp_path / "set", OPTIONS)
    assert digests(tmp_path / "set") == digests(prepared)


@pytest.fixture
def nfs(monkeypatch):
    """A folder stays while a file of it is open, though that has no name any more."""
    remove = os.rmdir

    def rmdir(path, **options):
        for link in Path("/proc/self/fd").iterdir():
            if f"{Path(path).name}/lock" in os.path.realpath(link):
                raise OSError(errno.ENOTEMPTY, "Directory not empty", str(path))
        remove(path, **options)

    monkeypatch.setattr(os, "rmdir", rmdir)


@pytest.mark.usefixtures("nfs")
def test_on_nfs_a_set_is_finished_and_its_staging_gone(source, prepared, tmp_path):
    prepare(source, tmp_path / "set", OPTIONS)
    assert digests(tmp_path / "set") == digests(prepared)
    assert not (tmp_path / "set/.preparing").exists()


@pytest.mark.usefixtures("nfs")
def test_on_nfs_bad_input_is_told_and_nothing_left_behind(tmp_path):
    zeros = np.zeros((1, 1, 1, 9, 8), np.complex64)
    write_mat(tmp_path / "tree/P1/cine_sax.mat", "kspace_full", zeros)
    with pytest.raises(DataError, match="zeros only"):
        prepare(tmp_path / "tree", tmp_path / "set", PrepareOptions(split=(1.0,)))
    assert not (tmp_path / "set").exists()
