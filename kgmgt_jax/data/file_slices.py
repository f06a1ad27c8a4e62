"""Slices straight from the users' files, for sets that are small enough to read while training.

Large sets are prepared once instead: ``python -m kgmgt_jax.data prepare`` and `PreparedSet`.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Complex64, Float32

from kgmgt_jax.data.case import CineCase, DataError
from kgmgt_jax.data.formats import CineFile, ReadOptions, open_files
from kgmgt_jax.data.sens_cache import cached_sens, central_sens, maps_of, measured_average
from kgmgt_jax.data.simulation import Simulation
from kgmgt_jax.data.slices import SliceInfo
from kgmgt_jax.data.subjects import identify
from kgmgt_jax.data.transforms import ifft2c
from kgmgt_jax.mri.coils import MIN_CALIBRATION_LINES

__all__ = ["FileSlices"]


@dataclass(eq=False)
class _Loaded:
    """A slice in memory, whose arrays are only to be read: those who ask for it share them.

    Attributes:
        images: Its coil images.
        given: Sensitivities of several coils that the file brings.
        estimate: Estimates them where it does not.
        acquired: Its mask, if the scanner left samples out.
    """

    images: Complex64[np.ndarray, "t n h w"]
    given: Complex64[np.ndarray, "*t n h w"] | None = None
    estimate: Callable[[], Complex64[np.ndarray, "n h w"]] | None = None
    acquired: Float32[np.ndarray, "t h w"] | None = None

    def __post_init__(self) -> None:
        for name in ("images", "given", "acquired"):
            array = getattr(self, name)
            if array is not None:
                view = array.view()
                view.flags.writeable = False
                setattr(self, name, view)

    @functools.cached_property
    def sens(self) -> Complex64[np.ndarray, "*t n h w"] | None:
        """Sensitivities, estimated when first asked for; ``None`` for a single coil."""
        return self.given if self.estimate is None else self.estimate()


class FileSlices:
    """Coil images of the slices of files, fully sampled unless asked for others; a `SliceSource`.

    A slice is read and transformed to coil images when first asked for; it then stays in memory
    until the cache is full and no other was left unused for longer. So do the sensitivities of
    several coils.

    Sensitivities are calibrated from the central lines that every mask of lines contains, and from
    nothing else, so they are what a reconstruction of the undersampled data could have estimated.
    (A radial mask contains only a square of them; a mask at the size of a larger bucket, to which a
    slice is padded, fewer lines at its own size.) Those of an undersampled slice come from all that
    its frames measured, as in a reconstruction of it.

    Args:
        files: Cine files, opened or by path.
        acs: Calibration lines of the masks to come, at the size of the crop.
        crop_rows: Rows of the crops to come, ``None`` for all. A crop has fewer and wider-spaced
            lines, so a slice of ``h`` rows to be cut to ``h'`` is calibrated from ``acs * h / h'``
            of its own lines: the same extent of k-space.
        sens: Method of `estimate_sens`.
        sens_cache: Folder that keeps sensitivities for the next run; ``None`` keeps none.
        cache_gib: Memory for decoded slices and their sensitivities in GiB, in each worker process;
            at least one slice is kept.
        simulation: How k-space is made of magnitude images, where their path is given.
        undersampled: Whether undersampled files may be among them, whose slices give zero-filled
            images and have their mask as ``acquired``.
        root: Folder that the files were searched in, which may tell who was scanned (see
            `identify`); by default the folder of each.

    Attributes:
        slices: What is known of each slice, in order.

    Raises:
        DataError: If there are no files, one cannot be read, or one is undersampled unasked.
        ValueError: If ``acs`` is too small to calibrate several coils of a file without maps.
    """

    def __init__(
        self,
        files: Sequence[CineFile | str | Path],
        *,
        acs: int,
        crop_rows: int | None = None,
        sens: str = "espirit",
        sens_cache: str | Path | None = None,
        cache_gib: float = 4.0,
        simulation: Simulation | None = None,
        undersampled: bool = False,
        root: Path | None = None,
    ) -> None:
        self._acs, self._crop_rows = acs, crop_rows
        self._sens, self._sens_cache = sens, sens_cache
        self._places = _all_slices(files, acs, simulation, undersampled)
        self.slices = tuple(_infos(self._places, root))
        largest = max(_bytes_of(info) for info in self.slices)
        self._cache_size = max(1, int(cache_gib * 2**30 / largest))
        self._load_cached = functools.lru_cache(self._cache_size)(self._load)

    def images(self, number: int, frames: Sequence[int]) -> Complex64[np.ndarray, "f n h w"]:
        """Coil images of some frames of a slice; see `SliceSource`."""
        images = self._load_cached(number).images
        return images if list(frames) == list(range(len(images))) else images[list(frames)]

    def sens(self, number: int) -> Complex64[np.ndarray, "*t n h w"] | None:
        """Sensitivities of a slice, for each frame if they change; ``None`` for a single coil.

        Raises:
            DataError: If they cannot be estimated.
        """
        loaded, info = self._load_cached(number), self.slices[number]
        with maps_of(f"{info.source} [{info.name}]"):
            return loaded.sens

    def sens_method(self, number: int) -> str | None:
        """How they were estimated; ``None`` if the file has its own, or a single coil."""
        return None if self._load_cached(number).estimate is None else self._sens

    def acquired(self, number: int) -> Float32[np.ndarray, "t h w"] | None:
        """Which samples the scanner took; see `SliceSource`."""
        return self._load_cached(number).acquired

    def __getstate__(self) -> dict:
        return {name: value for name, value in vars(self).items() if name != "_load_cached"}

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state)  # a worker process starts with an empty cache
        self._load_cached = functools.lru_cache(self._cache_size)(self._load)

    def _load(self, number: int) -> _Loaded:
        file, z = self._places[number]
        case = file[z]
        images = ifft2c(case.kspace)
        acquired = None if case.meta.fully_sampled and case.mask.all() else case.mask
        if case.n_coils == 1:
            return _Loaded(images, acquired=acquired)
        if case.sens is not None:
            return _Loaded(images, given=case.sens, acquired=acquired)
        return _Loaded(images, estimate=self._estimator(case), acquired=acquired)

    def _estimator(self, case: CineCase) -> Callable[[], Complex64[np.ndarray, "n h w"]]:
        """What estimates the maps of a slice, and keeps no more than that takes."""
        options = {"method": self._sens, "cache_dir": self._sens_cache}
        if not case.meta.fully_sampled:
            average, measured = measured_average(case.kspace, case.mask)
            return functools.partial(cached_sens, average[None], measured[None], **options)
        rows = case.shape[-2]
        cropped = rows if self._crop_rows is None else min(self._crop_rows, rows)
        acs = min(rows, round(self._acs * rows / cropped))
        return functools.partial(central_sens, case.kspace.mean(axis=0), acs=acs, **options)


def _bytes_of(info: SliceInfo) -> int:
    """Memory of a slice: of several coils, maps and what they are estimated from are as large as
    a frame each, and the mask of an undersampled one is half as large as a coil's images.
    """
    t, n, h, w = info.shape
    images = (t + 2 * (n > 1)) * n * h * w * np.dtype(np.complex64).itemsize
    return images + info.undersampled * t * h * w * np.dtype(np.float32).itemsize


def _all_slices(
    files: Sequence[CineFile | str | Path],
    acs: int,
    simulation: Simulation | None,
    undersampled: bool,
) -> list[tuple[CineFile, int]]:
    """All slices of all files in order, refusing files that cannot be trained on."""
    slices = []
    options = ReadOptions(simulation=simulation or Simulation())
    opened = ([f] if isinstance(f, CineFile) else open_files(f, options) for f in files)
    for file in itertools.chain.from_iterable(opened):
        path = file.path
        if not file.fully_sampled and not undersampled:
            fix = (
                "leave it out, or give its folder (find_full in Python), which leaves out its like"
            )
            raise DataError(path, "fully sampled k-space", f"undersampled {file.key!r}", fix)
        few = acs < MIN_CALIBRATION_LINES and file.fully_sampled
        if few and file.slice_shape[1] > 1 and file[0].sens is None:
            least = f"acs >= {MIN_CALIBRATION_LINES}"
            raise ValueError(f"{path}: calibrating several coils needs {least}, got {acs=}")
        slices += [(file, z) for z in range(len(file))]
    if not slices:
        raise DataError("files", "at least one cine file", "an empty list")
    return slices


def _infos(places: Sequence[tuple[CineFile, int]], root: Path | None) -> Iterator[SliceInfo]:
    """What is known of slices, those of a file together."""
    for file, slices in itertools.groupby(places, key=lambda place: place[0]):
        subject, view = identify(file, root or file.path.parent)
        for _, z in slices:
            yield SliceInfo(
                name=file.slice_name(z),
                subject=subject,
                view=view,
                shape=file.slice_shape,
                simulation=file.simulation,
                source=str(file.path),
                slice_index=file.slice_index(z),
                pixel_mm=file.pixel_mm,
                undersampled=not file.fully_sampled,
            )
