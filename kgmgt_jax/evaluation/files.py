"""Reconstructing a user's file."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from kgmgt_jax.data.case import CineCase, DataError
from kgmgt_jax.data.formats import CineFile, read_file
from kgmgt_jax.data.matfile import write_mat
from kgmgt_jax.data.transforms import coil_combine, ifft2c
from kgmgt_jax.evaluation.evaluate import Method
from kgmgt_jax.evaluation.figures import cine_gif, comparison_figure
from kgmgt_jax.evaluation.tables import format_table, write_metrics_json
from kgmgt_jax.metrics import evaluate
from kgmgt_jax.mri.coils import estimate_sens

__all__ = ["reconstruct_case", "reconstruct_file"]

_KEY = "reconstruction"
_PRESET = "frame"


def reconstruct_case(
    case: CineCase, method: Method, progress=None
) -> tuple[np.ndarray, np.ndarray]:
    """Reconstruction and zero-filled images (t, h, w), complex, in the units of the file.

    A cine of one frame is its own reference. Sensitivities that the file lacks are estimated from
    the calibration lines of the time average.
    """
    sens = case.sens
    if sens is None and case.n_coils > 1:
        arrays = (jnp.asarray(case.kspace), jnp.asarray(case.mask))
        sens = np.asarray(estimate_sens(*arrays, method=method.sens))
    image = method.reconstruct(case.kspace, case.mask, sens, progress)
    return image, coil_combine(ifft2c(case.kspace), sens)


def reconstruct_file(
    path: str | Path,
    method: Method,
    out: str | Path,
    mask: str | Path | None = None,
    reference: str | Path | None = None,
    *,
    key: str | None = None,
    axes: str | None = None,
) -> str:
    """Reconstructs every slice of a file; writes images, a figure and a GIF.

    ``<name>_recon.mat`` (MATLAB v7.3) holds complex ``reconstruction``, h5py axes (t, z, ky, kx),
    in the units and orientation of the input. Pictures show the middle slice. Nothing is written
    before all of it is there.

    Args:
        path: undersampled k-space.
        method: the network.
        out: folder for what is written.
        mask: mask file, where it does not lie beside ``path``.
        reference: the fully sampled file, for metrics.
        key: dataset that holds the k-space, where no known format names it.
        axes: order of its axes, e.g. ``"kx,ky,coil"``.

    Returns:
        What was done and written, to print.

    Raises:
        DataError: if a file cannot be used.
    """
    file = read_file(path, mask=mask, key=key, axes=axes)
    truth = None if reference is None else _open_reference(reference, file)
    images, zero_filled = [], []
    total = len(file) * file.slice_shape[0]
    with tqdm(
        total=total, desc="reconstruct", unit="frame", dynamic_ncols=True, mininterval=1
    ) as bar:
        for case in file:
            image, start = reconstruct_case(case, method, bar.update)
            images.append(image)
            zero_filled.append(start)
    references = None if truth is None else [_root_sum_of_squares(case) for case in truth]

    acceleration = file[0].true_acceleration
    name, out = Path(path).stem, Path(out)
    lines = [f"{path}: {len(file)} slices, true acceleration {acceleration:.2f}"]
    written = [write_mat(out / f"{name}_recon.mat", _KEY, np.stack(images, axis=1))]
    if references is not None:
        scores = {
            f"slice{z}": {
                k: evaluate(references[z], np.abs(v), _PRESET)
                for k, v in (("zero_filled", zero_filled[z]), (method.name, images[z]))
            }
            for z in range(len(file))
        }
        metrics = write_metrics_json(
            out / f"{name}_metrics.json",
            scores,
            preset=_PRESET,
            acceleration={"nominal": file[0].meta.nominal_acceleration, "true": acceleration},
        )
        lines.append(format_table(metrics))
        written.append(out / f"{name}_metrics.json")
    z = len(file) // 2
    shown = None if references is None else references[z]
    title = f"{name}, slice {z}, {acceleration:.2f}x"
    written.append(
        comparison_figure(
            out / f"{name}.png",
            images[z],
            zero_filled=zero_filled[z],
            reference=shown,
            title=title,
        )
    )
    panels = {} if shown is None else {"reference": shown}
    panels |= {"zero-filled": zero_filled[z], method.name: images[z]}
    written.append(cine_gif(out / f"{name}.gif", panels))
    return "\n".join([*lines, *map(str, written)])


def _open_reference(path: str | Path, file: CineFile) -> CineFile:
    truth = read_file(path)
    if not truth.fully_sampled:
        raise DataError(path, "a fully sampled reference", f"undersampled {truth.key!r}")
    got, wanted = (len(truth), *truth.slice_shape), (len(file), *file.slice_shape)
    if got != wanted:
        raise DataError(path, f"slices and (t, n, ky, kx) = {wanted} as the input has", f"{got}")
    return truth


def _root_sum_of_squares(case: CineCase) -> np.ndarray:
    return np.sqrt(np.sum(np.abs(ifft2c(case.kspace)) ** 2, axis=1))
