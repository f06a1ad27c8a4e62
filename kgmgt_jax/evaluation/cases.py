"""What there is to evaluate: slices with a reference, slices without, and files that are neither.

A path's fully sampled slices are undersampled in every way asked for; its undersampled files, where
no fully sampled one of the same scan lies beside them, are cases without a reference. A file that
cannot be used is noted and stops nothing.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from kgmgt_jax.commands import watched
from kgmgt_jax.data.case import DataError
from kgmgt_jax.data.file_slices import FileSlices
from kgmgt_jax.data.formats import (
    CineFile,
    ReadOptions,
    Unit,
    find_cines,
    open_unit,
    undersampled_key,
)
from kgmgt_jax.data.mask_sampler import MaskSampler
from kgmgt_jax.data.prepared import PreparedSet, is_prepared
from kgmgt_jax.data.sens_cache import missing_sens
from kgmgt_jax.data.simulation import Simulation
from kgmgt_jax.data.slices import SliceInfo, SliceSource, spread
from kgmgt_jax.data.sources import open_prepared
from kgmgt_jax.data.subjects import identify
from kgmgt_jax.data.validation import retrospective_cases
from kgmgt_jax.evaluation.methods import Kspace, Mask, Sens
from kgmgt_jax.evaluation.places import Cine, path_below, places_of
from kgmgt_jax.evaluation.sampling import Sampling

__all__ = ["Condition", "EvaluationCase", "EvaluationSet", "open_evaluation"]

AS_ACQUIRED = "as acquired"
_SAMPLING_FOLDER = re.compile(r"FullSample|AccFactor\d+|UnderSample_Task\w+")


class Condition(NamedTuple):
    """How slices are undersampled.

    Attributes:
        mask_kind: see ``data.mask_sampler``.
        acceleration: the nominal one.
        acs: central lines that are always measured.
    """

    mask_kind: str
    acceleration: float
    acs: int

    @property
    def masks(self) -> MaskSampler:
        """Draws its masks."""
        return MaskSampler((self.mask_kind,), (self.acceleration,), self.acs)


@dataclass(frozen=True, eq=False)
class EvaluationCase:
    """A slice as a method gets it, and what its images are compared with.

    Attributes:
        name: of the slice, the same in all conditions.
        subject: who was scanned.
        kspace: measured k-space, zero elsewhere.
        mask: 1 where measured.
        sens: sensitivities; ``None`` for a single coil.
        reference: magnitudes of the fully sampled slice, its coils combined by ``sens``; ``None``
            where there are none.
        sampling: how it was undersampled, with its own true acceleration.
        condition: which of those asked for; ``None`` for a file undersampled as it came.
        simulation: how the k-space was simulated; empty for measured k-space.
        place: where its images go below a folder; see `places_of`.
        slice_index: its place in that file.
        n_slices: slices of that file, without those that are left out.
        pixel_mm: height and width of a pixel; ``None`` where the file does not say.
    """

    name: str
    subject: str
    kspace: Kspace
    mask: Mask
    sens: Sens
    reference: Float32[np.ndarray, "t h w"] | None
    sampling: Sampling
    condition: Condition | None
    simulation: str
    place: Path
    slice_index: int
    n_slices: int
    pixel_mm: tuple[float, float] | None = None


class EvaluationSet:
    """Everything below a path; see `open_evaluation`.

    Attributes:
        failed: ``{what: why}``, grows as slices turn out to be unreadable.
        unscored: ``{case: why}`` of the cases without a reference.
        slices: the slices with a reference.
        sens: how coil maps are estimated, where files bring none.
        virtual_coils: to how many coils files of more are compressed; 0 for none.
    """

    def __init__(
        self,
        root: Path,
        source: SliceSource | None,
        undersampled: Sequence[CineFile],
        failed: dict[str, str],
        sens: str,
        virtual_coils: int = 0,
    ) -> None:
        self.virtual_coils = virtual_coils
        self._root, self._source, self._undersampled = root, source, undersampled
        self.sens, self.failed = sens, failed
        self.slices: Sequence[SliceInfo] = () if source is None else source.slices
        self.unscored: dict[str, str] = {}
        self._n_slices = Counter(map(_cine_of, self.slices))
        who = {_cine_of(info): info.subject for info in self.slices}
        self._places = places_of(root, who | {(str(f.path), f.name): "" for f in undersampled})

    def n_frames(self, n_conditions: int) -> int:
        """Frames that one method has to reconstruct."""
        scored = sum(info.shape[0] for info in self.slices)
        return n_conditions * scored + sum(len(f) * f.slice_shape[0] for f in self._undersampled)

    def spread(self, n_most: int) -> list[str]:
        """Names of at most so many slices, evenly spread over those with a reference."""
        names = _distinct_names(self.slices)
        return [names[number] for number in spread(len(names), n_most)]

    def check_ranking(self) -> None:
        """Refuses a prepared set with cut readouts, of which the ranking wants the middle third.

        Raises:
            ValueError: in one line.
        """
        if isinstance(self._source, PreparedSet) and self._source.readout is not None:
            raise ValueError(
                f"{self._root}: expected whole readouts to rank, got a set cut to "
                f"{self._source.readout} columns; name the files themselves"
            )

    def cases(self, conditions: Sequence[Condition], seed: int = 0) -> Iterator[EvaluationCase]:
        """Every slice in every condition, then the files that are undersampled already.

        Args:
            conditions: how slices are undersampled.
            seed: of the masks, which depend on nothing else but a slice's name and shape.

        Raises:
            ValueError: before the first case, if a condition is impossible for a slice.
        """
        for condition in conditions:
            for t, _, h, w in {info.shape for info in self.slices}:
                condition.masks.check((t, h, w))
        return self._cases(conditions, seed)

    def _cases(self, conditions: Sequence[Condition], seed: int) -> Iterator[EvaluationCase]:
        names = _distinct_names(self.slices)
        for number, (info, name) in enumerate(zip(self.slices, names, strict=True)):
            try:
                yield from self._retrospective(number, info, name, conditions, seed)
            except (DataError, OSError) as error:
                self.failed[name] = str(error)
        for file in self._undersampled:
            for z in range(len(file)):
                try:
                    yield self._as_acquired(file, z)
                except (DataError, OSError) as error:
                    self.failed[file.slice_name(z)] = str(error)

    def _retrospective(
        self, number: int, info: SliceInfo, name: str, conditions: Sequence[Condition], seed: int
    ) -> Iterator[EvaluationCase]:
        if self._source is None:
            return
        masks = [condition.masks for condition in conditions]
        cases = retrospective_cases(self._source, number, masks, seed)
        for condition, case in zip(conditions, cases, strict=True):
            mask = case.mask
            true = mask.size / float(mask.sum())
            yield EvaluationCase(
                name=name,
                subject=info.subject,
                kspace=case.kspace * (np.float32(info.scale) * mask[:, None]),
                mask=mask,
                sens=case.sens,
                reference=case.reference * np.float32(info.scale),
                sampling=Sampling(condition.mask_kind, true, condition.acceleration, condition.acs),
                condition=condition,
                simulation=info.simulation,
                place=self._places[_cine_of(info)],
                slice_index=info.slice_index,
                n_slices=self._n_slices[_cine_of(info)],
                pixel_mm=info.pixel_mm,
            )

    def _as_acquired(self, file: CineFile, z: int) -> EvaluationCase:
        case = file[z]
        nominal = case.meta.nominal_acceleration
        below = path_below(self._root, file.path) or Path(file.name)
        name = f"{case.meta.name} ({below.as_posix()})"
        sens = missing_sens(case, self.sens)
        self.unscored[name] = "undersampled, and no fully sampled file of the same scan"
        return EvaluationCase(
            name=name,
            subject=identify(file, self._root)[0],
            kspace=case.kspace,
            mask=case.mask,
            sens=sens,
            reference=None,
            sampling=Sampling(AS_ACQUIRED, case.true_acceleration, nominal, case.acs),
            condition=None,
            simulation=case.meta.simulation,
            place=self._places[str(file.path), file.name],
            slice_index=case.meta.slice_index,
            n_slices=len(file),
            pixel_mm=case.meta.pixel_mm,
        )


def open_evaluation(
    path: str | Path,
    *,
    acs: int,
    sens: str = "espirit",
    simulation: Simulation | None = None,
    virtual_coils: int = 0,
    split: str | None = None,
) -> EvaluationSet:
    """Looks through a path for what can be evaluated.

    Args:
        path: a file of any known format, a folder of them, or a prepared set.
        acs: central lines of the masks to come.
        sens: how coil maps are estimated, see `estimate_sens`; those of a prepared set as it was.
        simulation: how k-space is made of magnitude images; its defaults if left out.
        virtual_coils: most coils of files, whose references are then of these, too; 0 for all.
        split: which part of a prepared set, ``"test"`` if left out; files have none.

    Raises:
        DataError: if there is nothing at all to evaluate, or nothing that has such a split.
        ValueError: if ``acs`` is too small to calibrate several coils, or for one virtual coil.
    """
    if not str(path):
        raise DataError("data", "a file or a folder", "an empty path")
    root = Path(path)
    if is_prepared(root):
        prepared = open_prepared(root, split=split or "test")
        used = map(prepared.sens_method, range(len(prepared.slices)))
        return EvaluationSet(root, prepared, (), {}, next(filter(None, used), sens))
    if split is not None and root.exists():
        expected = f"a prepared set, of which to take the split {split}"
        raise DataError(root, expected, "files", "leave it out, or prepare them")
    failed: dict[str, DataError] = {}
    options = ReadOptions(simulation=simulation or Simulation(), virtual_coils=virtual_coils)
    full: list[CineFile] = []
    scanned: set[tuple[str, ...]] = set()
    undersampled: list[tuple[Unit, list[CineFile] | None]] = []
    for unit in watched(find_cines(root), "open"):
        try:
            files = None if undersampled_key(unit) else open_unit(unit, options)
            if files is not None and all(file.fully_sampled for file in files):
                full += files
                scanned.add(_scan(unit.path))
            else:
                undersampled.append((unit, files))
        except DataError as error:
            failed[_shown(unit.path, root)] = error
    alone: list[CineFile] = []
    for unit, files in undersampled:
        try:
            alone += [] if _scan(unit.path) in scanned else files or open_unit(unit, options)
        except DataError as error:
            failed[_shown(unit.path, root)] = error
    if not full and not alone:
        nothing = DataError(root, "cines in files of a known format", "none")
        raise next(iter(failed.values()), nothing)
    source = FileSlices(full, root=root, acs=acs, sens=sens, cache_gib=0) if full else None
    told = {what: str(error) for what, error in failed.items()}
    return EvaluationSet(root, source, alone, told, sens, virtual_coils)


def _scan(path: Path) -> tuple[str, ...]:
    """What the files of one scan have in common, however they are undersampled."""
    path = path.absolute()
    folders = [name for name in path.parent.parts if not _SAMPLING_FOLDER.fullmatch(name)]
    return (*folders, path.stem.split("_kus_")[0])


def _shown(path: Path, root: Path) -> str:
    return os.path.relpath(path, root if root.is_dir() else root.parent)


def _cine_of(info: SliceInfo) -> Cine:
    return info.source, info.name.removesuffix(f"/slice{info.slice_index}")


def _distinct_names(slices: Sequence[SliceInfo]) -> list[str]:
    """Names of the slices; where two files have a cine of one name, all of it with its file."""
    n_files = Counter(name for _, name in set(map(_cine_of, slices)))
    return [
        f"{info.name} ({info.source})" if n_files[_cine_of(info)[1]] > 1 else info.name
        for info in slices
    ]
