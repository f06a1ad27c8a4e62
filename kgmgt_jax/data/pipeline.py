"""Grain pipeline: fully sampled files in, batches of retrospectively undersampled triplets out.

The chain is source -> shuffle -> random crop, flips, mask -> repeat -> batch. Grain hands each
example a random generator that depends on the seed and the example's running number (its epoch
and its place in it), and on nothing else. So a run gives the same batches bit for bit, whatever
the number of workers, and an iterator resumes from its ``get_state()``, a small dictionary.
"""

import functools
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import grain
import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jaxtyping import Complex64

from kgmgt_jax.data.case import CineCase, DataError
from kgmgt_jax.data.formats import CineFile, open_files
from kgmgt_jax.data.transforms import (
    MaskSampler,
    augment,
    crop_case,
    fft2c,
    ifft2c,
    triplet,
    triplets,
)
from kgmgt_jax.mri.coils import MIN_CALIBRATION_LINES, estimate_sens

__all__ = [
    "CineFrame",
    "TripletSource",
    "make_training_loader",
    "validation_batches",
    "validation_cases",
]

Size = Sequence[int | None]
Shape = tuple[int, int, int, int]

_READ_OPTIONS = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)  # counted in batches


@dataclass(frozen=True, eq=False)
class CineFrame:
    """One frame to be reconstructed, with the whole fully sampled slice it belongs to.

    Attributes:
        images: Coil images over all frames, ``(t, n, h, w)``.
        sens: Sensitivities ``(n, h, w)``, or ``None`` for a single coil.
        frame: Target frame, in [0, t).
        name: Name of the case, as in ``CaseMeta.name``.
    """

    images: Complex64[np.ndarray, "t n h w"]
    sens: Complex64[np.ndarray, "n h w"] | None
    frame: int
    name: str


class TripletSource:
    """Random access to every frame of every slice of fully sampled files.

    Index ``i`` runs over frames within slices within files. A slice is read, transformed to coil
    images and, if it has several coils, given sensitivities when first asked for; it then stays
    in memory until the cache is full and no other was left unused for longer.

    Sensitivities are calibrated from the central lines that every mask of lines contains, and from
    nothing else, so they are what a reconstruction of the undersampled data could have estimated.
    (A radial mask contains only a square of them.)

    Args:
        files: Fully sampled cine files.
        acs: Calibration lines of the masks to come, at the size of the crop.
        crop: Rows and columns of the crops to come, ``None`` for a whole axis. A crop has fewer
            and wider-spaced lines, so a slice of ``h`` rows to be cut to ``h'`` is calibrated
            from ``acs * h / h'`` of its own lines: the same extent of k-space.
        cache_gib: Memory for decoded slices in GiB, in each worker process; at least one slice
            is kept.

    Attributes:
        slices: File and slice index of every slice, in order.

    Raises:
        DataError: If there are no files, one cannot be read, or one is undersampled.
        ValueError: If ``acs`` is too small to calibrate several coils.
    """

    def __init__(
        self,
        files: Sequence[str | Path],
        *,
        acs: int,
        crop: Size = (None, None),
        cache_gib: float = 4.0,
    ) -> None:
        self._acs, self._crop = acs, crop
        self.slices = _reference_slices(files, acs)
        shapes = [file.slice_shape for file, _ in self.slices]
        self._index = [(i, t) for i, shape in enumerate(shapes) for t in range(shape[0])]
        largest = max(int(np.prod(shape)) for shape in shapes) * np.dtype(np.complex64).itemsize
        self._cache_size = max(1, int(cache_gib * 2**30 / largest))
        self._load_cached = functools.lru_cache(self._cache_size)(self._load)

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: int) -> CineFrame:
        number, frame = self._index[index]
        images, sens, name = self._load_cached(number)
        return CineFrame(images, sens, frame, name)

    def __getstate__(self) -> dict:
        return {name: value for name, value in vars(self).items() if name != "_load_cached"}

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state)  # a worker process starts with an empty cache
        self._load_cached = functools.lru_cache(self._cache_size)(self._load)

    def _load(self, number: int) -> tuple[np.ndarray, np.ndarray | None, str]:
        file, z = self.slices[number]
        case = file[z]
        rows = case.shape[-2]
        acs = min(rows, round(self._acs * rows / _cropped(case.shape, self._crop)[-2]))
        return ifft2c(case.kspace), _calibrate(case, acs), case.meta.name


@dataclass(frozen=True)
class _RandomTriplet(grain.transforms.RandomMap):
    """Random crop, flips, phase and mask, then the triplet of the target frame."""

    masks: MaskSampler
    crop: Size
    circular: bool

    def random_map(self, element: CineFrame, rng: np.random.Generator) -> dict[str, np.ndarray]:
        images, sens = crop_case(element.images, element.sens, self.crop, rng)
        images, sens = augment(images, sens, rng)
        n_frames, _, *size = images.shape
        mask = self.masks.draw(rng, (n_frames, *size))
        return triplet(fft2c(images), mask, sens, element.frame, circular=self.circular)


def make_training_loader(
    files: Sequence[str | Path],
    *,
    batch_size: int,
    crop: Size = (None, None),
    mask_kinds: Sequence[str] = ("variable_density",),
    accelerations: Sequence[float] = (4.0, 6.0, 8.0, 10.0),
    acs: int = 8,
    seed: int = 0,
    num_epochs: int | None = None,
    worker_count: int = 0,
    circular: bool = True,
    cache_gib: float = 4.0,
) -> grain.DatasetIterator[dict[str, np.ndarray]]:
    """Iterator over random training batches; see `triplets` for what a batch holds.

    Every frame is a target once an epoch. Crop, flips, global phase, mask kind, acceleration and
    mask are drawn anew for every example.

    Args:
        files: Fully sampled cine files.
        batch_size: Examples in a batch; an incomplete last batch is dropped.
        crop: Rows and columns of the random crops; ``None`` keeps a whole axis.
        mask_kinds: See `MaskSampler`.
        accelerations: See `MaskSampler`.
        acs: Calibration lines of the masks, at the size of the crop.
        seed: Seed of everything random, in [0, 2^32).
        num_epochs: Passes over the data; ``None`` goes on forever.
        worker_count: Worker processes; 0 works in two threads of this process.
        circular: Whether the last frame precedes the first (retrospective gating).
        cache_gib: Memory for decoded slices in each process, in GiB.

    Returns:
        A Grain iterator. ``get_state()`` and ``set_state()`` save and restore its position, with
        the same ``worker_count`` on both sides; ``close()`` ends its workers.

    Raises:
        DataError: If a file is unusable, or if files of different sizes cannot share a batch.
        ValueError: If a size, a mask kind or an acceleration is impossible.
    """
    _check_sizes(batch_size, crop, worker_count)
    source = TripletSource(files, acs=acs, crop=crop, cache_gib=cache_gib)
    masks = MaskSampler(tuple(mask_kinds), tuple(accelerations), acs)
    shapes = {_cropped(file.slice_shape, crop) for file, _ in source.slices}
    for t, _, h, w in shapes:
        masks.check((t, h, w))
    if batch_size > 1 and len({shape[1:] for shape in shapes}) > 1:
        got = f"(n, h, w) = {sorted({shape[1:] for shape in shapes})}"
        fix = "set crop no larger than the smallest slice, or batch_size=1"
        raise DataError("training files", "one shape after cropping", got, fix)
    if num_epochs is not None and num_epochs * len(source) < batch_size:
        raise ValueError(f"no full batch: {batch_size=} with {len(source)} frames, {num_epochs=}")
    dataset = grain.MapDataset.source(source).seed(seed).shuffle()
    dataset = dataset.random_map(_RandomTriplet(masks, crop, circular)).repeat(num_epochs)
    batches = dataset.batch(batch_size, drop_remainder=True).to_iter_dataset(_READ_OPTIONS)
    if worker_count:
        if not flags.FLAGS.is_parsed():  # outside absl.app; Grain's workers read their flags
            flags.FLAGS.mark_as_parsed()
        options = grain.MultiprocessingOptions(num_workers=worker_count, per_worker_buffer_size=2)
        batches = batches.mp_prefetch(options, worker_init_fn=_use_cpu)
    return iter(batches)


def validation_batches(
    files: Sequence[str | Path],
    *,
    mask_kind: str = "variable_density",
    acceleration: float = 8.0,
    acs: int = 8,
    batch_size: int | None = None,
    seed: int = 0,
    circular: bool = True,
) -> Iterator[dict[str, np.ndarray]]:
    """Every frame of every slice once, whole and in order, with a fixed mask for each slice.

    A slice's mask depends on ``seed``, its case name and its shape only, so adding or removing
    files changes no other slice's.

    Args:
        files: Fully sampled cine files.
        mask_kind: See `MaskSampler`.
        acceleration: See `MaskSampler`.
        acs: Calibration lines of the masks.
        batch_size: Frames in a batch, all of one slice; the last of a slice may be smaller.
            ``None`` takes all frames of a slice at once.
        seed: Seed of the masks.
        circular: Whether the last frame precedes the first (retrospective gating).

    Returns:
        Iterator over batches as `triplets` describes them.

    Raises:
        DataError: If a file is unusable.
        ValueError: If a size, the mask kind or the acceleration is impossible.
    """
    _check_sizes(1 if batch_size is None else batch_size, (None, None), 0)
    cases = validation_cases(
        files, mask_kind=mask_kind, acceleration=acceleration, acs=acs, seed=seed, circular=circular
    )

    def batches() -> Iterator[dict[str, np.ndarray]]:
        for _, case in cases:
            n_frames = len(case["target"])
            step = batch_size or n_frames
            for start in range(0, n_frames, step):
                yield {name: array[start : start + step] for name, array in case.items()}

    return batches()


def validation_cases(
    files: Sequence[str | Path],
    *,
    mask_kind: str,
    acceleration: float,
    acs: int,
    seed: int = 0,
    circular: bool = True,
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Name and whole cine, as one batch of all its frames, of every slice; see
    `validation_batches`.
    """
    slices = _reference_slices(files, acs)
    masks = MaskSampler((mask_kind,), (acceleration,), acs)
    for t, _, h, w in {file.slice_shape for file, _ in slices}:
        masks.check((t, h, w))

    def cases() -> Iterator[tuple[str, dict[str, np.ndarray]]]:
        for file, z in slices:
            case = file[z]
            rng = np.random.default_rng([seed, zlib.crc32(case.meta.name.encode())])
            mask, sens = masks.draw(rng, case.mask.shape), _calibrate(case, acs)
            frames = range(case.n_frames)
            yield case.meta.name, triplets(case.kspace, mask, sens, frames, circular=circular)

    return cases()


def _reference_slices(files: Sequence[str | Path], acs: int) -> list[tuple[CineFile, int]]:
    """All slices of all files in order, refusing files that cannot serve as reference."""
    slices = []
    for file in (file for path in files for file in open_files(path)):
        path = file.path
        if not file.fully_sampled:
            fix = "leave it out, e.g. with find_files(root, fully_sampled=True)"
            raise DataError(path, "fully sampled k-space", f"undersampled {file.key!r}", fix)
        if file.slice_shape[1] > 1 and acs < MIN_CALIBRATION_LINES:
            least = f"acs >= {MIN_CALIBRATION_LINES}"
            raise ValueError(f"{path}: calibrating several coils needs {least}, got {acs=}")
        slices += [(file, z) for z in range(len(file))]
    if not slices:
        raise DataError("files", "at least one fully sampled cine file", "an empty list")
    return slices


def _calibrate(case: CineCase, acs: int) -> Complex64[np.ndarray, "n h w"] | None:
    """Sensitivities from the central ``acs`` lines averaged over time; ``None`` for one coil."""
    if case.n_coils == 1:
        return None
    if case.sens is not None:
        return case.sens
    average = case.kspace.mean(axis=0, keepdims=True)
    everything = np.ones((1, *case.shape[-2:]), np.float32)
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        return np.asarray(estimate_sens(jnp.asarray(average), jnp.asarray(everything), acs=acs))


def _cropped(shape: Shape, crop: Size) -> Shape:
    """Shape ``(t, n, h, w)`` of a slice after `crop_case`."""
    t, n, *size = shape
    h, w = (kept if cut is None else min(cut, kept) for cut, kept in zip(crop, size, strict=True))
    return t, n, h, w


def _check_sizes(batch_size: int, crop: Size, worker_count: int) -> None:
    if batch_size < 1 or worker_count < 0:
        raise ValueError(f"sizes out of range: got {batch_size=} (>= 1), {worker_count=} (>= 0)")
    if len(crop) != 2 or any(size is not None and size < 1 for size in crop):
        raise ValueError(f"crop must be two sizes, each positive or None, got {crop=}")


def _use_cpu(worker_index: int, worker_count: int) -> None:
    """Keeps a loader's worker process off the accelerators."""
    jax.config.update("jax_platforms", "cpu")
