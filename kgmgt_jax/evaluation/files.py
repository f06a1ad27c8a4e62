"""Reconstructing a user's file."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Complex64, Float32
from tqdm import tqdm

import kgmgt_jax
from kgmgt_jax.data.case import CaseMeta, CineCase, pixel_aspect
from kgmgt_jax.data.doubts import doubts
from kgmgt_jax.data.formats import CineFile, read_file
from kgmgt_jax.data.formats.compressed import with_virtual_coils
from kgmgt_jax.data.sens_cache import missing_sens
from kgmgt_jax.data.transforms import central, ifft2c, rss
from kgmgt_jax.evaluation.geometry import Geometry, read_geometry
from kgmgt_jax.evaluation.gif import cine_gif
from kgmgt_jax.evaluation.methods import Method
from kgmgt_jax.evaluation.outputs import (
    ImageVolume,
    check_outputs,
    consistent_images,
    write_outputs,
)
from kgmgt_jax.evaluation.references import read_references
from kgmgt_jax.evaluation.tables import format_table, write_metrics_json
from kgmgt_jax.figures import comparison_figure
from kgmgt_jax.metrics import evaluate

__all__ = ["Reconstructed", "reconstruct_case", "reconstruct_file"]

_PRESET = "frame"


class Reconstructed(NamedTuple):
    """Images of a slice, in the units of the file.

    Attributes:
        image: complex, coil-combined.
        magnitude: what a fully sampled scan is compared by.
        zero_filled: magnitude of the measured samples alone, coils combined as in ``magnitude``.
    """

    image: Complex64[np.ndarray, "t h w"]
    magnitude: Float32[np.ndarray, "t h w"]
    zero_filled: Float32[np.ndarray, "t h w"]


def reconstruct_case(
    case: CineCase, method: Method, progress: Callable[[int], Any] | None = None
) -> Reconstructed:
    """Reconstructs a slice; every measured sample is kept, see `consistent_images`.

    A cine of one frame is its own reference. Sensitivities that the file lacks are estimated from
    the calibration lines of the time average.

    Args:
        case: undersampled k-space, of a file read with ``virtual_coils=method.virtual_coils``.
        method: the network.
        progress: called with the number of frames done after each.
    """
    sens = missing_sens(case, method.sens)
    image = method.reconstruct(case.kspace, case.mask, sens, progress)
    kept = consistent_images(image, case.kspace, case.mask, sens)
    return Reconstructed(*kept, rss(ifft2c(case.kspace)))


def reconstruct_file(
    path: str | Path,
    method: Method,
    out: str | Path,
    mask: str | Path | None = None,
    reference: str | Path | None = None,
    *,
    key: str | None = None,
    axes: str | None = None,
    formats: Sequence[str] = ("mat",),
    template: str | Path | None = None,
    reverse_slices: bool = False,
    readout: int | None = None,
) -> str:
    """Reconstructs every slice of a file; writes images, a figure and a GIF.

    Images have the units and orientation of the input; see `outputs` for the formats. Pictures
    show the middle slice. Nothing is written before all of it is there.

    Args:
        path: undersampled k-space.
        method: the network.
        out: folder for what is written.
        mask: mask file, where it does not lie beside ``path``.
        reference: the fully sampled file, for metrics.
        key: dataset that holds the k-space, where no known format names it.
        axes: order of its axes, e.g. ``"kx,ky,coil"``.
        formats: of the images, see `write_outputs`.
        template: DICOM series or NIfTI file whose geometry is taken over.
        reverse_slices: see `read_geometry`.
        readout: central columns of the images to keep, of an oversampled readout; ``None`` for all.

    Returns:
        What was done and written, to print.

    Raises:
        DataError: if a file cannot be used.
        ValueError: if something cannot be written, or there are fewer columns than ``readout``.
    """
    whole = read_file(path, mask=mask, key=key, axes=axes)
    file = with_virtual_coils(whole, method.virtual_coils)
    t, _, h, w = file.slice_shape
    columns = _columns(w, readout)
    shape = (t, len(file), h, columns.stop - columns.start)
    geometry = None if template is None else read_geometry(template, shape, reverse=reverse_slices)
    check_outputs(out, formats, geometry)
    references = None
    if reference is not None:  # before there are hours of work to lose
        references = read_references(reference, whole, columns, key=key, axes=axes)
    done = _reconstruct_slices(file, method, columns)

    name, out = _name_of(path), Path(out)
    lines = [f"{path}: {len(file)} slices, true acceleration {done.accelerations}"]
    lines += [f"note: {note}" for note in done.notes]
    if {"nii", "dicom"} & set(formats):
        lines += [f"note: {note}" for note in _about_geometry(geometry, done)]
    origin = {
        "source": str(path),
        "key": done.meta.key,
        "mask": done.meta.mask_source,
        "simulation": done.meta.simulation,
        "checkpoint": method.source,
        "self_ensemble": method.self_ensemble,
        "virtual_coils": 0 if file is whole else file.slice_shape[1],
        "version": kgmgt_jax.__version__,
    }
    pixel_mm = geometry.pixel_mm if geometry else done.meta.pixel_mm
    volume = ImageVolume(
        np.stack([each.image for each in done.slices], axis=1),
        np.stack([each.magnitude for each in done.slices], axis=1),
        f"{method.name}{done.simulated}, true acceleration {done.accelerations}",
        pixel_mm=pixel_mm,
        frame_seconds=(geometry and geometry.frame_seconds) or done.meta.frame_seconds,
        attributes={
            "true_acceleration": done.acceleration,
            "nominal_acceleration": done.meta.nominal_acceleration,
            **origin,
        },
    )
    written = write_outputs(out, name, volume, formats, geometry=geometry)
    scores = out / f"{name}_metrics.json"
    if references is None:
        scores.unlink(missing_ok=True)  # of another run
    else:
        origin = {"reference": str(reference), **origin}
        lines.append(_write_scores(scores, done, references, method.name, origin))
        written.append(scores)
    written += _draw_middle(out, name, done, references, method.name, pixel_aspect(pixel_mm))
    return "\n".join([*lines, *map(str, written)])


class _Done(NamedTuple):
    """All slices of a file.

    Attributes:
        slices: their images.
        true: true acceleration of each.
        meta: of the first.
        notes: what a user should know.
    """

    slices: list[Reconstructed]
    true: list[float]
    meta: CaseMeta
    notes: list[str]

    @property
    def acceleration(self) -> float:
        """Mean true acceleration."""
        return float(np.mean(self.true))

    @property
    def accelerations(self) -> str:
        """Those of all slices, in words."""
        least, most = f"{min(self.true):.2f}", f"{max(self.true):.2f}"
        return least if least == most else f"{least} to {most}"

    @property
    def simulated(self) -> str:
        """What titles say of simulated k-space."""
        return " of simulated k-space" if self.meta.simulated else ""


def _columns(width: int, kept: int | None) -> slice:
    """Central columns of images of this width."""
    kept = width if kept is None else kept
    if not 1 <= kept <= width:
        raise ValueError(f"expected readout from 1 to the {width} columns there are, got {kept}")
    return central(width, kept)


def _about_geometry(geometry: Geometry | None, done: _Done) -> list[str]:
    """What to say of where images lie."""
    meta = done.meta
    known = {
        "position": geometry,
        "pixel size": geometry or meta.pixel_mm,
        "time between frames": (geometry and geometry.frame_seconds) or meta.frame_seconds,
    }
    unknown = " and ".join(what for what, value in known.items() if not value)
    fix = "" if geometry else "; --template has them"
    notes = [f"{unknown} unknown and made up or left out{fix}"] if unknown else []
    if len(done.slices) > 1 and not meta.is_stack:
        notes.append("slices are not parallel: no volume holds their positions")
    if geometry is None:
        return notes
    if meta.orientation.startswith("rows to") and meta.orientation != geometry.orientation:
        both = f"the template has {geometry.orientation}, the input {meta.orientation}"
        notes.append(f"{both}: images lie turned or mirrored in the patient")
    return notes + list(geometry.notes)


def _reconstruct_slices(file: CineFile, method: Method, columns: slice) -> _Done:
    slices, true, metas, notes = [], [], [], []
    total = len(file) * file.slice_shape[0]
    with tqdm(
        total=total, desc="reconstruct", unit="frame", dynamic_ncols=True, mininterval=1
    ) as bar:
        for case in file:
            notes += doubts(case)
            notes += [f"{case.meta.name}: {n}" for n in case.meta.notes if n not in file.notes]
            if case.mask.all():
                notes.append(f"{case.meta.source} [{case.meta.name}]: every sample is measured")
            whole = reconstruct_case(case, method, bar.update)
            slices.append(Reconstructed(*(images[..., columns] for images in whole)))
            true.append(case.true_acceleration)
            metas.append(case.meta)
    if metas[0].simulated:
        notes.append(metas[0].simulation)
    return _Done(slices, true, metas[0], notes)


def _write_scores(
    path: Path,
    done: _Done,
    references: Sequence[Float32[np.ndarray, "t h w"]],
    name: str,
    origin: dict[str, Any],
) -> str:
    """Writes the scores of every slice; returns their table."""
    scores = {
        f"slice{z}": {
            "zero_filled": evaluate(reference, each.zero_filled, _PRESET),
            name: evaluate(reference, each.magnitude, _PRESET),
        }
        for z, (reference, each) in enumerate(zip(references, done.slices, strict=True))
    }
    acceleration = {"nominal": done.meta.nominal_acceleration, "true": done.acceleration}
    return format_table(
        write_metrics_json(path, scores, preset=_PRESET, acceleration=acceleration, **origin)
    )


def _draw_middle(
    out: Path,
    name: str,
    done: _Done,
    references: Sequence[Float32[np.ndarray, "t h w"]] | None,
    method: str,
    aspect: float,
) -> list[Path]:
    """A figure and a GIF of the middle slice."""
    z = len(done.slices) // 2
    images, reference = done.slices[z], None if references is None else references[z]
    figure = comparison_figure(
        out / f"{name}.png",
        images.magnitude,
        zero_filled=images.zero_filled,
        reference=reference,
        title=f"{name}, slice {z}{done.simulated}, {done.true[z]:.2f}x",
        aspect=aspect,
    )
    panels = {} if reference is None else {"reference": reference}
    panels |= {"zero-filled": images.zero_filled, method: images.magnitude}
    return [figure, cine_gif(out / f"{name}.gif", panels, aspect=aspect)]


def _name_of(path: str | Path) -> str:
    """What outputs are called by: the name of the file without its suffix, or of the folder."""
    whole = Path(os.path.abspath(path))  # "." has no name
    return whole.name if whole.is_dir() else Path(whole.name.removesuffix(".gz")).stem
