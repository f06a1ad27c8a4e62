"""Filling the gaps of undersampled k-space from other frames, before the network sees it.

A frame's unmeasured samples are zero, or taken from where the cine measured them at another time:

==============  ==================================================================
``input_fill``  an unmeasured sample is
==============  ==================================================================
``zero``        0
``neighbours``  that of the frame nearest in time that measured it; the mean of two
                that are equally near
``average``     the mean of all frames that measured it
``sparse``      that of a cine with few temporal frequencies; see `sparse_in_time`
``low_rank``    that of a cine L+S, of low rank plus sparse in temporal frequency;
                with ``sens``, the only one that uses them, as its coil sees it
==============  ==================================================================

Where no frame measured, it stays 0, except that ``low_rank`` guesses there too. The heart moves
between frames, so filled samples are a guess: they are the network's input, never what data
consistency holds the result to.
"""

from collections.abc import Callable, Sequence

import numpy as np
import scipy.fft
from jaxtyping import Complex64, Float32, Shaped
from scipy.sparse.linalg import LinearOperator, cg

from kgmgt_jax.classical.low_rank import PENALTY
from kgmgt_jax.classical.solvers import OVER_RELAXATION

__all__ = [
    "INPUT_FILLS",
    "check_fill",
    "fill_gaps",
    "same_in_all_frames",
    "sparse_in_time",
]

INPUT_FILLS = ("zero", "neighbours", "average", "sparse", "low_rank")
_N_ITERATIONS = 10
_FIRST_THRESHOLD, _LAST_THRESHOLD = 0.2, 0.005  # of the 99th percentile of the mean image

# of L+S, stopped early, which scores as well
_N_DIRECTIONS, _N_CG_STEPS = 25, 2
_LOW_RANK_WEIGHT = _SPARSE_WEIGHT = 0.02
_PENALTY = PENALTY * _LOW_RANK_WEIGHT


def check_fill(input_fill: str) -> None:
    """Raises ``ValueError`` unless there is a way of filling by that name."""
    if input_fill not in INPUT_FILLS:
        raise ValueError(f"input_fill must be one of {', '.join(INPUT_FILLS)}, got {input_fill!r}")


def same_in_all_frames(mask: Shaped[np.ndarray, "t h w"]) -> bool:
    """Whether all frames measured the same samples, so that none can tell of another's gaps."""
    return bool((mask == mask[:1]).all())


def fill_gaps(
    kspace: Complex64[np.ndarray, "t n h w"],
    mask: Float32[np.ndarray, "t #h #w"],
    input_fill: str,
    *,
    sens: Complex64[np.ndarray, "*t n h w"] | None = None,
    centred: bool = True,
    circular: bool = True,
    axes: Sequence[int] = (-2, -1),
) -> Complex64[np.ndarray, "t n h w"]:
    """Fills what a frame did not measure from the other frames of the cine.

    Args:
        kspace: Measured k-space, zero where the mask is.
        mask: 1 where measured; an axis of length 1 stands for samples that are measured together.
        input_fill: See the table above.
        sens: Sensitivities of unit sum of squares, one set or one a frame, which ``low_rank``
            uses; ``None`` fills each coil by itself, as all others do.
        centred: Whether ``kspace`` is that of `fft2c`, else the plain DFT of images; it matters
            where ``sens`` is given.
        circular: Whether the last frame precedes the first.
        axes: Which axes of ``kspace`` are k-space, the others being image space already.

    Raises:
        ValueError: If ``input_fill`` is unknown, or ``sens`` has other coils or another size.
    """
    check_fill(input_fill)
    if sens is not None and sens.shape[-3:] != kspace.shape[1:]:
        raise ValueError(f"expected maps of the coils of kspace, got {kspace.shape=} {sens.shape=}")
    if input_fill == "zero":
        return kspace
    if input_fill == "sparse":
        return sparse_in_time(kspace, mask, axes)
    if input_fill == "low_rank":
        if sens is not None and centred:
            sens = scipy.fft.ifftshift(sens, axes)  # to where a plain DFT has the image
        return _low_rank_in_time(kspace, mask, sens, axes)
    gaps = mask[:, None] == 0
    if input_fill == "average":
        count = np.maximum(mask.sum(axis=0), 1)
        return np.where(gaps, (kspace.sum(axis=0) / count[None])[None], kspace)
    before, after = (frames[:, None] for frames in _nearest(mask, circular))
    one = np.take_along_axis(kspace, np.broadcast_to(before, kspace.shape), axis=0)
    other = np.take_along_axis(kspace, np.broadcast_to(after, kspace.shape), axis=0)
    return np.where(gaps, (one + other) / 2, kspace)


def sparse_in_time(
    kspace: Complex64[np.ndarray, "t n h w"],
    mask: Float32[np.ndarray, "t #h #w"],
    axes: Sequence[int] = (-2, -1),
) -> Complex64[np.ndarray, "t n h w"]:
    """Fills gaps so that few temporal frequencies make up each pixel's course.

    From the mean of the frames that measured a sample, accelerated iterations of::

        x <- F_t^H soft(F_t x),    then the measured samples of F x put back

    with the DFTs F over space and F_t over time. The threshold of ``soft`` falls geometrically and
    spares the temporal mean. Each coil is filled by itself. If all frames measured the same
    samples, time says nothing of the others and they stay 0.

    Args:
        kspace, mask, axes: See `fill_gaps`.

    Source: iterative soft thresholding with momentum, Beck and Teboulle, SIAM J. Imaging Sci. 2
    (2009); sparsity in x-f space, Lustig et al., Proc. ISMRM 14 (2006), 2420.
    """
    if same_in_all_frames(mask):
        return kspace
    measured = mask[:, None] > 0
    filled = fill_gaps(kspace, mask, "average")
    old = image = np.asarray(scipy.fft.ifftn(filled, axes=axes, norm="ortho"))
    scale = np.percentile(np.abs(image.mean(axis=0)), 99.0)
    thresholds = scale * np.geomspace(_FIRST_THRESHOLD, _LAST_THRESHOLD, _N_ITERATIONS)
    momentum = 1.0
    for threshold in thresholds.astype(np.float32):
        spectrum = np.asarray(scipy.fft.fft(image, axis=0, norm="ortho"))
        spectrum[1:] = _shrink(spectrum[1:], threshold)
        image = np.asarray(scipy.fft.ifft(spectrum, axis=0, norm="ortho", overwrite_x=True))
        filled = np.asarray(scipy.fft.fftn(image, axes=axes, norm="ortho", overwrite_x=True))
        np.copyto(filled, kspace, where=measured)
        new = np.asarray(scipy.fft.ifftn(filled, axes=axes, norm="ortho"))
        following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        image = new + np.float32((momentum - 1) / following) * (new - old)
        old, momentum = new, following
    return filled


def _low_rank_in_time(
    kspace: Complex64[np.ndarray, "t n h w"],
    mask: Float32[np.ndarray, "t #h #w"],
    sens: Complex64[np.ndarray, "*t n h w"] | None = None,
    axes: Sequence[int] = (-2, -1),
) -> Complex64[np.ndarray, "t n h w"]:
    """Fills gaps from the sum of a cine of low rank and one with few temporal frequencies.

    The minimisation of `kgmgt_jax.classical.low_rank_plus_sparse`, a fixed number of steps of it on
    the host; then the measured samples are put back. Without ``sens`` each coil is a cine by
    itself; with it they are one, and an unmeasured sample is what its coil would have seen of that.

    Args:
        kspace, mask, axes: See `fill_gaps`.
        sens: As there, in the places of the plain inverse DFT of ``kspace``.

    Source: L+S, Otazo et al., Magn Reson Med 73 (2015), 1125.
    """
    if sens is None:
        coils = [kspace[:, n : n + 1] for n in range(kspace.shape[1])]
        estimate = np.concatenate(
            [_low_rank_plus_sparse(coil, mask, None, axes) for coil in coils], axis=1
        )
    else:
        estimate = _low_rank_plus_sparse(kspace, mask, sens, axes)
    return np.where(mask[:, None] > 0, kspace, estimate)


def _low_rank_plus_sparse(
    kspace: Complex64[np.ndarray, "t n h w"],
    mask: Float32[np.ndarray, "t #h #w"],
    sens: Complex64[np.ndarray, "*t n h w"] | None,
    axes: Sequence[int],
) -> Complex64[np.ndarray, "t n h w"]:
    """K-space of L + S; variables as in ``kgmgt_jax.classical``."""
    sampled = mask[:, None]
    conjugate = None if sens is None else np.conj(sens)

    def to_kspace(image: np.ndarray) -> np.ndarray:
        coil_images = image[:, None] if sens is None else sens * image[:, None]
        return np.asarray(scipy.fft.fftn(coil_images, axes=axes, norm="ortho"))

    def to_image(kspace: np.ndarray) -> np.ndarray:
        coil_images = np.asarray(scipy.fft.ifftn(kspace, axes=axes, norm="ortho"))
        return coil_images[:, 0] if conjugate is None else (conjugate * coil_images).sum(axis=1)

    image = to_image(fill_gaps(kspace, mask, "average"))
    low_rank_threshold = _LOW_RANK_WEIGHT / _PENALTY * _singular_values(image)[0][-1]
    measured = to_image(kspace)
    sparse_threshold = np.float32(_SPARSE_WEIGHT / _PENALTY * np.abs(measured).max())
    half = np.float32(_PENALTY / 2)
    weight = 1 / (sampled + half)

    def closest(wanted: np.ndarray, start: np.ndarray) -> np.ndarray:
        """The image x of least ``||E x - y||^2 + half ||x - wanted||^2``.

        Exact without maps; with them some steps of conjugate gradients from ``start``.
        """
        if sens is None:
            return to_image(weight * (kspace + half * to_kspace(wanted)))
        return _conjugate_gradients(
            lambda x: to_image(sampled * to_kspace(x)) + half * x, measured + half * wanted, start
        )

    low_rank = np.repeat(image.mean(axis=0, keepdims=True), len(image), axis=0)
    sparse = image - low_rank
    for _ in range(_N_DIRECTIONS):
        settled = _shrink_singular_values(low_rank, low_rank_threshold)
        spectrum = _shrink(
            np.asarray(scipy.fft.fft(sparse, axis=0, norm="ortho")), sparse_threshold
        )
        moving = np.asarray(scipy.fft.ifft(spectrum, axis=0, norm="ortho", overwrite_x=True))
        wanted = 2 * (settled + moving) - low_rank - sparse
        image = closest(wanted, image)
        share = (image - wanted) / 2
        low_rank += OVER_RELAXATION * (settled - low_rank + share)
        sparse += OVER_RELAXATION * (moving - sparse + share)
    return to_kspace(image)


def _conjugate_gradients(
    operator: Callable[[np.ndarray], np.ndarray],
    rhs: Complex64[np.ndarray, "*d"],
    start: Complex64[np.ndarray, "*d"],
) -> Complex64[np.ndarray, "*d"]:
    """A few steps from ``start`` towards the solution of ``A x = b``."""

    def product(flat: np.ndarray) -> np.ndarray:
        return operator(flat.reshape(rhs.shape)).ravel()

    shape = (rhs.size, rhs.size)
    matrix = LinearOperator(shape, product, dtype=rhs.dtype)  # pyright: ignore[reportCallIssue]
    found, _ = cg(matrix, rhs.ravel(), start.ravel(), maxiter=_N_CG_STEPS)
    return found.reshape(rhs.shape)


def _shrink(
    values: Complex64[np.ndarray, "*d"], threshold: np.float32
) -> Complex64[np.ndarray, "*d"]:
    """Magnitudes less a threshold, 0 at least, phases kept."""
    return values * _share_left(np.abs(values), threshold)


def _share_left(sizes: np.ndarray, threshold: float | np.float32) -> np.ndarray:
    """What part of each size is left above a threshold; all of it where that is 0."""
    return 1 - threshold / np.maximum(sizes, threshold or 1.0)


def _singular_values(image: Complex64[np.ndarray, "t h w"]) -> tuple[np.ndarray, np.ndarray]:
    """Of the frames-by-pixels matrix: singular values, ascending, and left singular vectors."""
    matrix = image.reshape(len(image), -1)
    values, vectors = np.linalg.eigh((matrix @ matrix.conj().T).astype(np.complex128))
    return np.sqrt(np.maximum(values, 0)), vectors


def _shrink_singular_values(
    image: Complex64[np.ndarray, "t h w"], threshold: float
) -> Complex64[np.ndarray, "t h w"]:
    values, vectors = _singular_values(image)
    kept = vectors * _share_left(values, threshold)
    shrink = (kept @ vectors.conj().T).astype(np.complex64)
    return np.tensordot(shrink, image, axes=1)


def _nearest(mask: Float32[np.ndarray, "t h w"], circular: bool) -> tuple[np.ndarray, np.ndarray]:
    """The first and the last frame of those nearest in time that measured each sample.

    They are the same frame unless two are equally near.
    """
    n_frames = len(mask)
    distance = np.abs(np.arange(n_frames)[:, None] - np.arange(n_frames)[None, :])
    if circular:
        distance = np.minimum(distance, n_frames - distance)
    never = np.where(mask > 0, 0, n_frames).astype(np.int16)
    far = distance.astype(np.int16)[:, :, None, None] + never[None]  # t s h w
    last = n_frames - 1 - np.argmin(far[:, ::-1], axis=1)
    return np.argmin(far, axis=1), last
