"""Names of the files and datasets of a prepared set."""

import json
import os
from pathlib import Path
from typing import Any

from kgmgt_jax.data.case import DataError

__all__ = [
    "CHECKSUMS",
    "FRAMES",
    "SKIPPED",
    "SLICES",
    "STAGING",
    "VERSION",
    "is_prepared",
    "read_metadata",
    "shard_path",
    "split_of",
]

VERSION = "1.0.0"
"""Of the layout; a folder of each dataset."""

FRAMES, SLICES = "cine_frames", "cine_slices"
CHECKSUMS, SKIPPED, STAGING = "checksums.txt", "skipped.json", ".preparing"


def is_prepared(path: str | Path) -> bool:
    """Whether a folder is a prepared set, be it finished or not; none that cannot be entered is."""
    return any(os.path.exists(Path(path, name)) for name in (CHECKSUMS, STAGING))


def shard_path(root: Path, dataset: str, split: str, index: int, n_shards: int) -> Path:
    """File ``index`` of a split, named as TFDS names it."""
    name = f"{dataset}-{split}.array_record-{index:05d}-of-{n_shards:05d}"
    return root / dataset / VERSION / name


def split_of(path: Path) -> str:
    """Split whose records a file has, as `shard_path` names it; of any other file, ``""``."""
    name, records, _ = path.name.partition(".array_record-")
    return name.rpartition("-")[2] if records else ""


def read_metadata(root: Path) -> dict[str, Any]:
    """What ``metadata.json`` says about a finished set.

    Raises:
        DataError: If the folder holds none, an unfinished one, or one of another layout.
    """
    if not (root / CHECKSUMS).is_file():
        started = (root / STAGING).exists()
        got = "one whose preparation has not ended" if started else "none"
        fix = "run the same command again" if started else "python -m kgmgt_jax.data prepare"
        raise DataError(root, "a prepared set", got, fix)
    path = root / SLICES / VERSION / "metadata.json"
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
        if not {"settings", "slices"} <= metadata.keys():
            raise ValueError(f"the keys {sorted(metadata)}")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        wanted = f"the metadata of a prepared set of layout {VERSION}"
        raise DataError(path, wanted, str(error), "prepare it anew") from error
    return metadata
