"""Damages sample files at random and reads them, each in a process of its own.

``python -m tests.data.formats.fuzz COUNT SEED OUT.json [FILE ...]`` damages small files of every
format, and the given ones with all files of their folders, COUNT times. A warm parent forks a child
for each, which reads every case and tells through a pipe what came of it: "read" with finite
values, "refused" in one line, or what went wrong. Children have little time and memory.
"""

import json
import os
import random
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from kgmgt_jax.data.case import DataError
from kgmgt_jax.data.formats import ReadOptions, open_files
from tests.data.formats import writers

SECONDS, MEMORY = 30, 6 << 30
WRITERS = {
    "cmrxrecon": writers.write_cmrxrecon,
    "mat5": writers.write_mat5,
    "fastmri": writers.write_fastmri,
    "bart": writers.write_bart,
    "npy": writers.write_npy,
    "stacks": writers.write_stacks,
    "image_npy": writers.write_image_npy,
    "nifti": writers.write_nifti,
    "dicom": writers.write_dicom,
    "ismrmrd": writers.write_ismrmrd,
}


# Damage to bytes: any file


def truncate(path: Path, rng: random.Random) -> None:
    size = path.stat().st_size
    os.truncate(
        path, rng.choice([0, rng.randrange(size), rng.randrange(min(size, 4096)), size - 1])
    )


def flip_bits(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    if not data:
        return
    reach = rng.choice([len(data), min(len(data), 2048), min(len(data), 256)])
    for _ in range(rng.choice([1, 3, 30])):
        data[rng.randrange(reach)] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def overwrite(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    start = rng.randrange(max(1, len(data)))
    fill = rng.choice([bytes(64), b"\xff" * 64, rng.randbytes(64), b"NaN " * 16])
    data[start : start + 64] = fill[: len(data) - start]
    path.write_bytes(data)


# Damage to meaning: arrays in HDF5 and npy


def _rewrite(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Passes the arrays of an HDF5 or npy file through ``change``; other files lose their tail."""
    if path.suffix == ".npy":
        np.save(path, change(np.load(path)))
        return
    if not h5py.is_hdf5(path):
        os.truncate(path, path.stat().st_size // 2)
        return
    with h5py.File(path, "r+") as file:
        names = []
        file.visititems(lambda name, item: names.append(name) if hasattr(item, "dtype") else None)
        for name in names:
            if file[name].dtype.kind == "O" or file[name].shape == ():
                continue
            if file[name].dtype.names and "head" in file[name].dtype.names:
                file[name][...] = _change_readouts(file[name][()], change)
                continue
            array = change(file[name][()])
            del file[name]
            file[name] = array


def _change_readouts(rows: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Passes the samples of ISMRMRD readouts through ``change``; they stay float32 vectors."""
    for row in rows:
        with np.errstate(all="ignore"):
            samples = np.ravel(change(np.asarray(row["data"], np.float32)))
            numbers = samples.dtype.kind in "fiu"
            row["data"] = samples.astype("<f4") if numbers else np.zeros(0, "<f4")
    return rows


def _fill(value: float, share: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array = array.astype("<f4") if array.dtype.kind in "iub" else array.copy()
        flat = array.reshape(-1)[: max(1, int(share * array.size))]
        if array.dtype.names:
            for part in array.dtype.names:
                flat[part] = value
        elif array.dtype.kind in "fc":
            flat[:] = value
        return array

    return change


def contradict_axes(path: Path, rng: random.Random) -> None:
    _rewrite(path, rng.choice([np.transpose, lambda a: a[..., :-1], lambda a: a[None], np.ravel]))


def wrong_dtype(path: Path, rng: random.Random) -> None:
    dtype = rng.choice(["<i4", "<f8", "S8", "<u1", "<f2"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _rewrite(path, lambda a: (a[a.dtype.names[0]] if a.dtype.names else a).astype(dtype))


def not_finite(path: Path, rng: random.Random) -> None:
    _rewrite(path, _fill(rng.choice([np.nan, np.inf, -np.inf, 3e38]), rng.choice([0.0, 1.0])))


def all_zero(path: Path, rng: random.Random) -> None:
    _rewrite(path, _fill(0.0, 1.0))


def remove(path: Path, rng: random.Random) -> None:
    path.unlink()


DAMAGES = [truncate, truncate, flip_bits, flip_bits, flip_bits, overwrite]
DAMAGES += [contradict_axes, wrong_dtype, not_finite, all_zero, remove]


def read_all(path: Path) -> dict:
    """What comes of reading every case of a path."""
    n_cases = 0
    for file in open_files(path, ReadOptions()):
        for case in file:
            n_cases += 1
            arrays = [case.kspace, case.mask, case.sens, case.reference]
            power = float(np.sum(np.abs(case.kspace) ** 2))
            if not np.isfinite(power) or not all(a is None or np.isfinite(a).all() for a in arrays):
                return {"status": "not finite"}
    return {"status": "read", "cases": n_cases}


def _child(path: Path, pipe: int) -> None:
    """Reads in a forked child; never returns."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("error")
    try:
        try:
            report = read_all(path)
        except DataError as error:
            line = str(error)
            named = str(path) in line or str(path.parent) in line
            fine = named and "\n" not in line and "expected" in line
            report = {"status": "refused" if fine else "unclear refusal", "message": line}
        except BaseException:
            report = {"status": "traceback", "message": traceback.format_exc()}
        os.write(pipe, json.dumps(report).encode()[:60000])
    finally:
        os._exit(0)


def attempt(path: Path) -> dict:
    """Forks a child that reads ``path``; a crash or a hang is part of the report."""
    ours, theirs = os.pipe()
    start = time.monotonic()
    pid = os.fork()
    if pid == 0:
        os.close(ours)
        _child(path, theirs)
    os.close(theirs)
    data, hung = b"", False
    while True:
        left = SECONDS - (time.monotonic() - start)
        ready, _, _ = select.select([ours], [], [], max(0.0, left))
        if not ready:
            os.kill(pid, signal.SIGKILL)
            hung = True
            break
        chunk = os.read(ours, 65536)
        if not chunk:
            break
        data += chunk
    os.close(ours)
    _, status = os.waitpid(pid, 0)
    if hung:
        return {"status": "hang"}
    return json.loads(data) if data else {"status": "crash", "message": f"exit status {status}"}


def _samples(folder: Path, given: list[Path]) -> dict[str, tuple[Path, Path]]:
    """Folder to copy and path to read in it, by name."""
    samples = {}
    for name, write in WRITERS.items():
        try:
            samples[name] = (folder / name, write(folder / name))
        except ImportError:
            print(f"left out {name}: its package is not installed")
    for number, path in enumerate(given):
        samples[f"given{number}"] = (path.parent, path)
    return samples


def run(count: int, seed: int, given: list[Path]) -> list[dict]:
    """Damages and reads ``count`` times; one report each."""
    reports = []
    with tempfile.TemporaryDirectory() as root:
        samples = _samples(Path(root) / "samples", given)
        for name, (_, path) in samples.items():
            reports.append({"name": name, "damage": "none", **attempt(path)})
        for number in range(count):
            rng = random.Random(f"{seed}-{number}")
            name = list(samples)[number % len(samples)]
            folder, path = samples[name]
            copy = Path(root) / f"copy{number}"
            shutil.copytree(folder, copy)
            target = rng.choice(sorted(p for p in copy.rglob("*") if p.is_file()))
            target.chmod(0o644)
            damage = rng.choice(DAMAGES)
            damage(target, rng)
            report = attempt(copy / path.relative_to(folder))
            file = str(target.relative_to(copy))
            told = {"name": name, "number": number, "damage": damage.__name__, "file": file}
            reports.append({**told, **report})
            shutil.rmtree(copy)
    return reports


if __name__ == "__main__":
    out = Path(sys.argv[3])
    results = run(int(sys.argv[1]), int(sys.argv[2]), [Path(p) for p in sys.argv[4:]])
    out.write_text(json.dumps(results, indent=1))
