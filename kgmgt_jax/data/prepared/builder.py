"""The two datasets of TFDS that a prepared set consists of, made without TensorFlow.

TFDS's own writer gathers a split in memory before it writes, and from 1 GB on needs TensorFlow. So
these builders write their records one by one instead, in order, uncompressed.
"""

import contextlib
import io
import json
import os
import shutil
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core import splits
from tensorflow_datasets.core.dataset_builder import FileReaderBuilder

from kgmgt_jax.data.prepared.features import FRAME, SLICE, serialise
from kgmgt_jax.data.prepared.layout import VERSION
from kgmgt_jax.data.prepared.records import array_bytes, write_records
from kgmgt_jax.data.prepared.staging import StagedSlice

__all__ = ["CineFrames", "CineSlices", "build"]


class _Builder(FileReaderBuilder):
    """What both datasets share.

    Args:
        staged: Finished slices of each split, in order.
        metadata: What ``metadata.json`` shall say.
        **options: As TFDS has them, ``data_dir`` first of all.
    """

    VERSION = tfds.core.Version(VERSION)
    features: tfds.features.FeaturesDict

    def __init__(
        self,
        *,
        staged: Mapping[str, Sequence[StagedSlice]],
        metadata: Mapping[str, Any],
        **options: Any,
    ) -> None:
        self._staged, self._said = dict(staged), dict(metadata)
        super().__init__(file_format="array_record", **options)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=" ".join((type(self).__doc__ or "").split()),
            features=self.features,
            metadata=tfds.core.MetadataDict(self._said),
            disable_shuffling=True,
        )

    def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
        infos = []
        for split, slices in self._staged.items():
            template = tfds.core.ShardedFileTemplate(
                dataset_name=self.name,
                data_dir=self.data_path,
                split=split,
                filetype_suffix="array_record",
            )
            lengths, n_bytes = self._write(slices, template)
            infos.append(
                tfds.core.SplitInfo(
                    name=split,
                    shard_lengths=lengths,
                    num_bytes=n_bytes,
                    filename_template=template,
                )
            )
        self.info.set_splits(splits.SplitDict(infos))

    @abstractmethod
    def _write(
        self, slices: Sequence[StagedSlice], template: tfds.core.ShardedFileTemplate
    ) -> tuple[list[int], int]:
        """Writes a split; records in each of its files, and their bytes altogether."""


class CineFrames(_Builder):
    """Frames of cardiac cines: coil images, one example a frame, one file a slice."""

    features = FRAME

    def _write(
        self, slices: Sequence[StagedSlice], template: tfds.core.ShardedFileTemplate
    ) -> tuple[list[int], int]:
        """The staged files are the files of the split: gives each a second name."""
        for i, staged in enumerate(slices):
            path = template.sharded_filepath(shard_index=i, num_shards=len(slices))
            _link(staged.frames, Path(path))
        lengths = [staged.info["shape"][0] for staged in slices]
        return lengths, sum(staged.info["n_bytes"] for staged in slices)


class CineSlices(_Builder):
    """Slices of cardiac cines: coil sensitivities and origin, one example a slice."""

    features = SLICE

    def _write(
        self, slices: Sequence[StagedSlice], template: tfds.core.ShardedFileTemplate
    ) -> tuple[list[int], int]:
        path = Path(template.sharded_filepath(shard_index=0, num_shards=1))
        return [len(slices)], write_records(path, map(_slice_record, slices))


def build(
    folder: Path, staged: Mapping[str, Sequence[StagedSlice]], metadata: Mapping[str, Any]
) -> None:
    """Writes both datasets below a folder, without a look at any network.

    Args:
        folder: Where to write.
        staged: Finished slices of each split, in order; none of the splits empty.
        metadata: What ``metadata.json`` shall say.
    """
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    for builder in (CineFrames, CineSlices):
        made = builder(staged=staged, metadata=metadata, data_dir=os.fspath(folder))
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS says that it downloads
            made.download_and_prepare(download_config=config)


def _slice_record(staged: StagedSlice) -> bytes:
    sens, info = staged.sens(), staged.info
    kept = ("id", "name", "subject", "view", "shape", "scale")
    example = {name: info[name] for name in kept} | {
        "sens": b"" if sens is None else array_bytes(sens),
        "sens_shape": (0, 0, 0, 0) if sens is None else (1, *sens.shape)[-4:],
        "meta": json.dumps(info["meta"], sort_keys=True, ensure_ascii=False),
    }
    return serialise(SLICE, example)


def _link(source: Path, target: Path) -> None:
    """A second name for a file, or a copy where the file system knows no such thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
