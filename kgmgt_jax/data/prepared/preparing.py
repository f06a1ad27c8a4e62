"""Making a prepared set: scan, process slice by slice, assemble, seal.

Whatever ends the process, the same command goes on where it ended. Slices are staged as they are
finished; the set is assembled from them in the staging folder, and moved to its place only when it
is complete, ``checksums.txt`` last.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

import kgmgt_jax
from kgmgt_jax.data.case import DataError
from kgmgt_jax.data.prepared.builder import build
from kgmgt_jax.data.prepared.checksums import write_checksums
from kgmgt_jax.data.prepared.layout import (
    CHECKSUMS,
    FRAMES,
    SKIPPED,
    SLICES,
    STAGING,
    VERSION,
    read_metadata,
    shard_path,
)
from kgmgt_jax.data.prepared.options import SPLITS, PrepareOptions
from kgmgt_jax.data.prepared.processing import process
from kgmgt_jax.data.prepared.scan import PlannedSlice, Skipped, SliceReader, scan
from kgmgt_jax.data.prepared.splits import assign_splits
from kgmgt_jax.data.prepared.staging import (
    StagedSlice,
    Staging,
    check_place,
    check_settings,
    write_json,
)

__all__ = ["Outcome", "prepare"]

_ASSEMBLY = "set"


@dataclass(frozen=True)
class Outcome:
    """What came of a preparation.

    Attributes:
        n_made: Slices that were processed now, rather than in an earlier run.
        n_slices: Slices in each split.
        n_subjects: Subjects in each split.
        skipped: What is not in the set.
    """

    n_made: int
    n_slices: Mapping[str, int]
    n_subjects: Mapping[str, int]
    skipped: Sequence[Skipped]


def prepare(
    path: str | Path, out: str | Path, options: PrepareOptions, *, skip_bad: bool = False
) -> Outcome:
    """Makes a prepared set of every fully sampled, or every undersampled, slice below a path.

    A finished set made with the same options is left as it is, without a look at the source; an
    interrupted one is gone on with.

    Args:
        path: A file or a folder.
        out: Folder of the set; new, empty but for hidden files, or one that this has begun.
        options: What is done to the slices.
        skip_bad: Whether to go on past files and slices that cannot be used.

    Raises:
        DataError: If something cannot be used, or ``out`` holds something else.
        ValueError: If there are too few subjects to split.
        OSError: If a file cannot be read or written.
    """
    root, out = Path(path).resolve(), Path(out).resolve()
    settings = {"source": str(root), **options.settings()}
    if (out / CHECKSUMS).is_file():
        check_settings(out, read_metadata(out)["settings"], settings)
        shutil.rmtree(out / STAGING, ignore_errors=True)
        return _outcome(out, n_made=0)
    check_place(out, settings)
    planned, skipped = scan(root, options, skip_bad=skip_bad)
    chosen = assign_splits((each.subject for each in planned), options.split, options.seed)
    with Staging.claim(out, settings) as staging:
        missing = [each for each in planned if not staging.has(each)]
        bad = _stage(missing, len(planned), staging, options, skip_bad=skip_bad)
        staged: dict[str, list[StagedSlice]] = {split: [] for split in SPLITS}
        for each in planned:
            if staging.has(each):
                staged[chosen[each.subject]].append(staging.get(each))
        staged = {split: slices for split, slices in staged.items() if slices}
        if not staged:
            raise DataError(root, "at least one usable slice", f"none in {len(planned)}")
        _assemble(out, staging, staged, _metadata(settings, staged), [*skipped, *bad])
    return _outcome(out, n_made=len(missing) - len(bad))


def _stage(
    missing: Sequence[PlannedSlice],
    n_planned: int,
    staging: Staging,
    options: PrepareOptions,
    *,
    skip_bad: bool,
) -> list[Skipped]:
    """Processes what is not finished yet, one slice in memory at a time; what could not be."""
    reader, skipped = SliceReader(options), []
    done = n_planned - len(missing)
    with tqdm(total=n_planned, initial=done, unit="slice", disable=None) as bar:
        for planned in missing:
            error = _stage_one(planned, reader, staging, options)
            if error and not skip_bad:
                raise error
            if error:
                skipped.append(Skipped(str(planned.path), planned.name, str(error), bad=True))
            bar.update()
    return skipped


def _stage_one(
    planned: PlannedSlice, reader: SliceReader, staging: Staging, options: PrepareOptions
) -> ValueError | OSError | None:
    """Processes and keeps one slice; returns what was wrong with it, raises what with the disk."""
    try:
        processed = process(reader.read(planned), options)
    except (ValueError, OSError) as error:
        return error
    staging.add(planned, processed)
    return None


def _metadata(
    settings: Mapping[str, Any], staged: Mapping[str, Sequence[StagedSlice]]
) -> dict[str, Any]:
    """What ``metadata.json`` says: settings, who is in which split, and all slices in order."""
    told = ("id", "name", "subject", "view", "shape", "scale")
    origin = ("source", "key", "slice_index", "format", "simulation", "sens")
    origin += ("pixel_mm", "acquired")
    return {
        "made_by": f"kgmgt_jax {kgmgt_jax.__version__}",
        "layout": VERSION,
        "images": "centred orthonormal inverse Fourier transform of the k-space, "
        "cropped to the central columns given by readout, divided by scale",
        "scale": "99th percentile of the magnitude of the coil-combined slice over all frames",
        "settings": dict(settings),
        "subjects": {
            split: sorted({each.info["subject"] for each in slices})
            for split, slices in staged.items()
        },
        "slices": [
            {"split": split}
            | {name: each.info[name] for name in told}
            | {name: each.info["meta"][name] for name in origin}
            for split, slices in staged.items()
            for each in slices
        ],
    }


def _assemble(
    out: Path,
    staging: Staging,
    staged: Mapping[str, Sequence[StagedSlice]],
    metadata: Mapping[str, Any],
    skipped: Sequence[Skipped],
) -> None:
    """Builds the set beside the staged slices and moves it to its place, the checksums last."""
    made = staging.folder / _ASSEMBLY
    shutil.rmtree(made, ignore_errors=True)
    build(made, staged, metadata)
    write_json(made / SKIPPED, [each._asdict() for each in skipped])
    known = {
        shard_path(made, FRAMES, split, i, len(slices)): each.info["sha256"]
        for split, slices in staged.items()
        for i, each in enumerate(slices)
    }
    write_checksums(made, known)
    for name in (FRAMES, SLICES, SKIPPED, CHECKSUMS):
        if (out / name).is_dir():  # moved by an earlier run, which then ended
            shutil.rmtree(out / name)
        os.replace(made / name, out / name)
    staging.remove()


def _outcome(out: Path, n_made: int) -> Outcome:
    """What a finished set holds."""
    metadata = read_metadata(out)
    skipped = json.loads((out / SKIPPED).read_text(encoding="utf-8"))
    return Outcome(
        n_made,
        n_slices=dict(Counter(each["split"] for each in metadata["slices"])),
        n_subjects={split: len(names) for split, names in metadata["subjects"].items()},
        skipped=[Skipped(**each) for each in skipped],
    )
