"""What an MR physicist knows: Fourier transform, sampling, coils, consistency. No Flax, no I/O."""

from kgmgt_jax.mri.coils import (
    adaptive_maps,
    calibration_block,
    calibration_kspace,
    estimate_sens,
    rss,
    sens_expand,
    sens_reduce,
)
from kgmgt_jax.mri.consistency import (
    adjoint,
    cg_consistency,
    forward,
    gradient_consistency,
    hard_consistency,
    normal,
    soft_consistency,
)
from kgmgt_jax.mri.espirit import espirit_eigenmaps, espirit_maps
from kgmgt_jax.mri.fourier import fft2c, ifft2c, to_channels, to_complex
from kgmgt_jax.mri.sampling import MASKS, SamplingMask, make_mask, true_acceleration

__all__ = [
    "MASKS",
    "SamplingMask",
    "adaptive_maps",
    "adjoint",
    "calibration_block",
    "calibration_kspace",
    "cg_consistency",
    "espirit_eigenmaps",
    "espirit_maps",
    "estimate_sens",
    "fft2c",
    "forward",
    "gradient_consistency",
    "hard_consistency",
    "ifft2c",
    "make_mask",
    "normal",
    "rss",
    "sens_expand",
    "sens_reduce",
    "soft_consistency",
    "to_channels",
    "to_complex",
    "true_acceleration",
]
