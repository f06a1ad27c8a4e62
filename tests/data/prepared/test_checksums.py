"""Any flipped bit of any file is found, and named."""

import errno
import os
import random
import shutil

import pytest

from kgmgt_jax.data.__main__ import main
from kgmgt_jax.data.case import DataError
from kgmgt_jax.data.prepared import PreparedSet, checksums, verify_checksums
from kgmgt_jax.data.prepared.checksums import _sealed, digest_of, write_checksums
from kgmgt_jax.data.prepared.layout import split_of


@pytest.fixture
def copied(prepared, tmp_path):
    return shutil.copytree(prepared, tmp_path / "set")


def _flip(path, bit):
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def test_a_flipped_bit_in_any_file_is_refused_by_name(copied):
    rng, paths = random.Random(0), sorted(p for p in copied.rglob("*") if p.is_file())
    assert len(paths) == 20
    for path in paths * 3:
        bit = rng.randrange(8 * path.stat().st_size)
        _flip(path, bit)
        with pytest.raises(DataError) as caught:
            PreparedSet(copied, split=split_of(path) or "train")
        assert str(caught.value).startswith(f"{path}: expected") and "\n" not in str(caught.value)
        _flip(path, bit)
    assert verify_checksums(copied).n_files == len(paths) - 1


def test_no_byte_of_the_checksums_themselves_can_change(tmp_path):
    (tmp_path / "a").write_text("one")
    path, rng = write_checksums(tmp_path, {}), random.Random(0)
    for byte in range(path.stat().st_size):
        bit = 8 * byte + rng.randrange(8)
        _flip(path, bit)
        with pytest.raises(DataError, match="checksums"):
            verify_checksums(tmp_path)
        _flip(path, bit)
    assert verify_checksums(tmp_path) == (1, 3)


@pytest.mark.parametrize("absolute", [False, True])
def test_no_file_outside_of_the_set_is_read(tmp_path, absolute):
    outside, root = tmp_path / "private", tmp_path / "set"
    outside.write_text("private")
    root.mkdir()
    name = str(outside) if absolute else "../private"
    (root / "checksums.txt").write_bytes(_sealed(f"{'0' * 64}  {name}\n".encode()))
    with pytest.raises(DataError, match=r"files below its folder, got .*private'$"):
        verify_checksums(root)


@pytest.mark.parametrize("change", ["cut", "longer", "gone"])
def test_other_damage_is_refused_too(copied, change):
    path = sorted(copied.rglob("*.array_record*"))[0]
    data = path.read_bytes()
    path.write_bytes({"cut": data[:-1], "longer": data + b"\0", "gone": b""}[change])
    if change == "gone":
        path.unlink()
    with pytest.raises(DataError, match=path.name):
        verify_checksums(copied)


def test_a_file_that_the_disk_does_not_give_is_named(copied, monkeypatch):
    def refuse(path):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(checksums, "digest_of", refuse)
    with pytest.raises(DataError, match=r"cine_.*: expected a readable file, got .*Input/output"):
        verify_checksums(copied)


def test_a_set_is_read_unverified_only_if_asked(copied):
    path = next(copied.rglob("cine_frames-validation*"))
    _flip(path, 8 * (path.stat().st_size - 1))
    assert PreparedSet(copied, split="validation", verify=False).slices
    with pytest.raises(DataError, match=path.name):
        PreparedSet(copied, split="validation")


def test_records_of_other_splits_are_not_read(copied, monkeypatch):
    hashed = []
    module = "kgmgt_jax.data.prepared.checksums.digest_of"
    monkeypatch.setattr(module, lambda path: hashed.append(path) or digest_of(path))
    PreparedSet(copied, split="test")
    others = {p for s in ("train", "validation") for p in copied.rglob(f"*-{s}.array_record-*")}
    everything = {p for p in copied.rglob("*") if p.is_file()} - {copied / "checksums.txt"}
    assert others and set(hashed) == everything - others


def test_unchanged_files_are_hashed_once_in_a_process_unless_asked(copied, monkeypatch):
    n_files = verify_checksums(copied).n_files
    hashed = []
    module = "kgmgt_jax.data.prepared.checksums.digest_of"
    monkeypatch.setattr(module, lambda path: hashed.append(path) or "0")
    assert verify_checksums(copied).n_files == n_files and not hashed
    with pytest.raises(DataError, match="SHA-256"):
        verify_checksums(copied, again=True)
    assert len(hashed) == n_files


def test_a_file_that_changed_is_hashed_again_though_its_time_of_change_was_put_back(copied):
    verify_checksums(copied)
    path = copied / "skipped.json"
    status = path.stat()
    _flip(path, 5)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(DataError, match=r"skipped.json: expected a file with SHA-256"):
        verify_checksums(copied)


def test_unchanged_files_are_held_against_a_list_that_changed(copied):
    verify_checksums(copied)
    write_checksums(copied, {copied / "skipped.json": "0" * 64})
    with pytest.raises(DataError, match=r"skipped.json: expected a file with SHA-256 0000"):
        verify_checksums(copied)


def test_the_command_says_what_it_verified_or_what_is_wrong(copied, capsys):
    assert main(["verify", str(copied)]) == 0
    assert "each as it was prepared" in capsys.readouterr().out
    path = copied / "skipped.json"
    _flip(path, 5)
    assert main(["verify", str(copied)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {path}: expected a file with SHA-256")
    assert error.count("\n") == 1


def test_coreutils_understand_the_list(copied):
    lines = (copied / "checksums.txt").read_text().splitlines()
    assert all(len(line.split("  ")[0]) == 64 for line in lines[:-1])
    assert [line.split("  ")[1] for line in lines[:-1]] == sorted(
        str(p.relative_to(copied)) for p in copied.rglob("*") if p.is_file() and p.suffix != ".txt"
    )
