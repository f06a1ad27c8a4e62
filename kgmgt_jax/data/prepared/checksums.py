"""Digests of all files of a prepared set, which catch any flipped bit in any of them.

A line a file, ``<SHA-256>  <path>``, so that ``sha256sum -c`` understands it too, sorted by path;
the last line, ``# <SHA-256>``, is the digest of all lines before it.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from kgmgt_jax.commands import watched
from kgmgt_jax.data.atomic import write_atomically
from kgmgt_jax.data.case import DataError
from kgmgt_jax.data.folders import files_below
from kgmgt_jax.data.prepared.layout import CHECKSUMS, split_of

__all__ = ["Verified", "digest_of", "verify_checksums", "write_checksums"]

_verified: dict[Path, tuple] = {}
"""State of each file when it was found to be whole, so that a process hashes it once."""


class Verified(NamedTuple):
    """How much was verified."""

    n_files: int
    n_bytes: int


def digest_of(path: Path) -> str:
    """SHA-256 of a file in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_checksums(root: Path, known: Mapping[Path, str]) -> Path:
    """Writes the digests of all files below a folder.

    Args:
        root: The folder.
        known: Digests of some of the files that need not be read again, by their paths.
    """
    paths = [path for path in files_below(root) if path != root / CHECKSUMS]
    digests = _in_threads([path for path in paths if path not in known])
    digests |= {path: known[path] for path in paths if path in known}
    lines = [f"{digests[path]}  {path.relative_to(root).as_posix()}\n" for path in paths]
    text = _sealed("".join(lines).encode())
    return write_atomically(root / CHECKSUMS, lambda file: file.write_bytes(text))


def verify_checksums(
    root: str | Path, *, split: str | None = None, again: bool = False
) -> Verified:
    """Holds every file of a prepared set against its digest, several at a time.

    Args:
        root: Folder of the set.
        split: The one that will be read; records of the others are not looked at. All if left out.
        again: Whether to read also those files that this process has read and found whole before,
            though nothing has touched them since.

    Raises:
        DataError: If a file is missing or differs, which the one line names.
    """
    root = Path(root).resolve()
    expected = _read_digests(root / CHECKSUMS)
    if split is not None:
        expected = {p: d for p, d in expected.items() if split_of(p) in ("", split)}
    states = {}
    for path in expected:
        if not path.is_file():
            raise DataError(path, "the file as it was prepared", "no file", "prepare the set anew")
        status = path.stat()
        states[path] = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    stale = [p for p, state in states.items() if again or _verified.get(p) != (expected[p], state)]
    for path, digest in _in_threads(stale).items():
        if digest != expected[path]:
            fix = "a bit of it has changed: copy it again, or prepare the set anew"
            got = f"{digest[:12]}..., {states[path][0]} bytes"
            raise DataError(path, f"a file with SHA-256 {expected[path][:12]}...", got, fix)
        _verified[path] = (digest, states[path])
    return Verified(len(expected), sum(state[0] for state in states.values()))


def _read_digests(path: Path) -> dict[Path, str]:
    """Digest of each file, after making sure that this list itself is whole."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(path, "the checksums of a prepared set", str(error)) from error
    lines, mark, _ = raw.rpartition(b"# ")
    if not mark or raw != _sealed(lines):
        got = "one that contradicts its own last line"
        fix = "a bit of it has changed: copy it again, or prepare the set anew"
        raise DataError(path, "an intact list of checksums", got, fix)
    pairs = [line.split("  ", 1) for line in lines.decode().splitlines()]
    outside = [name for _, name in pairs if name.startswith("/") or ".." in Path(name).parts]
    if outside:
        raise DataError(path, "names of files below its folder", repr(outside[0]))
    return {path.parent / name: digest for digest, name in pairs}


def _sealed(lines: bytes) -> bytes:
    """The lines, and their own digest in another."""
    return lines + b"# " + hashlib.sha256(lines).hexdigest().encode() + b"\n"


def _in_threads(paths: Sequence[Path]) -> dict[Path, str]:
    """Digests of some files, in the order given; hashing frees the interpreter for others."""
    with ThreadPoolExecutor(min(16, 2 * (os.cpu_count() or 1))) as pool:
        digests = watched(pool.map(_readable_digest, paths), "checksums", len(paths))
        return dict(zip(paths, digests, strict=True))


def _readable_digest(path: Path) -> str:
    try:
        return digest_of(path)
    except OSError as error:
        raise DataError(path, "a readable file", str(error)) from error
