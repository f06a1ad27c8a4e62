"""Files of examples: the ``array_record`` format with TensorFlow's ``Example`` in each record.

Complex arrays are stored as plain bytes in one scalar feature. Compression would gain 7 % on noisy
images and cost more time than everything else in reading them, so there is none.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]
from tensorflow_datasets.proto import tf_example_pb2

from kgmgt_jax.data.atomic import write_atomically

__all__ = ["array_bytes", "bytes_array", "open_records", "parse_example", "write_records"]

_WRITING = "group_size:1,uncompressed"  # a record by itself, for reading at random
_READING = "readahead_buffer_size:0,max_parallelism:0"
_BUFFER = 1 << 15  # records are larger, and read past it
_STORED = np.dtype("<c8")
_Example: Any = getattr(tf_example_pb2, "Example")  # noqa: B009, made when imported


def array_bytes(array: np.ndarray) -> bytes:
    """A complex64 array as it is stored."""
    return np.ascontiguousarray(array, _STORED).tobytes()


def bytes_array(stored: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """The complex64 array in stored bytes, read-only and without a copy.

    Raises:
        ValueError: If there are more or fewer bytes than the shape asks for.
    """
    return np.frombuffer(stored, _STORED).reshape(shape)


def write_records(path: Path, records: Iterable[bytes]) -> int:
    """Writes a file of records, one at a time, whole or not at all, down to the disk.

    Returns:
        The sum of their lengths in bytes.

    Raises:
        OSError: If the disk is full or the like.
    """
    sizes = []

    def write(temporary: Path) -> None:
        writer = array_record_module.ArrayRecordWriter(os.fspath(temporary), _WRITING)
        try:
            for record in records:
                writer.write(record)
                sizes.append(len(record))
        finally:
            writer.close()
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())

    try:
        write_atomically(path, write)
    except RuntimeError as error:  # what the format's C++ raises
        raise OSError(f"{path}: could not be written: {error}") from error
    return sum(sizes)


def open_records(path: Path) -> Any:
    """A reader: ``read([i, j, ...])`` gives some records, ``num_records()`` says how many.

    Of a file that is missing or damaged ``read`` raises ``RuntimeError``; opening it does not.
    """
    return array_record_module.ArrayRecordReader(
        os.fspath(path), options=_READING, file_reader_buffer_size=_BUFFER
    )


def parse_example(record: bytes) -> Mapping[str, Any]:
    """Features of an example by name: bytes, or a sequence of numbers."""
    features = _Example.FromString(record).features.feature
    parsed = {}
    for name, feature in features.items():
        values = getattr(feature, feature.WhichOneof("kind")).value
        parsed[name] = values[0] if feature.HasField("bytes_list") else tuple(values)
    return parsed
