"""Tiny problems, and reference solutions of them in NumPy: dense matrices in float64."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from kgmgt_jax import mri
from kgmgt_jax.classical import measurement

# Compiled: one compilation instead of one an operation.
forward, fft2c, ifft2c = (jax.jit(f) for f in (mri.forward, mri.fft2c, mri.ifft2c))
adjoint, data_scale = jax.jit(mri.adjoint), jax.jit(measurement.data_scale)
SHAPE = (4, 6, 5)
IDENTITY = [np.eye(size) for size in SHAPE]
CONVERGED = {"tolerance": 1e-6, "max_iterations": 300}


def complex_array(rng, *shape):
    return jnp.asarray((rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64))


@cache
def problem(n_coils=None, shape=SHAPE, seed=0):
    """Measured k-space of a smooth, moving cine, a mask of about half, maps of unit norm."""
    rng = np.random.default_rng(seed)
    t, y, x = np.meshgrid(*(np.arange(size) for size in shape), indexing="ij")
    image = 1 + np.exp(-((y - shape[1] / 2 - np.sin(2 * np.pi * t / shape[0])) ** 2) + 0.3j * x)
    image = image + 0.1 * np.asarray(complex_array(rng, *shape))
    mask = (rng.random(shape) < 0.5).astype(np.float32)
    mask[:, shape[1] // 2, shape[2] // 2] = 1
    sens = None
    if n_coils is not None:
        sens = np.asarray(complex_array(rng, n_coils, *shape[1:]))
        sens = jnp.asarray(sens / np.linalg.norm(sens, axis=0, keepdims=True))
    kspace = forward(jnp.asarray(image.astype(np.complex64)), jnp.asarray(mask), batched(sens))
    return kspace, jnp.asarray(mask), sens


def batched(sens):
    return None if sens is None else sens[None]


def dense_operator(mask, sens):
    """The forward operator of a cine as a matrix, frames and all."""
    size = mask.size
    basis = jnp.eye(size, dtype=jnp.complex64).reshape(size, *mask.shape)
    maps = None if sens is None else sens[None, None]
    columns = forward(basis, mask[None], maps)
    return np.asarray(columns, np.complex128).reshape(size, -1).T


def difference_matrix(size, circular=True):
    """Rows ``x_{i+1} - x_i``; the last closes the circle, or is zero."""
    matrix = np.roll(np.eye(size), 1, axis=1) - np.eye(size)
    if not circular:
        matrix[-1] = 0
    return matrix


def wavelet_matrix(size):
    """One level of Daubechies' four-tap transform, written down row by row."""
    root = np.sqrt(3)
    low = np.array([1 + root, 3 + root, 3 - root, 1 - root]) / (4 * np.sqrt(2))
    high = np.array([low[3], -low[2], low[1], -low[0]])
    half, matrix = size // 2, np.zeros((size, size))
    n_low = size - half
    for k in range(half):
        for i in range(4):
            matrix[k, (2 * k + i) % (2 * half)] += low[i]
            matrix[n_low + k, (2 * k + i) % (2 * half)] += high[i]
    if size % 2:
        matrix[half, size - 1] = 1
    return matrix


def cine_matrix(frames, rows, columns):
    """The matrix that acts by one matrix along each axis of a cine."""
    return np.kron(np.kron(frames, rows), columns)


def minimise(operator, measured, analysis, weight, n_groups=1):
    """``min 1/2 ||A x - y||^2 + w sum_groups ||K x||_2`` by iteratively reweighted least squares.

    ``||K x||`` is smoothed to ``sqrt(||K x||^2 + e^2)`` with e falling to 1e-6. Rows of K that are
    ``len(K) / n_groups`` apart form a group.
    """
    normal, back = operator.conj().T @ operator, operator.conj().T @ measured
    x = back
    for smoothing in np.geomspace(1, 1e-6, 70):
        size = np.linalg.norm((analysis @ x).reshape(n_groups, -1), axis=0)
        factors = np.tile(weight / np.hypot(size, smoothing), n_groups)[:, None]
        system = normal + analysis.conj().T @ (factors * analysis)
        x = np.linalg.solve(system + 1e-10 * np.eye(len(x)), back)
    return x


def objective(x, operator, measured, analysis, weight, n_groups=1):
    x = np.asarray(x, np.complex128).ravel()
    groups = np.linalg.norm((analysis @ x).reshape(n_groups, -1), axis=0)
    return 0.5 * np.linalg.norm(operator @ x - measured) ** 2 + weight * groups.sum()
