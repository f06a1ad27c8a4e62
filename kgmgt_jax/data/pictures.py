"""Picture of one case: where it was sampled, its coils, the zero-filled and the reference image."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Complex64, Num
from matplotlib.figure import Figure

from kgmgt_jax.data.atomic import write_atomically
from kgmgt_jax.data.case import CineCase, pixel_aspect
from kgmgt_jax.data.transforms import coil_combine, ifft2c, rss
from kgmgt_jax.mri.coils import estimate_sens

__all__ = ["case_figure"]

_MOST_COILS, _COILS_A_ROW = 10, 5
_WINDOW_PERCENTILE = 99.5


def case_figure(path: str | Path, case: CineCase) -> Path:
    """Draws a case: mask over time and of the first frame, images, coil maps by magnitude.

    The images show the first frame in one grey window. The reference is the case's own, or that
    of the fully sampled k-space; an undersampled file has none. Maps that the file lacks are
    estimated, see `estimate_sens`, if its lines allow.

    Args:
        path: PNG file to write, whole or not at all.
        case: What to draw.

    Returns:
        ``path``.
    """
    sens, origin = _sens(case)
    coil_images = ifft2c(case.kspace[:1].copy())
    first = coil_images[0]
    combined = rss(first) if sens is None else np.abs(coil_combine(first, sens))
    maps = () if sens is None else np.abs(sens[:_MOST_COILS])
    aspect = pixel_aspect(case.meta.pixel_mm)
    h, w = case.mask.shape[1:]
    figure, panels = _layout(len(maps), aspect * h / w)
    _show(panels[0], case.mask.max(axis=2), "mask: frames down, ky across", 1.0, "auto")
    _show(panels[1], case.mask[0], "mask of frame 0", 1.0, "auto")
    _draw_images(panels, combined, _reference(case, combined), aspect)
    for i, (axes, one) in enumerate(zip(panels[4:], maps, strict=True)):
        _show(axes, one, f"coil {i}, {origin}" if i == 0 else f"coil {i}", None, aspect)
    label = ", simulated" if case.meta.simulated else ""
    figure.suptitle(
        f"{case.meta.name} ({case.meta.format}{label}): {case.n_frames} frames, "
        f"{case.n_coils} coils, true R {case.true_acceleration:.2f}",
        fontsize=9,
        parse_math=False,  # names may have dollar signs
    )
    return write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=130))


def _layout(n_maps: int, shape: float) -> tuple[Figure, list[Any]]:
    """Four panels in a row and one for each map below; ``shape`` is an image's height / width."""
    n_rows = -(-n_maps // _COILS_A_ROW)
    heights = [min(3.0, 2.4 * shape) + 0.5]
    if n_rows:
        heights.append(n_rows * (min(2.6, 1.9 * shape) + 0.25))
    figure = Figure(figsize=(10, sum(heights) + 0.2), layout="constrained")
    parts = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    panels = list(parts[0].subplots(1, 4))
    if n_rows:
        maps = parts[1].subplots(n_rows, _COILS_A_ROW, squeeze=False).ravel()
        for unused in maps[n_maps:]:
            unused.remove()
        panels += list(maps[:n_maps])
    return figure, panels


def _sens(case: CineCase) -> tuple[Complex64[np.ndarray, "n h w"] | None, str]:
    """Maps of the first frame and where they come from; ``None`` for one coil or too few lines."""
    if case.sens is not None:
        return (case.sens[0] if case.sens.ndim == 4 else case.sens), "given"
    if case.n_coils == 1:
        return None, ""
    try:
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            sens = estimate_sens(jnp.asarray(case.kspace), jnp.asarray(case.mask))
    except ValueError:
        return None, ""
    return np.asarray(sens), "estimated"


def _reference(case: CineCase, combined: Num[np.ndarray, "h w"]) -> Num[np.ndarray, "..."] | None:
    if case.reference is not None:
        return np.abs(case.reference[0])
    return combined if case.mask.all() else None


def _draw_images(
    row: Sequence[Any],
    combined: Num[np.ndarray, "h w"],
    reference: np.ndarray | None,
    aspect: float,
) -> None:
    shown = combined if reference is None else reference
    window = float(np.percentile(shown, _WINDOW_PERCENTILE)) or None
    _show(row[2], combined, "zero-filled", window, aspect)
    row[3].set_axis_off()
    if reference is None:
        row[3].text(0.5, 0.5, "no reference\nin the file", ha="center", va="center", fontsize=8)
    else:
        _show(row[3], reference, "reference", window, aspect)


def _show(axes: Any, image: np.ndarray, title: str, top: float | None, aspect: float | str) -> None:
    axes.set_axis_off()
    axes.imshow(image, cmap="gray", vmin=0, vmax=top, aspect=aspect, interpolation="nearest")
    axes.set_title(title, fontsize=7)
