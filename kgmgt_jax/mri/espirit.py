"""Coil sensitivity maps by ESPIRiT: eigenvectors of what the calibration data repeats.

Every ``k x k`` patch of multi-coil k-space, all coils together, lies in a small space: that of the
signal. Its projection, carried over to the image, is an ``n x n`` matrix ``G(x)`` a pixel with
``G(x) s(x) = s(x)`` wherever there is signal, so the maps are eigenvectors of eigenvalue 1::

    A = all patches of the calibration block, a column each       n k k  x  patches
    A A^H = V diag(e) V^H,   P = sum of v_i v_i^H over e_i > threshold max(e)
    G_ij(x) = k^-2 sum_{a,b} exp(2πi (a - b) x) P[(i, a), (j, b)]

``a`` and ``b`` are places in the patch, ``x`` counts from the centre in units of the field of view.

Source: Uecker et al., Magn Reson Med 71:990 (2014).
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from kgmgt_jax.mri.fourier import ifft2c

__all__ = [
    "MIN_CALIBRATION_LINES",
    "espirit_eigenmaps",
    "espirit_maps",
    "power_iterations",
    "reference_phase",
    "zero_fill",
]

MIN_CALIBRATION_LINES = 4

_EXACT = jax.lax.Precision.HIGHEST  # accelerators otherwise round to fewer bits
_CHUNK_BYTES = 2**25  # of the operator; bounds the memory for many coils


def espirit_maps(
    block: Complex[Array, "n y x"],
    shape: tuple[int, int],
    *,
    kernel_size: int = 6,
    threshold: float = 1e-3,
    crop: float = 0.8,
    n_iterations: int = 30,
) -> Complex[Array, "n h w"]:
    """Sensitivity maps by ESPIRiT, zero where the eigenvalue says that there is no signal.

    Options and defaults are those of BART's ``ecalib -m1``: ``kernel_size`` is its ``-k``,
    ``threshold`` its ``-t``, ``crop`` its ``-c``, and the block what ``-r`` limits (to 24 x 24
    unless told). As there, the phase is referenced to the calibration data's first principal
    component (no ``-P``), the crop is hard (no ``-S``, which fades it out), singular vectors carry
    no weights (no ``-W``) and intensities are left alone (no ``-I``).

    It differs from BART in two ways. A block of ``l`` lines, or columns if those are fewer, takes a
    kernel of at most ``l // 2 + 1``. And the iterations start from the coil images of the block:
    where two maps explain the data (a body larger than the field of view) they end at the
    combination that is there rather than at either.

    Args:
        block: central k-space without gaps; a sample further from the centre is one further
            from the block's.
        shape: rows and columns of the maps.
        kernel_size: side of the patches in samples.
        threshold: smallest eigenvalue of ``A A^H`` of the signal, relative to the largest, in
            [0, 1): the square of that of the singular values.
        crop: maps are zero where the eigenvalue of ``G`` is at most this, in [0, 1); 0 keeps all
            pixels.
        n_iterations: power iterations at each pixel.

    Returns:
        Maps with ``sum_i |s_i|^2 = 1`` at every pixel that is kept.

    Raises:
        ValueError: if the block is too small or larger than the image, or an option out of range.
    """
    if not 0 <= crop < 1:
        raise ValueError(f"expected a crop in [0, 1), got {crop=}; 0 keeps all pixels")
    maps, eigenvalue = espirit_eigenmaps(
        block, shape, kernel_size=kernel_size, threshold=threshold, n_iterations=n_iterations
    )
    return jnp.where((eigenvalue > crop)[None], maps, 0) if crop else maps


def espirit_eigenmaps(
    block: Complex[Array, "n y x"],
    shape: tuple[int, int],
    *,
    kernel_size: int = 6,
    threshold: float = 1e-3,
    n_iterations: int = 30,
) -> tuple[Complex[Array, "n h w"], Float[Array, "h w"]]:
    """Maps of unit sum of squares at every pixel, and their eigenvalues in [0, 1].

    Args and errors as in `espirit_maps`, whose crop is left to the caller.
    """
    _check(block.shape, shape, kernel_size, threshold, n_iterations)
    kernel_size = min(kernel_size, min(block.shape[1:]) // 2 + 1)
    return _eigenmaps(block, tuple(shape), kernel_size, threshold, n_iterations)


def power_iterations(
    operator: Complex[Array, "*b n n h w"], start: Complex[Array, "*b n h w"], n_iterations: int
) -> tuple[Complex[Array, "*b n h w"], Float[Array, "*b h w"]]:
    """Unit dominant eigenvectors of Hermitian matrices and their eigenvalues, pixel by pixel.

    Args:
        operator: a matrix a pixel.
        start: where the iterations start; of directions with equal eigenvalues it picks one.
        n_iterations: at least 1.

    Returns:
        Vectors and eigenvalues, both 0 where the operator sends the start to 0.
    """

    def unit(vector: Array) -> tuple[Array, Array]:
        norm = jnp.sqrt(jnp.sum(vector.real**2 + vector.imag**2, axis=-3))
        return vector / jnp.where(norm > 0, norm, 1)[..., None, :, :], norm

    def iterate(vector: Array, _: None) -> tuple[Array, Array]:
        return unit(jnp.sum(operator * vector[..., None, :, :, :], axis=-3))

    vector, norms = jax.lax.scan(iterate, unit(start)[0], length=n_iterations)
    return vector, norms[-1]


def reference_phase(
    maps: Complex[Array, "n h w"], virtual: Complex[Array, "n"]
) -> Complex[Array, "n h w"]:
    """Maps turned pixel by pixel so that ``virtual^H s`` is real and not negative.

    Args:
        maps: maps whose phases are arbitrary at each pixel.
        virtual: the coils' weights in a virtual coil.
    """
    reference = jnp.einsum("n,nhw->hw", jnp.conj(virtual), maps, precision=_EXACT)
    size = jnp.abs(reference)
    phase = jnp.where(size > 0, reference / jnp.where(size > 0, size, 1), 1)
    return maps * jnp.conj(phase)[None]


def zero_fill(block: Complex[Array, "*b y x"], shape: tuple[int, int]) -> Complex[Array, "*b h w"]:
    """The block at the centre of k-space, zeros around it."""
    pads = [(0, 0)] * (block.ndim - 2)
    for size, full in zip(block.shape[-2:], shape, strict=True):
        before = full // 2 - size // 2
        pads.append((before, full - size - before))
    return jnp.pad(block, pads)


@partial(jax.jit, static_argnames=("shape", "kernel_size", "n_iterations"))
def _eigenmaps(
    block: Complex[Array, "n y x"],
    shape: tuple[int, int],
    kernel_size: int,
    threshold: float,
    n_iterations: int,
) -> tuple[Complex[Array, "n h w"], Float[Array, "h w"]]:
    block = block / jnp.maximum(jnp.max(jnp.abs(block)), jnp.finfo(block.real.dtype).tiny)
    virtual = _virtual_coil(block)
    start = ifft2c(zero_fill(block, shape))
    start = jnp.where(jnp.any(start != 0, axis=0)[None], start, virtual[:, None, None])
    lags = _lags(_projection(block, kernel_size, threshold), kernel_size)
    rows, columns = (_phases(size, kernel_size, block.dtype) for size in shape)
    lags = jnp.einsum("dnmf,wf->dnmw", lags, columns, precision=_EXACT)

    def one_row(inputs: tuple[Array, Array]) -> tuple[Array, Array]:
        row, start = inputs
        operator = jnp.einsum("d,dnmw->nmw", row, lags, precision=_EXACT)
        vector, norm = power_iterations(operator[:, :, None], start[:, None], n_iterations)
        return vector[:, 0], norm[0]

    row_bytes = block.shape[0] ** 2 * shape[1] * block.dtype.itemsize
    n_rows = min(max(1, _CHUNK_BYTES // row_bytes), shape[0])
    inputs = (rows, jnp.moveaxis(start, 1, 0))
    maps, eigenvalue = jax.lax.map(one_row, inputs, batch_size=n_rows)
    maps = jnp.moveaxis(maps, 0, 1)  # n h w
    maps = jnp.where((eigenvalue > 0)[None], maps, virtual[:, None, None])
    return reference_phase(maps, virtual), jnp.minimum(eigenvalue, 1)


def _virtual_coil(block: Complex[Array, "n y x"]) -> Complex[Array, "n"]:
    """First principal component of the coils, its strongest coil real and positive."""
    samples = block.reshape(block.shape[0], -1)
    covariance = jnp.matmul(samples, samples.conj().T, precision=_EXACT)
    vector = jnp.linalg.eigh(covariance)[1][:, -1]
    strongest = vector[jnp.argmax(jnp.abs(vector))]
    return vector * jnp.conj(strongest) / jnp.abs(strongest)


def _projection(block: Complex[Array, "n y x"], k: int, threshold: float) -> Complex[Array, "p p"]:
    """Projection P on the space of the patches, ``p = n k k``; A is never stored as a whole."""
    n, n_rows, n_columns = block.shape
    places = n_columns - k + 1

    def add_row(y: Array, gram: Array) -> Array:
        rows = jax.lax.dynamic_slice_in_dim(block, y, k, axis=1)
        patches = jnp.stack([rows[:, :, x : x + places] for x in range(k)], axis=2)
        patches = patches.reshape(n * k * k, places)
        return gram + jnp.matmul(patches, patches.conj().T, precision=_EXACT)

    gram = jnp.zeros((n * k * k, n * k * k), block.dtype)
    gram = jax.lax.fori_loop(0, n_rows - k + 1, add_row, gram)
    eigenvalues, vectors = jnp.linalg.eigh(gram)
    signal = vectors * (eigenvalues > threshold * eigenvalues[-1])[None]
    return jnp.matmul(signal, signal.conj().T, precision=_EXACT)


def _lags(projection: Complex[Array, "p p"], k: int) -> Complex[Array, "d n n d"]:
    """``k^-2 P`` summed over all places ``a, b`` with the same ``a - b``, from ``1-k`` to k-1."""
    n = projection.shape[0] // k**2
    places = jnp.arange(k)
    same = jnp.arange(1 - k, k)[:, None, None] == (places[:, None] - places[None])[None]
    same = same.astype(projection.dtype)
    blocks = projection.reshape(n, k, k, n, k, k) / k**2
    return jnp.einsum("iacjbe,dab,fce->dijf", blocks, same, same, precision=_EXACT)


def _phases(size: int, k: int, dtype: jnp.dtype) -> Complex[Array, "x d"]:
    """``exp(2πi d x)`` of every lag d at every pixel along one axis."""
    x = (jnp.arange(size) - size // 2) / size
    return jnp.exp(2j * jnp.pi * x[:, None] * jnp.arange(1 - k, k)[None]).astype(dtype)


def _check(
    block: tuple[int, ...],
    shape: tuple[int, int],
    kernel_size: int,
    threshold: float,
    n_iterations: int,
) -> None:
    if len(block) != 3 or min(block[1:]) < MIN_CALIBRATION_LINES:
        raise ValueError(
            f"expected a calibration block (n, y, x) of at least {MIN_CALIBRATION_LINES} lines and "
            f"columns, got shape {block}; measure more of the centre, or use adaptive maps"
        )
    if len(shape) != 2 or any(full < part for full, part in zip(shape, block[1:], strict=True)):
        raise ValueError(f"expected an image no smaller than the block {block[1:]}, got {shape=}")
    if kernel_size < 2 or n_iterations < 1 or not 0 <= threshold < 1:
        raise ValueError(
            "expected kernel_size >= 2, n_iterations >= 1 and a threshold in [0, 1), got "
            f"{kernel_size=}, {n_iterations=}, {threshold=}"
        )
