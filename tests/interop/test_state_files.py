"""Files of weights: read whole, without PyTorch where it is not needed, and never executed."""

import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors import numpy as safetensors

from kgmgt_jax.interop import torch_weights
from kgmgt_jax.interop.state_files import read_state_dict, write_state_dict


def _refused(capsys, file, *words):
    """The command line ends with exit code 2 and one line that has these words; nothing written."""
    before = set(file.parent.iterdir())
    out = file.parent / "out"
    assert torch_weights.main([str(file), "--out", str(out), "--allow-partial"]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith(f"error: {file}: ")
    assert captured.err.count("\n") == 1
    for word in words:
        assert word in captured.err, captured.err
    assert set(file.parent.iterdir()) == before


@pytest.mark.parametrize("wrapper", ["params", "params_ema", "state_dict"])
def test_wrapped_state_dicts_are_unwrapped(tmp_path, wrapper):
    torch = pytest.importorskip("torch")
    inner = {"module.a.weight": torch.ones(2), "b": torch.zeros(3, dtype=torch.bfloat16)}
    torch.save({"epoch": 3, wrapper: inner}, tmp_path / "w.pth")
    read = read_state_dict(tmp_path / "w.pth")
    assert read.keys() == {"a.weight", "b"}
    np.testing.assert_array_equal(read["a.weight"], np.ones(2, np.float32))


def test_bfloat16_is_read_as_float32(tmp_path):
    values = np.array([0.5, -3.0], jax.numpy.bfloat16)
    safetensors.save_file({"a": values, "b": np.ones(1, np.float16)}, tmp_path / "w.safetensors")
    read = read_state_dict(tmp_path / "w.safetensors")
    assert (read["a"].dtype, read["b"].dtype) == (np.float32, np.float16)
    np.testing.assert_array_equal(read["a"], [0.5, -3.0])


class _Planted:
    """Unpickling this creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("kind", ["torch", "pickle", "npz"])
def test_planted_code_is_refused_and_not_run(tmp_path, capsys, kind):
    mark = tmp_path / "mark"
    planted = {"dw.nw.0.weight": _Planted(mark)}
    file = tmp_path / ("bad.npz" if kind == "npz" else "bad.pth")
    if kind == "npz":
        np.savez(file, **{k: np.array([v], object) for k, v in planted.items()})
    else:
        torch = pytest.importorskip("torch")
        write = torch.save if kind == "torch" else pickle.dump
        with file.open("wb") as stream:
            write(planted, stream)
    _refused(capsys, file)
    assert not mark.exists()
    if kind == "pickle":  # the trap is a trap
        pickle.loads(file.read_bytes())
        assert mark.exists()


@pytest.mark.parametrize("suffix", ["npz", "safetensors", "pth"])
def test_truncated_file_is_refused(tmp_path, capsys, suffix):
    if suffix == "pth":
        pytest.importorskip("torch")
    file = write_state_dict(tmp_path / f"w.{suffix}", {"a": np.arange(5000.0)})
    file.write_bytes(file.read_bytes()[:9000])
    _refused(capsys, file)


@pytest.mark.parametrize(
    ("name", "message"),
    [("none.npz", "no such file"), ("w.h5", "expected one of .pth"), ("empty.npz", "got none")],
)
def test_unusable_files_are_refused(tmp_path, capsys, name, message):
    np.savez(tmp_path / "empty.npz")
    _refused(capsys, tmp_path / name, message)


def test_single_array_is_no_archive(tmp_path, capsys):
    with (tmp_path / "w.npz").open("wb") as stream:
        np.save(stream, np.ones(3))
    _refused(capsys, tmp_path / "w.npz", "expected an .npz archive, got a single array")


def test_archive_of_something_else_is_refused(tmp_path, capsys):
    path = tmp_path / "net.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("features.0.weight", b"no array")
    _refused(capsys, path, "expected arrays alone", "'features.0.weight'")


def test_archive_larger_than_the_memory_is_refused_by_its_list(tmp_path, capsys, monkeypatch):
    path = tmp_path / "Dr. X" / "net.npz"
    path.parent.mkdir()
    np.savez_compressed(path, a=np.zeros((1000, 1000)))
    monkeypatch.setattr(os, "sysconf", lambda _: 1000)  # pages and bytes of each
    _refused(capsys, path, f"error: {path}: expected less than 1e+06 bytes of memory", "8e+06")


def test_tensors_alone_make_a_state_dict(tmp_path, capsys):
    torch = pytest.importorskip("torch")
    torch.save({"a": torch.ones(1), "epoch": 3}, tmp_path / "w.pth")
    _refused(capsys, tmp_path / "w.pth", "expected tensors alone", "epoch")
    torch.save([torch.ones(1)], tmp_path / "w.pth")
    _refused(capsys, tmp_path / "w.pth", "expected a state dict, got list")


def _python(code, *arguments):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_arrays_are_read_without_torch(tmp_path):
    for suffix in ("npz", "safetensors"):
        write_state_dict(tmp_path / f"w.{suffix}", {"a": np.ones(2, np.float32)})
    (tmp_path / "w.pth").write_bytes(b"")
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from kgmgt_jax.interop import torch_weights\n"
        "from kgmgt_jax.interop.state_files import read_state_dict\n"
        "print([read_state_dict(p)['a'].sum() for p in sys.argv[1:3]])\n"
        "sys.exit(torch_weights.main([sys.argv[3], '--out', sys.argv[3] + '.out']))"
    )
    done = _python(code, *(tmp_path / f"w.{s}" for s in ("npz", "safetensors", "pth")))
    assert done.stdout.count("2.0") == 2, done.stderr
    assert done.returncode == 2
    assert "pip install 'kgmgt-jax[torch]'" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_program_reports_bad_input_in_one_line(tmp_path):
    code = "import runpy; runpy.run_module('kgmgt_jax.interop.torch_weights', run_name='__main__')"
    done = _python(code, tmp_path / "none.pth", "--out", tmp_path / "out")
    assert done.returncode == 2
    message = f"error: {tmp_path}/none.pth: expected a file of weights, got no such file\n"
    assert done.stderr == message


def test_averaged_parameters_count_where_both_are_there(tmp_path):
    torch = pytest.importorskip("torch")
    both = {"params": {"a": torch.zeros(2)}, "params_ema": {"a": torch.ones(2)}}
    torch.save(both, tmp_path / "net.pth")
    np.testing.assert_array_equal(read_state_dict(tmp_path / "net.pth")["a"], np.ones(2))
