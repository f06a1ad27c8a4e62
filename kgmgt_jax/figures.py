"""Pictures of reconstructed cines: the comparison figure of a paper.

A comparison of images is fair only if nothing is rescaled in between: all panels share one grey
window, all error maps one gain, and the profiles run along one line through the heart.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Num
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from kgmgt_jax.data.atomic import write_atomically
from kgmgt_jax.heart import HeartLine, heart_line
from kgmgt_jax.metrics import evaluate

__all__ = [
    "FONT",
    "Cine",
    "check_suffix",
    "cine_magnitudes",
    "comparison_figure",
    "grey_window",
]

Cine = Num[Array | np.ndarray, "t h w"]

PRESET = "frame"
WINDOW_PERCENTILE = 99.5
FONT = "DejaVu Sans"  # comes with matplotlib
BACKGROUND, TEXT, MUTED, ACCENT = "#0b0d10", "#e8eaed", "#9aa0a6", "#4fc3f7"
ERROR_MAP, ERROR_GAIN = "inferno", 5.0

PANEL_WIDTH, PROFILE_HEIGHT, GAP, MARGIN = 1.75, 0.8, 0.06, 0.08  # inches, as the next line
TITLE, HEADING, CAPTION, BAR_WIDTH, BAR_SPACE = 0.17, 0.20, 0.22, 0.07, 0.45
LETTER = 0.068  # width of an average letter of the title, generously
SLIMMEST, TALLEST = 0.3, 1.8  # bounds on height / width of an image's box
DPI = 250


class _Panel(NamedTuple):
    """One column of the figure: frames, what is said above and below, and colours."""

    heading: str
    frames: Float[np.ndarray, "t h w"]
    caption: str = ""
    cmap: str = "gray"


class _View(NamedTuple):
    """What all panels of a figure share."""

    line: HeartLine
    window: float
    frame: int
    aspect: float
    title: str
    note: str


def comparison_figure(
    path: str | Path,
    reconstruction: Cine,
    *,
    zero_filled: Cine,
    reference: Cine | None = None,
    title: str = "",
    aspect: float = 1.0,
) -> Path:
    """Draw reference, zero-filled, reconstruction and error maps, each above its y-t profile.

    Magnitudes are shown in one grey window, black at 0 and white at the 99.5th percentile of the
    reference. Error maps show ``5 · ||reference| - |image||`` up to the same white level.
    The profiles follow `heart.heart_line` (drawn in the first panel) over all
    frames; a tick marks the frame shown, a third of the cine, which is near end-systole where it
    starts at end-diastole. PSNR, SSIM and NMSE are means over all frames under the preset
    ``frame``. Without a reference there are two panels, no scores, and the reconstruction sets the
    window.

    Args:
        path: PNG file to write, whole or not at all; its folder is made if need be.
        reconstruction: complex or real frames; at least 7x7 pixels if there is a reference.
        zero_filled: frames of the same shape, on the same scale.
        reference: fully sampled frames of the same shape, on the same scale, if there are any.
        title: stands top left.
        aspect: > 0, height / width of a pixel.

    Returns:
        ``path`` as a Path.

    Raises:
        ValueError: if shapes differ or are not ``(t, h, w)``, a value is not finite, the aspect is
            not positive, the file is no PNG, or the reference has an empty frame or fewer than 7x7
            pixels.
    """
    cines = {"reconstruction": reconstruction, "zero_filled": zero_filled}
    cines = cine_magnitudes(cines if reference is None else {"reference": reference, **cines})
    check_suffix(path, ".png")
    if not aspect > 0:
        raise ValueError(f"expected a positive aspect, got {aspect=}")
    n_frames = len(cines["reconstruction"])
    frames = "1 frame" if n_frames == 1 else f"mean of {n_frames} frames"
    note = "" if reference is None else f"scores: {frames}, preset {PRESET}"
    truth = cines.get("reference", cines["reconstruction"])
    view = _View(heart_line(truth), grey_window(truth), n_frames // 3, aspect, title, note)
    figure = _draw(_panels(cines), view)
    return write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=DPI))


def grey_window(magnitude: Float[np.ndarray, "t h w"]) -> float:
    """The white level of a cine: its 99.5th percentile, else its maximum, else 1; always > 0."""
    return float(np.percentile(magnitude, WINDOW_PERCENTILE) or magnitude.max() or 1)


def cine_magnitudes(cines: Mapping[str, Cine]) -> dict[str, Float[np.ndarray, "t h w"]]:
    """Absolute values in float32, checked: one shape (t, h, w), finite."""
    if not cines:
        raise ValueError("expected at least one cine, got none")
    magnitudes = {name: np.abs(np.asarray(cine)).astype(np.float32) for name, cine in cines.items()}
    shapes = {name: cine.shape for name, cine in magnitudes.items()}
    first = next(iter(shapes.values()))
    if len(first) != 3 or 0 in first or set(shapes.values()) != {first}:
        raise ValueError(f"expected cines of one shape (t, h, w), none of it 0, got {shapes}")
    broken = [name for name, cine in magnitudes.items() if not np.isfinite(cine).all()]
    if broken:
        raise ValueError(f"expected finite cines, got NaN or infinity in {', '.join(broken)}")
    return magnitudes


def check_suffix(path: str | Path, suffix: str) -> None:
    """Raises ``ValueError`` for a name that ends otherwise."""
    if Path(path).suffix.lower() != suffix:
        raise ValueError(f"expected a file name that ends in {suffix}, got {str(path)!r}")


def _panels(cines: dict[str, Float[np.ndarray, "t h w"]]) -> list[_Panel]:
    """The columns of the figure, from left to right."""
    images = {"zero-filled": cines["zero_filled"], "reconstruction": cines["reconstruction"]}
    if "reference" not in cines:
        return [_Panel(name, cine) for name, cine in images.items()]
    reference, shown, errors = cines["reference"], [], []
    for name, cine in images.items():
        scores = {key: float(np.mean(x)) for key, x in evaluate(reference, cine, PRESET).items()}
        quality = f"{scores['psnr']:.2f} dB   SSIM {scores['ssim']:.4f}".replace("inf", "∞")
        shown.append(_Panel(name, cine, quality))
        heading = f"{ERROR_GAIN:g} × |error|, {name}"  # noqa: RUF001
        caption = f"NMSE {scores['nmse']:.5f}"
        errors.append(_Panel(heading, ERROR_GAIN * np.abs(reference - cine), caption, ERROR_MAP))
    return [_Panel("reference", reference, "PSNR   SSIM"), *shown, *errors]


def _draw(panels: list[_Panel], view: _View) -> Figure:
    """Lay out headings, images, profiles, captions and the error maps' colour bar."""
    h, w = panels[0].frames.shape[1:]
    with_errors = any(panel.cmap == ERROR_MAP for panel in panels)
    tall = PANEL_WIDTH * min(max(view.aspect * h / w, SLIMMEST), TALLEST)
    low = CAPTION if with_errors else MARGIN
    high = low + PROFILE_HEIGHT + GAP
    height = high + tall + HEADING + (TITLE if view.title or view.note else 0)
    right = MARGIN + len(panels) * (PANEL_WIDTH + GAP) - GAP
    figure = Figure((right + (BAR_SPACE if with_errors else MARGIN), height), facecolor=BACKGROUND)
    for index, panel in enumerate(panels):
        left = MARGIN + index * (PANEL_WIDTH + GAP)
        image = _axes(figure, left, high, PANEL_WIDTH, tall)
        _draw_panel(image, _axes(figure, left, low, PANEL_WIDTH, PROFILE_HEIGHT), panel, view)
    column, start, stop = view.line
    figure.axes[0].vlines(column, start - 0.5, stop - 0.5, colors=ACCENT, linewidth=0.8)
    if with_errors:
        _draw_bar(_axes(figure, right + GAP, high, BAR_WIDTH, tall))
    room = right - MARGIN - LETTER * len(view.note)
    size = min(7.5, 7.5 * room / (LETTER * max(len(view.title), 1)))
    top = {"y": 1 - 0.06 / height, "va": "top", "parse_math": False}  # names may have dollar signs
    figure.text(x=MARGIN / figure.get_figwidth(), s=view.title, c=TEXT, size=size, **top)
    end = right / figure.get_figwidth()
    figure.text(x=end, s=view.note, c=MUTED, size=7.5, ha="right", **top)
    return figure


def _axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes without frame or ticks, placed in inches."""
    full_width, full_height = figure.get_size_inches()
    box = (left / full_width, bottom / full_height, width / full_width, height / full_height)
    axes = figure.add_axes(box, facecolor="black", xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    return axes


def _draw_panel(image: Axes, profile: Axes, panel: _Panel, view: _View) -> None:
    """The frame shown with its heading, and the profile over all frames with its caption."""
    column, start, stop = view.line
    limits = {"cmap": panel.cmap, "vmin": 0, "vmax": view.window}
    image.imshow(panel.frames[view.frame], aspect=view.aspect, **limits)
    image.set_adjustable("datalim")  # a box of another shape is filled up in black
    image.set_title(panel.heading, color=TEXT, fontsize=7.5, pad=3, parse_math=False)
    values = panel.frames[:, start:stop, column].T  # y t
    profile.imshow(values, aspect="auto", interpolation="nearest", **limits)
    profile.set_xlabel(panel.caption, color=TEXT, fontsize=7, labelpad=3)
    marker = {"color": ACCENT, "markersize": 3, "markeredgewidth": 0, "clip_on": False}
    profile.plot(view.frame, 1.02, "v", transform=profile.get_xaxis_transform(), **marker)


def _draw_bar(axes: Axes) -> None:
    """The colours of the error maps, in percent of the white level."""
    largest = 100 / ERROR_GAIN
    colours = ScalarMappable(Normalize(0, largest), ERROR_MAP)
    bar = axes.figure.colorbar(colours, axes, ticks=np.linspace(0, largest, 5), format="%.3g %%")
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=6, labelcolor=MUTED, length=0, pad=2)
