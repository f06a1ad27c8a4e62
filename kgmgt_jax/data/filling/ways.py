"""All ways of filling, by name."""

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import scipy.fft
from jaxtyping import Complex64, Shaped

from kgmgt_jax.data.filling.averages import average, nearest_in_time
from kgmgt_jax.data.filling.encoding import Encoding, Images, Kspace, Mask
from kgmgt_jax.data.filling.local_low_rank import towards_local_low_rank
from kgmgt_jax.data.filling.low_rank import low_rank_plus_sparse
from kgmgt_jax.data.filling.sparse import sparse_in_time
from kgmgt_jax.data.filling.variation import little_variation

__all__ = [
    "INPUT_FILLS",
    "are_lines",
    "check_fill",
    "fill_gaps",
    "fill_measured",
    "same_in_all_frames",
]


def check_fill(input_fill: str) -> None:
    """Raises ``ValueError`` unless there is a way of filling by that name."""
    if input_fill not in INPUT_FILLS:
        raise ValueError(f"input_fill must be one of {', '.join(INPUT_FILLS)}, got {input_fill!r}")


def same_in_all_frames(mask: Shaped[np.ndarray, "t h w"]) -> bool:
    """Whether all frames measured the same samples, so that none can tell of another's gaps."""
    return bool((mask == mask[:1]).all())


def are_lines(mask: Shaped[np.ndarray, "t h w"]) -> bool:
    """Whether each line along the last axis was measured as a whole or not at all."""
    return bool((mask == mask[..., :1]).all())


def fill_gaps(
    kspace: Kspace,
    mask: Mask,
    input_fill: str,
    *,
    sens: Complex64[np.ndarray, "*t n h w"] | None = None,
    centred: bool = True,
    circular: bool = True,
    axes: Sequence[int] = (-2, -1),
) -> Kspace:
    """Fills what a frame did not measure from the other frames of the cine.

    Args:
        kspace: K-space of which only what was measured is looked at.
        mask: 1 where measured; an axis of length 1 stands for samples that are measured together.
        input_fill: See the table of this package.
        sens: Sensitivities of unit sum of squares, one set or one a frame, which ``low_rank`` and
            those below it in that table use; ``None`` fills each coil by itself, as all others do.
        centred: Whether ``kspace`` is that of `mri.fourier.fft2c`, else the plain DFT of images; it
            matters where ``sens`` is given.
        circular: Whether the last frame precedes the first.
        axes: Which axes of ``kspace`` are k-space, the others being image space already.

    Raises:
        ValueError: If ``input_fill`` is unknown, or the shapes are not those of one cine.
    """
    sizes = (kspace.shape[:1], *((1, size) for size in kspace.shape[2:]))
    if kspace.ndim != 4 or mask.shape not in itertools.product(*sizes):
        raise ValueError(
            f"expected kspace (t, n, h, w) and a mask (t, h, w), got {kspace.shape=} {mask.shape=}"
        )
    measured = np.where(mask[:, None] > 0, kspace, np.complex64(0))
    return fill_measured(
        measured, mask, input_fill, sens=sens, centred=centred, circular=circular, axes=axes
    )


def fill_measured(
    kspace: Kspace,
    mask: Mask,
    input_fill: str,
    *,
    sens: Complex64[np.ndarray, "*t n h w"] | None = None,
    centred: bool = True,
    circular: bool = True,
    axes: Sequence[int] = (-2, -1),
) -> Kspace:
    """As `fill_gaps`, of k-space that is zero already where nothing was measured."""
    check_fill(input_fill)
    if sens is not None and sens.shape[-3:] != kspace.shape[1:]:
        raise ValueError(f"expected maps of the coils of kspace, got {kspace.shape=} {sens.shape=}")
    if input_fill in _OF_EACH_COIL:
        return _OF_EACH_COIL[input_fill](kspace, mask, circular, axes)
    if sens is not None and centred:
        sens = scipy.fft.ifftshift(sens, axes)  # to where a plain DFT has the image
    # if all frames measured the same, what follows L+S brings 0.1 dB, and networks nothing
    way = _low_rank if same_in_all_frames(mask) else _OF_ALL_COILS[input_fill]
    shifted = axes if centred else ()
    if tuple(axes) == (-2, -1) and are_lines(mask):
        # whole lines: the transform along them is the same for all, so it stays out of the fitting
        lines = np.asarray(scipy.fft.ifft(kspace, axis=-1, norm="ortho"))
        encoding = Encoding((-2,), sens, shifted)
        filled = _of_all_coils(way, lines, mask[..., :1], encoding, circular)
        estimate = np.asarray(scipy.fft.fft(filled, axis=-1, norm="ortho"))
    else:
        estimate = _of_all_coils(way, kspace, mask, Encoding(axes, sens, shifted), circular)
    return np.where(mask[:, None] > 0, kspace, estimate)


def _of_all_coils(
    way: Callable[..., Kspace], kspace: Kspace, mask: Mask, encoding: Encoding, circular: bool
) -> Kspace:
    """All of k-space as a way guesses it, through maps or coil by coil."""
    parts = [kspace] if encoding.sens is not None else np.split(kspace, kspace.shape[1], axis=1)
    estimates = [
        way(part, mask, encoding.to_image(average(part, mask)), encoding, circular)
        for part in parts
    ]
    return np.concatenate(estimates, axis=1)


def _sparse(kspace: Kspace, mask: Mask, axes: Sequence[int]) -> Kspace:
    """Not where all frames measured the same: without time, sparsity in it says nothing."""
    return kspace if same_in_all_frames(mask) else sparse_in_time(kspace, mask, axes)


def _low_rank(
    kspace: Kspace, mask: Mask, start: Images, encoding: Encoding, circular: bool
) -> Kspace:
    return encoding.to_kspace(low_rank_plus_sparse(kspace, mask, start, encoding))


def _blended(
    kspace: Kspace, mask: Mask, start: Images, encoding: Encoding, circular: bool
) -> Kspace:
    """A sample that c frames measured is ``(a + c b) / (1 + c)``, a of L+S, b of little variation.

    That leaves about the least error (benchmarks/pretraining.md).
    """
    estimate = _low_rank(kspace, mask, start, encoding, circular)
    other = encoding.to_kspace(little_variation(kspace, mask, start, encoding, circular))
    count = mask.sum(axis=0)
    return estimate + count / (1 + count) * (other - estimate)


def _locally_low_rank(
    kspace: Kspace, mask: Mask, start: Images, encoding: Encoding, circular: bool
) -> Kspace:
    estimate = encoding.to_image(_blended(kspace, mask, start, encoding, circular))
    return encoding.to_kspace(towards_local_low_rank(kspace, mask, start, estimate, encoding))


_OF_EACH_COIL = {
    "zero": lambda kspace, mask, circular, axes: kspace,
    "neighbours": lambda kspace, mask, circular, axes: nearest_in_time(kspace, mask, circular),
    "average": lambda kspace, mask, circular, axes: average(kspace, mask),
    "sparse": lambda kspace, mask, circular, axes: _sparse(kspace, mask, axes),
}
_OF_ALL_COILS = {  # through their maps, where given
    "low_rank": _low_rank,
    "blended": _blended,
    "locally_low_rank": _locally_low_rank,
}
INPUT_FILLS = (*_OF_EACH_COIL, *_OF_ALL_COILS)
