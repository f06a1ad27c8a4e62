"""The two datasets of TFDS that a prepared set consists of, made without TensorFlow.

TFDS's own writer gathers a split in memory before it writes, and from 1 GB on needs TensorFlow. So
these builders write their records one by one instead, in order, uncompressed.
"""

import contextlib
import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core import splits

from kgmgt_jax.data.prepared.features import FRAME, SLICE, serialise
from kgmgt_jax.data.prepared.layout import VERSION
from kgmgt_jax.data.prepared.records import array_bytes, open_records, write_records
from kgmgt_jax.data.prepared.staging import StagedSlice

__all__ = ["CineFrames", "CineSlices", "build"]

Examples = Iterator[tuple[int, Any]]


class _Builder(tfds.core.GeneratorBasedBuilder):
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
        staged: Mapping[str, Sequence[StagedSlice]] | None = None,
        metadata: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self._staged, self._said = dict(staged or {}), dict(metadata or {})
        super().__init__(**{"file_format": "array_record", **options})

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=" ".join((type(self).__doc__ or "").split()),
            features=self.features,
            metadata=tfds.core.MetadataDict(self._said),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Examples]:
        return {split: self._generate_examples(slices) for split, slices in self._staged.items()}

    def _download_and_prepare(self, dl_manager: Any, download_config: Any) -> None:
        infos = []
        for split, examples in self._split_generators(dl_manager).items():
            template = tfds.core.ShardedFileTemplate(
                dataset_name=self.name,
                data_dir=self.data_path,
                split=split,
                filetype_suffix="array_record",
            )
            lengths, n_bytes = self._write(split, examples, template)
            infos.append(
                tfds.core.SplitInfo(
                    name=split,
                    shard_lengths=lengths,
                    num_bytes=n_bytes,
                    filename_template=template,
                )
            )
        self.info.set_splits(splits.SplitDict(infos))

    def _write(
        self, split: str, examples: Examples, template: tfds.core.ShardedFileTemplate
    ) -> tuple[list[int], int]:
        """Writes a split; records in each of its files, and their bytes altogether."""
        path = Path(template.sharded_filepath(shard_index=0, num_shards=1))
        records = (serialise(self.features, example) for _, example in examples)
        return [len(self._staged[split])], write_records(path, records)


class CineFrames(_Builder):
    """Frames of fully sampled cardiac cines: coil images, one example a frame, one file a slice."""

    features = FRAME

    def _generate_examples(self, slices: Sequence[StagedSlice]) -> Examples:
        records = (
            record
            for staged in slices
            for t in range(staged.info["shape"][0])
            for record in open_records(staged.frames).read([t])
        )
        for number, record in enumerate(records):
            yield number, self.features.deserialize_example_np(record)

    def _write(
        self, split: str, examples: Examples, template: tfds.core.ShardedFileTemplate
    ) -> tuple[list[int], int]:
        """The staged files are the files of the split: gives each a second name."""
        slices = self._staged[split]
        for i, staged in enumerate(slices):
            _link(
                staged.frames,
                Path(template.sharded_filepath(shard_index=i, num_shards=len(slices))),
            )
        lengths = [staged.info["shape"][0] for staged in slices]
        return lengths, sum(staged.info["n_bytes"] for staged in slices)


class CineSlices(_Builder):
    """Slices of fully sampled cardiac cines: coil sensitivities and origin, one example a slice."""

    features = SLICE

    def _generate_examples(self, slices: Sequence[StagedSlice]) -> Examples:
        for number, staged in enumerate(slices):
            sens, info = staged.sens(), staged.info
            shape = (0, 0, 0, 0) if sens is None else (1, *sens.shape)[-4:]
            kept = ("id", "name", "subject", "view", "shape", "scale")
            yield (
                number,
                {name: info[name] for name in kept}
                | {
                    "sens": b"" if sens is None else array_bytes(sens),
                    "sens_shape": shape,
                    "meta": json.dumps(info["meta"], sort_keys=True, ensure_ascii=False),
                },
            )


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


def _link(source: Path, target: Path) -> None:
    """A second name for a file, or a copy where the file system knows no such thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
