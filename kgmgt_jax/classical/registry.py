"""Names, weights and grids of all classical methods; the choice of weights on training cases."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from kgmgt_jax.classical.direct import temporal_average, zero_filled
from kgmgt_jax.classical.focuss import kt_focuss
from kgmgt_jax.classical.local_low_rank import locally_low_rank
from kgmgt_jax.classical.low_rank import low_rank_plus_sparse
from kgmgt_jax.classical.sense import cg_sense
from kgmgt_jax.classical.total_variation import spatial_tv, temporal_tv
from kgmgt_jax.classical.wavelet_sparsity import wavelet

__all__ = ["METHODS", "Algorithm", "Tuning", "tune"]

Grid = Mapping[str, Sequence[float]]
Case = tuple[
    Float[Array | np.ndarray, "t h w"],
    Complex[Array, "t n h w"],
    Float[Array, "t h w"],
    Complex[Array, "*t n h w"] | None,
]
Score = Callable[[Array | np.ndarray, Array], float]


@dataclass(frozen=True)
class Algorithm:
    """A reconstruction and its weights.

    Attributes:
        reconstruct: ``f(kspace, mask, sens=None, **weights) -> image``.
        weights: the weights by name, with their default values.
        grid: values worth trying for each.
        cyclic: whether it takes ``circular``: if the last frame is followed by the first.
    """

    reconstruct: Callable[..., Complex[Array, "t h w"]]
    weights: Mapping[str, float] = field(default_factory=dict)
    grid: Grid = field(default_factory=dict)
    cyclic: bool = False

    def with_weights(
        self, weights: Mapping[str, float], *, circular: bool = True
    ) -> Callable[..., Complex[Array, "t h w"]]:
        """``f(kspace, mask, sens=None)`` for such cines."""
        options = {"circular": circular} if self.cyclic else {}
        return partial(self.reconstruct, **weights, **options)


METHODS: dict[str, Algorithm] = {
    "zero_filled": Algorithm(zero_filled),
    "temporal_average": Algorithm(temporal_average),
    "cg_sense": Algorithm(cg_sense, {"weight": 0.01}, {"weight": (0.001, 0.003, 0.01, 0.03)}),
    "temporal_tv": Algorithm(
        temporal_tv, {"weight": 0.01}, {"weight": (0.002, 0.005, 0.01, 0.02, 0.05)}, cyclic=True
    ),
    "spatial_tv": Algorithm(spatial_tv, {"weight": 0.03}, {"weight": (0.003, 0.01, 0.03, 0.1)}),
    "wavelet": Algorithm(wavelet, {"weight": 0.01}, {"weight": (0.001, 0.003, 0.01, 0.03, 0.1)}),
    "kt_focuss": Algorithm(kt_focuss, {"weight": 1e-3}, {"weight": (1e-4, 1e-3, 1e-2, 1e-1)}),
    "low_rank_plus_sparse": Algorithm(
        low_rank_plus_sparse,
        {"low_rank_weight": 0.005, "sparse_weight": 0.01},
        {"low_rank_weight": (0.002, 0.005, 0.01, 0.02), "sparse_weight": (0.003, 0.01, 0.03)},
    ),
    "locally_low_rank": Algorithm(
        locally_low_rank, {"weight": 0.003}, {"weight": (0.001, 0.002, 0.003, 0.005, 0.01)}
    ),
}
"""By name; an entry of your own can be added."""


@dataclass(frozen=True)
class Tuning:
    """What `tune` found.

    Attributes:
        weights: the best weights.
        score: their mean score.
        tried: all weights tried, with their mean scores.
    """

    weights: dict[str, float]
    score: float
    tried: tuple[tuple[dict[str, float], float], ...]


def tune(
    method: str,
    cases: Iterable[Case],
    score: Score,
    grid: Grid | None = None,
    *,
    circular: bool = True,
) -> Tuning:
    """Tries all combinations of weights and picks the one with the best mean score.

    Args:
        method: a key of `METHODS`.
        cases: of each training cine the reference magnitude (t, h, w), and what the method gets:
            kspace, mask, sens. Held in memory together.
        score: from reference and reconstruction, magnitudes both, a number that is higher for
            better images, such as the mean PSNR over the frames.
        grid: values to try by name of the weight; the method's own grid otherwise. Weights that it
            leaves out keep their defaults.
        circular: whether the last frame of each cine is followed by the first.

    Returns:
        The best weights, all of the method's; those named first win a tie.

    Raises:
        ValueError: if the method or a weight is unknown, a list of values or of cases is empty, or
            no score is finite.
    """
    if method not in METHODS:
        raise ValueError(f"expected method to be one of {', '.join(METHODS)}, got {method=}")
    chosen = METHODS[method]
    grid = chosen.grid if grid is None else grid
    unknown = sorted(set(grid) - set(chosen.weights))
    if unknown:
        names = ", ".join(chosen.weights) or "none"
        raise ValueError(f"expected weights of {method}: {names}; got {unknown=}")
    cases = list(cases)
    if not cases or not all(len(values) for values in grid.values()):
        raise ValueError(f"expected cases and values to try, got {len(cases)} cases and {grid=}")
    tried = []
    for values in itertools.product(*grid.values()):
        weights = {**chosen.weights, **dict(zip(grid, values, strict=True))}
        reconstruct = chosen.with_weights(weights, circular=circular)
        scores = [
            float(score(reference, jnp.abs(reconstruct(kspace, mask, sens))))
            for reference, kspace, mask, sens in cases
        ]
        tried.append((weights, float(np.mean(scores))))
    finite = [entry for entry in tried if np.isfinite(entry[1])]
    if not finite:
        raise ValueError(f"expected a finite score, got none of {len(tried)} combinations: {tried}")
    weights, best = max(finite, key=lambda entry: entry[1])
    return Tuning(weights, best, tuple(tried))
