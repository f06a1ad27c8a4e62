"""A cine that varies little in time."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Complex64

from kgmgt_jax.classical.solvers import OVER_RELAXATION
from kgmgt_jax.classical.total_variation import TEMPORAL_ANCHOR, TEMPORAL_PENALTY
from kgmgt_jax.data.filling.encoding import Encoding, Images, Kspace, Mask, conjugate_gradients
from kgmgt_jax.data.filling.shrinkage import shrink

__all__ = ["little_variation"]

Solver = Callable[[np.ndarray, np.ndarray], np.ndarray]  # of right-hand side and last image

# stopped early, which scores as well
N_DIRECTIONS, N_CG_STEPS = 15, 3
WEIGHT = 0.005
_PENALTY = np.float32(TEMPORAL_PENALTY * WEIGHT)
_ANCHOR = TEMPORAL_ANCHOR * _PENALTY
_THRESHOLD = 1 / TEMPORAL_PENALTY  # of the 99th percentile of the mean image


def little_variation(
    kspace: Kspace, mask: Mask, start: Images, encoding: Encoding, circular: bool
) -> Images:
    """The cine whose pixels change in few, sharp steps.

    The minimisation of `temporal_tv`, a fixed number of steps of it. Without
    maps the frames of each sample, or of each line, are a linear system of their own.

    Args:
        kspace, mask, circular: See `fill_gaps`.
        start: First estimate.
        encoding: From images to ``kspace``.
    """
    n_frames = len(kspace)
    difference = np.roll(np.eye(n_frames), 1, axis=1) - np.eye(n_frames)
    if not circular:
        difference[-1] = 0
    curvature = _PENALTY * difference.T @ difference + _ANCHOR * np.eye(n_frames)
    adjoint, forward, curvature = (
        matrix.astype(np.complex64) for matrix in (_PENALTY * difference.T, difference, curvature)
    )
    threshold = np.float32(_THRESHOLD * np.percentile(np.abs(start.mean(axis=0)), 99.0))
    measured = encoding.to_image(kspace)
    if encoding.sens is None:
        solve = _exact_solver(mask, curvature, kspace.shape, encoding)
    else:
        solve = _gradient_solver(mask, curvature, encoding)
    image, course = start, _in_time(forward, start)
    for _ in range(N_DIRECTIONS):
        settled = shrink(course, threshold)
        rhs = measured + _in_time(adjoint, 2 * settled - course) + _ANCHOR * image
        image = solve(rhs, image)
        course += OVER_RELAXATION * (_in_time(forward, image) - settled)
    return image


def _in_time(matrix: Complex64[np.ndarray, "t t"], image: Images) -> Images:
    """The product of a matrix with the course of each pixel."""
    return np.tensordot(matrix, image, axes=1)


def _exact_solver(
    mask: Mask, curvature: Complex64[np.ndarray, "t t"], shape: tuple[int, ...], encoding: Encoding
) -> Solver:
    """Solves ``(E^H E + R) x = b`` for one coil: each sample's frames by themselves."""
    n_frames, _, height, _ = shape
    systems = np.broadcast_to(mask, (n_frames, height, mask.shape[-1])).reshape(n_frames, -1).T
    inverse = np.linalg.inv(curvature + systems[..., None] * np.eye(n_frames, dtype=np.float32))

    def solve(rhs: np.ndarray, image: np.ndarray) -> np.ndarray:
        samples = encoding.to_kspace(rhs).reshape(n_frames, len(systems), -1).swapaxes(0, 1)
        return encoding.to_image((inverse @ samples).swapaxes(0, 1).reshape(shape))

    return solve


def _gradient_solver(
    mask: Mask, curvature: Complex64[np.ndarray, "t t"], encoding: Encoding
) -> Solver:
    """Some steps towards that of several coils, from the last image."""

    def normal(image: np.ndarray) -> np.ndarray:
        return encoding.normal(image, mask) + _in_time(curvature, image)

    return lambda rhs, image: conjugate_gradients(normal, rhs, image, N_CG_STEPS)
