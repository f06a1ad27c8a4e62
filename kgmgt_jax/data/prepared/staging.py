"""Finished slices, kept below the set that is being made until all are finished.

A slice has three files, named by its `PlannedSlice.key`: its frames as the set will have them, its
sensitivities as npy, and last a JSON file with everything else. So a slice with that JSON file is
finished, and survives whatever ends the process.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from jaxtyping import Complex64

from kgmgt_jax.data.atomic import save_array, write_atomically
from kgmgt_jax.data.case import DataError
from kgmgt_jax.data.prepared.checksums import digest_of
from kgmgt_jax.data.prepared.features import frame_records
from kgmgt_jax.data.prepared.layout import STAGING
from kgmgt_jax.data.prepared.processing import ProcessedSlice
from kgmgt_jax.data.prepared.records import write_records
from kgmgt_jax.data.prepared.scan import PlannedSlice

__all__ = ["StagedSlice", "Staging", "check_place", "check_settings", "write_json"]

_SETTINGS = "settings.json"


class Staging:
    """Finished slices by their keys.

    Args:
        folder: Where they are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    @contextmanager
    def claim(cls, out: Path, settings: dict[str, Any]) -> Iterator["Staging"]:
        """Goes on with the staging of a set, or begins one; no other process may meanwhile.

        Where bad input (``ValueError``) ends it before a slice is finished, nothing is left behind.

        Args:
            out: Folder of the set.
            settings: What the set is made with.

        Raises:
            DataError: If the folder holds something else, another process is at work in it, or it
                was begun with other settings.
        """
        check_place(out, settings)
        folder, is_new = out / STAGING, not out.exists()
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with open(folder / "lock", "w") as lock:
                _lock(lock, out)
                check_place(out, settings)  # another process may have begun meanwhile
                if not (folder / _SETTINGS).exists():
                    write_json(folder / _SETTINGS, settings)
                try:
                    yield cls(folder)
                except ValueError:
                    if set(folder.glob("*.json")) <= {folder / _SETTINGS}:
                        shutil.rmtree(folder, ignore_errors=True)
                    raise
        finally:  # only now NFS lets go of the lock, and so of the folder
            for empty in (folder, out) if is_new else (folder,):
                with suppress(OSError):
                    empty.rmdir()

    def has(self, planned: PlannedSlice) -> bool:
        """Whether a slice is finished."""
        return self._path(planned, ".json").is_file()

    def add(self, planned: PlannedSlice, processed: ProcessedSlice) -> None:
        """Keeps a slice.

        Raises:
            OSError: If the disk is full or the like.
        """
        path = self._path(planned, ".array_record")
        n_bytes = write_records(path, frame_records(planned.id, processed.images))
        if processed.sens is not None:
            sens = np.ascontiguousarray(processed.sens, "<c8")
            write_atomically(self._path(planned, ".npy"), lambda p: _save(p, sens))
        info = {
            "id": planned.id,
            "name": processed.meta["name"],
            "subject": planned.subject,
            "view": planned.view or processed.meta["view"],
            "shape": list(processed.images.shape),
            "scale": processed.scale,
            "meta": processed.meta,
            "sha256": digest_of(path),
            "n_bytes": n_bytes,
        }
        write_json(self._path(planned, ".json"), info)

    def get(self, planned: PlannedSlice) -> "StagedSlice":
        """A finished slice."""
        info = _read_json(self._path(planned, ".json"))
        return StagedSlice(info, self._path(planned, ".array_record"), self._path(planned, ".npy"))

    def remove(self) -> None:
        """Removes the whole staging, or on NFS all but the lock, which goes when it is let go."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, planned: PlannedSlice, suffix: str) -> Path:
        return self.folder / f"{planned.key}{suffix}"


@dataclass(frozen=True)
class StagedSlice:
    """A finished slice.

    Attributes:
        info: What is known of it; ``sha256`` and ``n_bytes`` are of the file and the records of
            its frames.
        frames: File with its frames.
        sens_path: File with its sensitivities, if it has any.
    """

    info: dict[str, Any]
    frames: Path
    sens_path: Path

    def sens(self) -> Complex64[np.ndarray, "*t n h w"] | None:
        """Its sensitivities, ``None`` for a single coil."""
        return np.load(self.sens_path) if self.sens_path.exists() else None


def _lock(lock: TextIO, out: Path) -> None:
    """Keeps other processes out; where the file system has no locks, none is kept out."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        got = "another one at work in it"
        raise DataError(out, "one preparation at a time", got) from error
    except OSError:
        pass


def check_place(out: Path, settings: dict[str, Any]) -> None:
    """Refuses a folder in which no set with these settings can be made or gone on with.

    Raises:
        DataError: If it holds something else, or a set was begun in it with other settings.
    """
    folder = out / STAGING
    if out.exists() and not out.is_dir():
        raise DataError(out, "a folder to write to", "a file")
    names = [path.name for path in out.iterdir()] if out.is_dir() else []
    others = [name for name in names if not name.startswith(".")]
    if others and not folder.is_dir():
        got = f"one with {min(others)!r} in it"
        raise DataError(out, "an empty or a new folder", got, "give another --out")
    if (folder / _SETTINGS).exists():
        check_settings(out, _read_json(folder / _SETTINGS), settings)


def check_settings(out: Path, made_with: dict[str, Any], settings: dict[str, Any]) -> None:
    """Refuses to go on with other settings than a set was begun with.

    Raises:
        DataError: Naming each that differs.
    """
    names = sorted({*made_with, *settings})
    differ = [name for name in names if made_with.get(name) != settings.get(name)]
    if differ:
        old, new = (", ".join(f"{k}={v.get(k)}" for k in differ) for v in (made_with, settings))
        fix = "ask for the same, give another --out, or remove this one"
        raise DataError(out, f"{new} as asked for", f"a set with {old}", fix)


def write_json(path: Path, values: Any) -> Path:
    """Writes JSON whole or not at all, down to the disk."""
    text = json.dumps(values, indent=1, sort_keys=True, ensure_ascii=False) + "\n"

    def write(temporary: Path) -> None:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())

    return write_atomically(path, write)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        fix = "remove the folder it is in, and begin anew"
        raise DataError(path, "an intact JSON file", str(error), fix) from error


def _save(path: Path, array: np.ndarray) -> None:
    with open(path, "wb") as file:
        save_array(file, array)
        file.flush()
        os.fsync(file.fileno())
