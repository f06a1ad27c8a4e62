"""Iterative reconstructions without learning, one function a method, and their registry.

All have the form ``f(kspace, mask, sens=None, *, weights, ...) -> image`` for a whole cine, with
the forward operator of `mri.consistency`, and can run under ``jax.jit``. The
iterative ones stop when an iteration changes the image by less than a relative ``tolerance``.
"""

from kgmgt_jax.classical.direct import temporal_average, zero_filled
from kgmgt_jax.classical.focuss import kt_focuss
from kgmgt_jax.classical.local_low_rank import locally_low_rank
from kgmgt_jax.classical.low_rank import low_rank_plus_sparse
from kgmgt_jax.classical.registry import METHODS, Algorithm, Tuning, tune
from kgmgt_jax.classical.sense import cg_sense
from kgmgt_jax.classical.total_variation import spatial_tv, temporal_tv
from kgmgt_jax.classical.wavelet_sparsity import wavelet

__all__ = [
    "METHODS",
    "Algorithm",
    "Tuning",
    "cg_sense",
    "kt_focuss",
    "locally_low_rank",
    "low_rank_plus_sparse",
    "spatial_tv",
    "temporal_average",
    "temporal_tv",
    "tune",
    "wavelet",
    "zero_filled",
]
