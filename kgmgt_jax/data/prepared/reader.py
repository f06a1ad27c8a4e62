"""Random access to the frames of a prepared set."""

import functools
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Complex64, Float32

from kgmgt_jax.data.case import DataError
from kgmgt_jax.data.formats.base import refusing
from kgmgt_jax.data.prepared.acquired import acquired_mask
from kgmgt_jax.data.prepared.checksums import verify_checksums
from kgmgt_jax.data.prepared.layout import FRAMES, SLICES, read_metadata, shard_path
from kgmgt_jax.data.prepared.memory import keep_freed_memory
from kgmgt_jax.data.prepared.options import SENS_METHODS
from kgmgt_jax.data.prepared.records import bytes_array, open_records, parse_example
from kgmgt_jax.data.slices import SliceInfo

__all__ = ["PreparedSet"]

_OPEN_FILES = 64
_KEPT_SENS = 8


class PreparedSet:
    """One split of a prepared set; a `SliceSource`.

    Threads may share it, and a worker process that it is sent to opens the files anew. It keeps
    the sensitivities of the last few slices in memory, and no images. Making one changes how the
    process allocates memory; see `keep_freed_memory`.

    Args:
        path: Folder of the set.
        split: ``"train"``, ``"validation"`` or ``"test"``.
        verify: Whether to hold every file of the set, but for records of other splits, against its
            checksum, at about 1 GB/s a core. A process does so once for a file.

    Attributes:
        slices: What is known of each slice, in order.
        readout: Columns that slices may have been cut to; ``None`` if none was.

    Raises:
        DataError: If there is no finished set, it has no such split, or a file has changed.
    """

    def __init__(self, path: str | Path, *, split: str = "train", verify: bool = True) -> None:
        self._root, self._split = Path(path).resolve(), split
        metadata = read_metadata(self._root)
        if verify:
            verify_checksums(self._root, split=split)
        with refusing(self._root, "the metadata of a prepared set", "prepare it anew"):
            found = [each for each in metadata["slices"] if each["split"] == split]
            self.slices = tuple(map(_info, found))
            self._origins = tuple(str(each["sens"]) for each in found)
            self._acquired = tuple(each.get("acquired") for each in found)  # earlier versions: none
            readout = metadata["settings"].get("readout")
            cut = readout is not None and any(info.shape[-1] >= readout for info in self.slices)
        if not found:
            splits = ", ".join(dict.fromkeys(each["split"] for each in metadata["slices"]))
            fix = "take one of these, or prepare the set anew with a --split that has it"
            raise DataError(self._root, f"a split among {splits}", repr(split), fix)
        self.readout: int | None = readout if cut else None
        self._start()

    def images(self, number: int, frames: Sequence[int]) -> Complex64[np.ndarray, "f n h w"]:
        """Coil images of some frames of a slice; see `SliceSource`.

        Raises:
            ValueError: If there is no such slice or frame.
            DataError: If its file cannot be read.
        """
        frames = [int(t) for t in frames]
        self._check(number, frames)
        path = shard_path(self._root, FRAMES, self._split, number, len(self.slices))
        images = np.empty((len(frames), *self.slices[number].shape[1:]), np.complex64)
        first = {t: i for i, t in reversed(list(enumerate(frames)))}
        for t, i in first.items():  # one by one, so that each finds the last one's memory free
            images[i] = _stored(path, self._read(path, t)["images"], images.shape[1:])
        for i, t in enumerate(frames):
            if first[t] != i:
                images[i] = images[first[t]]
        return images

    def sens(self, number: int) -> Complex64[np.ndarray, "*t n h w"] | None:
        """Sensitivities of a slice, read-only; see `SliceSource`.

        Raises:
            ValueError: If there is no such slice.
            DataError: If the file cannot be read.
        """
        self._check(number, ())
        return self._sens(number)

    def sens_method(self, number: int) -> str | None:
        """How they were estimated; see `SliceSource`.

        Raises:
            ValueError: If there is no such slice.
        """
        self._check(number, ())
        method = self._origins[number].split(",")[0]  # as in "espirit, 24 lines"
        return method if method in SENS_METHODS else None

    def acquired(self, number: int) -> Float32[np.ndarray, "t h w"] | None:
        """Which samples the scanner took; see `SliceSource`.

        Raises:
            ValueError: If there is no such slice.
        """
        self._check(number, ())
        t, _, h, w = self.slices[number].shape
        return acquired_mask(self._acquired[number], (t, h, w))

    def __getstate__(self) -> dict[str, Any]:
        kept = ("_root", "_split", "slices", "readout", "_origins", "_acquired")
        return {name: getattr(self, name) for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start()

    def _start(self) -> None:
        """Begins with nothing open and nothing in memory."""
        keep_freed_memory()
        self._open = functools.lru_cache(_OPEN_FILES)(_LockedReader)
        self._sens = functools.lru_cache(_KEPT_SENS)(self._read_sens)

    def _check(self, number: int, frames: Sequence[int]) -> None:
        n_slices = len(self.slices)
        if not 0 <= number < n_slices:
            raise ValueError(f"number must lie in [0, {n_slices}), got {number=}")
        n_frames = self.slices[number].shape[0]
        if not all(0 <= t < n_frames for t in frames):
            raise ValueError(f"frames must lie in [0, {n_frames}), got {frames=}")

    def _read_sens(self, number: int) -> Complex64[np.ndarray, "*t n h w"] | None:
        path = shard_path(self._root, SLICES, self._split, 0, 1)
        example = self._read(path, number)
        shape = example["sens_shape"]
        if not any(shape):
            return None
        return _stored(path, example["sens"], shape if shape[0] > 1 else shape[1:])

    def _read(self, path: Path, number: int) -> Mapping[str, Any]:
        try:
            return parse_example(self._open(path).read(number))
        except Exception as error:  # the format's C++ and protobuf have their own kinds
            wanted = f"record {number} of a prepared set"
            raise DataError(path, wanted, str(error), "prepare the set anew") from error


class _LockedReader:
    """An open file of records that several threads may read from, one after the other."""

    def __init__(self, path: Path) -> None:
        self._reader, self._lock = open_records(path), threading.Lock()

    def read(self, number: int) -> bytes:
        with self._lock:
            return self._reader.read([number])[0]


def _info(entry: dict[str, Any]) -> SliceInfo:
    t, n, h, w = entry["shape"]
    pixel = entry.get("pixel_mm")  # sets of earlier versions have none
    return SliceInfo(
        name=entry["name"],
        subject=entry["subject"],
        view=entry["view"],
        shape=(t, n, h, w),
        simulation=entry["simulation"],
        source=entry["source"],
        slice_index=int(entry["slice_index"]),
        scale=entry["scale"],
        pixel_mm=None if pixel is None else (pixel[0], pixel[1]),
        undersampled=isinstance(entry.get("acquired"), dict),
    )


def _stored(path: Path, stored: bytes, shape: tuple[int, ...]) -> np.ndarray:
    try:
        return bytes_array(stored, shape)
    except ValueError as error:
        raise DataError(path, f"an array {shape}", f"{len(stored)} bytes") from error
