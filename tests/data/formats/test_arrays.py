"""Arrays in untrusted files: listed by path, converted, and never given memory on their word."""

import os
import struct
import zlib

import h5py
import numpy as np
import pytest
import scipy.io

from kgmgt_jax.data.case import DataError
from kgmgt_jax.data.formats import ocmr, read_file
from kgmgt_jax.data.formats.arrays import file_state, list_arrays, open_hdf5, read_array
from tests.data.formats import writers


def test_arrays_are_listed_by_path_with_what_they_hold(tmp_path):
    path = tmp_path / "any.h5"
    with h5py.File(path, "w") as file:
        file["a/b"] = np.zeros((2, 3), np.complex64)
        file["c"] = np.zeros(4)
        file["d"] = "text"
        file["#refs#/x"] = np.zeros(1)
        file["a/loop"] = h5py.SoftLink("/a")
    kinds = {key: (info.shape, info.kind) for key, info in list_arrays(path).items()}
    assert kinds == {"a/b": ((2, 3), "complex"), "c": ((4,), "real"), "d": ((), "object")}


def test_octaves_text_files_are_refused_with_how_to_save_them(tmp_path):
    path = tmp_path / "scan.mat"
    path.write_text("# Created by Octave 7.3.0\n# name: kspace\n# type: complex matrix\n")
    with pytest.raises(DataError, match=r"save it with -v7.3 \(MATLAB\) or -v7 \(Octave\)"):
        list_arrays(path)


def test_a_group_that_holds_itself_ends(tmp_path):
    path = tmp_path / "any.h5"
    with h5py.File(path, "w") as file:
        file["a/loop"] = file.require_group("a")
    with pytest.raises(DataError, match="at most 20000 arrays"):
        list_arrays(path)


@pytest.mark.parametrize("stored", ["phantom", np.bytes_("phantom"), np.array([b"phantom"])])
def test_text_of_an_attribute_is_read_however_it_is_stored(tmp_path, stored):
    path = tmp_path / "cine_sax.mat"
    with h5py.File(path, "w") as file:
        file["kspace_full"] = writers.kspace()
        file["kspace_full"].attrs["simulation"] = stored
    assert read_file(path)[0].meta.simulation == "phantom"


@pytest.mark.parametrize("error", [OSError, RuntimeError, KeyError, ValueError])
def test_what_the_hdf5_library_raises_is_told_as_damage(tmp_path, error):
    path = writers.write_cmrxrecon(tmp_path)
    with pytest.raises(DataError, match="a complete HDF5 file"), open_hdf5(path):
        raise error("inside")


@pytest.mark.parametrize("error", [AttributeError, TypeError, ZeroDivisionError])
def test_bugs_are_not_told_as_damage(tmp_path, error):
    path = writers.write_cmrxrecon(tmp_path)
    with pytest.raises(error, match="inside"), open_hdf5(path):
        raise error("inside")


def test_text_of_an_attribute_is_one_line_that_is_not_endless(tmp_path):
    path = tmp_path / "cine_sax.mat"
    with h5py.File(path, "w") as file:
        file["kspace_full"] = writers.kspace()
        file["kspace_full"].attrs["simulation"] = "phantom\x1b[2J\r\nof" + 9000 * "!"
    told = read_file(path)[0].meta.simulation
    assert told.startswith("phantom [2J of!!!") and len(told) == 500


@pytest.mark.parametrize("name", [b"\xffa", b"\x1b[31ma"])
def test_names_that_are_no_text_are_refused(tmp_path, name):
    path = tmp_path / "any.h5"
    with h5py.File(path, "w") as file:
        file[name] = np.zeros(3)
    with pytest.raises(DataError, match="names of arrays as text"):
        list_arrays(path)


def test_arrays_of_kinds_that_numpy_has_not_are_refused(tmp_path):
    path = tmp_path / "any.h5"
    with h5py.File(path, "w") as file:
        space = h5py.h5s.create_simple((2,))
        h5py.h5d.create(file.id, b"bits", h5py.h5t.UNIX_D32LE, space)
    with pytest.raises(DataError, match="numbers in '/bits'"):
        list_arrays(path)


def test_a_dataset_that_claims_more_than_is_stored_is_refused(tmp_path):
    path = tmp_path / "cine_sax.mat"
    with h5py.File(path, "w") as file:
        shape = (20, 1, 1, 1000, 1000)
        file.create_dataset("kspace_full", shape, np.complex64, chunks=(1, 1, 1, 1000, 1000))
    with pytest.raises(DataError, match=r"what 0 stored bytes hold, got .* claims 1.6e\+08"):
        read_file(path)[0]


def test_doubles_beyond_single_precision_become_infinite_and_are_refused(tmp_path):
    path = tmp_path / "cine_sax.mat"
    with h5py.File(path, "w") as file:
        file["kspace_full"] = np.full((1, 1, 1, 3, 3), 1e300 + 0j)
    with pytest.raises(DataError, match="9 NaN or infinite samples"):
        read_file(path)[0]


def test_a_file_that_was_written_anew_within_a_second_is_another(tmp_path):
    path = tmp_path / "scan.mat"
    states = set()
    for size, time in ((1, 10**9), (1, 10**9 + 1), (2, 10**9)):
        path.write_bytes(b"x" * size)
        os.utime(path, ns=(time, time))
        states.add(file_state(path))
    assert len(states) == 3


def test_a_file_that_is_gone_has_no_state(tmp_path):
    with pytest.raises(DataError, match=r"scan.mat: expected a .mat file, got no file"):
        file_state(tmp_path / "scan.mat")


def test_a_part_of_an_array_is_read(tmp_path):
    path = writers.write_mat5(tmp_path)
    part = read_array(path, "kspace", (slice(None), 1))
    np.testing.assert_array_equal(part, writers.kspace()[:, 1])


def test_fields_of_a_matlab_5_struct_are_named_as_in_hdf5(tmp_path):
    data = writers.kspace()
    fields = {"kspace": data.T, "more": {"mask": writers.line_mask().T}, "acceleration": 4.0}
    several = np.array([(1.0,), (2.0,)], [("x", "O")])  # an array of structs
    scipy.io.savemat(tmp_path / "scan.mat", {"scan": fields, "several": several})
    kinds = {
        key: (info.shape, info.kind) for key, info in list_arrays(tmp_path / "scan.mat").items()
    }
    assert kinds == {
        "scan/kspace": (data.shape, "complex"),
        "scan/more/mask": ((9, 8), "real"),
    }
    file = read_file(tmp_path / "scan.mat", key="scan/kspace", axes="t,z,coil,ky,kx")
    np.testing.assert_array_equal(file[1].kspace, data[:, 1])


@pytest.mark.parametrize(
    ("probe", "message"),
    [("while True: pass", "not read within 1 s"), ("import os; os.abort()", "exit status -6")],
)
def test_a_hang_or_crash_of_the_hdf5_library_is_refused(tmp_path, monkeypatch, probe, message):
    pytest.importorskip("ismrmrd")
    path = writers.write_ismrmrd(tmp_path)
    monkeypatch.setattr(ocmr, "_PROBE", probe)
    monkeypatch.setattr(ocmr, "_PROBE_SECONDS", 1)
    with pytest.raises(DataError, match=message):
        read_file(path)


def test_groups_that_hold_each_other_are_not_followed_for_ever(tmp_path):
    """Two names of each group in the one before: 2^20 paths to the last."""
    path = tmp_path / "any.h5"
    with h5py.File(path, "w") as file:
        group = file
        for _ in range(20):
            inner = group.create_group("a")
            group["b"], group = inner, inner
    with pytest.raises(DataError, match="at most 20000 arrays"):
        list_arrays(path)


def _write_external(path, elsewhere):
    with h5py.File(path, "w") as file:
        place = [(str(elsewhere), 0, 4 * 8 * 8)]
        file.create_dataset("images", (4, 8, 8), np.uint8, external=place)


def _write_virtual(path, elsewhere):
    with h5py.File(path, "w") as file:
        layout = h5py.VirtualLayout((4, 8, 8), np.uint8)
        layout[:] = h5py.VirtualSource(str(elsewhere), "x", (4, 8, 8))
        file.create_virtual_dataset("images", layout)


@pytest.mark.parametrize("write", [_write_external, _write_virtual])
def test_numbers_in_other_files_are_not_read(tmp_path, write):
    elsewhere, path = tmp_path / "private.bin", tmp_path / "cine.h5"
    elsewhere.write_bytes(bytes(range(256)))
    write(path, elsewhere)
    with pytest.raises(DataError, match="numbers of 'images' in the file itself"):
        read_file(path)[0]


@pytest.mark.parametrize(("name", "key"), [("cine_sax.mat", "kspace_full"), ("f.h5", "kspace")])
def test_nothing_is_made_in_a_size_that_is_only_claimed(tmp_path, monkeypatch, name, key):
    monkeypatch.setattr(np, "ones", lambda *_: pytest.fail("memory was taken"))
    path = tmp_path / name
    with h5py.File(path, "w") as file:
        shape = (9, 1, 9000, 9000) if key == "kspace" else (9, 1, 1, 9000, 9000)
        file.create_dataset(key, shape, np.complex64, chunks=True)
        file.attrs["acquisition"] = "cine"  # of fastMRI's files
    with pytest.raises(DataError, match="what 0 stored bytes hold"):
        read_file(path)


def test_many_slices_that_are_only_claimed_are_not_counted_one_by_one(tmp_path):
    path = tmp_path / "cine_sax.mat"
    with h5py.File(path, "w") as file:
        file.create_dataset("kspace_full", (1, 1 << 50, 1, 8, 8), np.complex64, chunks=True)
    with pytest.raises(DataError, match="what 0 stored bytes hold"):
        read_file(path)


@pytest.mark.parametrize("inside", ["cell", "logical cell", "struct", "deflated struct"])
def test_deep_variables_of_matlab_5_files_stay_unread(tmp_path, inside):
    """So deep that SciPy would end the process; a flag makes it call a cell logical."""
    path, images = writers.write_mat5(tmp_path), writers.kspace()
    deep = _cell(b"")
    for _ in range(30_000):
        deep = _cell(deep)
    variable = _cell(deep, b"junk", flags=2 * (inside == "logical cell"))
    if inside.endswith("struct"):
        variable = _struct("field", deep, b"junk")
    if inside == "deflated struct":
        deflated = zlib.compress(variable)
        variable = struct.pack("<II", 15, len(deflated)) + deflated
    with open(path, "ab") as file:
        file.write(variable)
    assert list(list_arrays(path)) == ["kspace"]
    np.testing.assert_array_equal(read_array(path, "kspace"), images)


def test_a_written_struct_is_one_that_is_read(tmp_path):
    """As `_struct` writes it, above, but not so deep."""
    path = writers.write_mat5(tmp_path)
    numbers = _element(9, np.arange(6.0).tobytes())
    with open(path, "ab") as file:
        file.write(_struct("field", _variable(6, (2, 3), b"", numbers), b"junk"))
    np.testing.assert_array_equal(read_array(path, "junk/field"), np.arange(6.0).reshape(3, 2))


def test_variables_of_matlab_5_files_with_control_characters_stay_unread(tmp_path):
    path = writers.write_mat5(tmp_path)
    numbers = _element(9, np.arange(6.0).tobytes())
    with open(path, "ab") as file:
        file.write(_variable(6, (2, 3), b"\x1b[2J", numbers))
        file.write(_struct("\x1b[2J", _variable(6, (2, 3), b"", numbers), b"junk"))
    assert list(list_arrays(path)) == ["kspace"]


def test_what_matlab_adds_of_its_objects_is_no_array(tmp_path):
    """A variable without a name, beside a table, a string or a function."""
    path = writers.write_mat5(tmp_path)
    with open(path, "ab") as file:
        file.write(_variable(9, (1, 8), b"", _element(2, bytes(8))))
    assert list(list_arrays(path)) == ["kspace"]


def _element(kind: int, content: bytes) -> bytes:
    return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)


def _variable(number: int, shape: tuple[int, int], name: bytes, inside: bytes, flags: int = 0):
    head = _element(6, struct.pack("<II", number | flags << 8, 0))
    return _element(14, head + _element(5, struct.pack("<ii", *shape)) + _element(1, name) + inside)


def _cell(inside: bytes, name: bytes = b"", flags: int = 0) -> bytes:
    return _variable(1, (1, 1), name, inside, flags)


def _struct(field: str, inside: bytes, name: bytes) -> bytes:
    fields = struct.pack("<HHi", 5, 4, 32) + _element(1, field.encode().ljust(32, b"\0"))
    return _variable(2, (1, 1), name, fields + inside)
