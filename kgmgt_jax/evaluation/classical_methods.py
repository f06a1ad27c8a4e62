"""Classical methods as what is evaluated, and their weights from words."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Complex64

from kgmgt_jax.classical import METHODS
from kgmgt_jax.evaluation.methods import (
    ZERO_FILLED,
    Kspace,
    Mask,
    Program,
    Progress,
    Sens,
    checked_input,
)

__all__ = ["ClassicalMethod", "classical_methods", "parse_weights"]


@dataclasses.dataclass(frozen=True)
class ClassicalMethod:
    """A method of `classical` with its weights; a `Reconstructor`.

    Attributes:
        name: key of ``METHODS``.
        weights: all of its weights.
        chosen: how they were chosen.
        circular: whether the last frame of a cine is followed by the first.
    """

    name: str
    weights: Mapping[str, float] = dataclasses.field(default_factory=dict)
    chosen: str = "default weights"
    circular: bool = True
    n_parameters: None = None

    @property
    def source(self) -> str:
        """Its weights, and how they were chosen."""
        values = ", ".join(f"{name} {value:g}" for name, value in self.weights.items())
        return f"{values} ({self.chosen})" if values else "no weights"

    def reconstruct(
        self, kspace: Kspace, mask: Mask, sens: Sens, progress: Progress | None = None
    ) -> Complex64[np.ndarray, "t h w"]:
        """See `Reconstructor`; progress is told at the end.

        Raises:
            ValueError: as `Method.reconstruct`, but for samples that are not finite.
        """
        run, arguments, n_frames, _ = self.program(kspace, mask, sens)
        image = np.asarray(run(*arguments))
        if progress is not None:
            progress(n_frames)
        return image

    def program(self, kspace: Kspace, mask: Mask, sens: Sens) -> Program:
        """The whole cine, of which a classical method needs all frames at once."""
        arrays = checked_input(kspace, mask, sens)
        run = METHODS[self.name].with_weights(self.weights, circular=self.circular)
        return Program(run, jax.tree.map(jnp.asarray, arrays), len(kspace))


def classical_methods(
    names: Iterable[str],
    tuned: Mapping[str, Mapping[str, float]] | None = None,
    given: Mapping[str, Mapping[str, float]] | None = None,
    *,
    circular: bool = True,
) -> list[ClassicalMethod]:
    """Classical methods by name, zero-filling left out, with the weights to use.

    Args:
        names: keys of ``METHODS``, or ``all``.
        tuned: ``{method: {weight: value}}`` that were found on training cases.
        given: the same as the user gave them; they go first.
        circular: whether the last frame of a cine is followed by the first.

    Raises:
        ValueError: if a method or a weight is unknown.
    """
    names = [n for name in names for n in (METHODS if name == "all" else (name,))]
    unknown = sorted(set(names) - set(METHODS))
    if unknown:
        raise ValueError(f"expected methods among all, {', '.join(METHODS)}, got {unknown=}")
    tuned, given = tuned or {}, given or {}
    idle = sorted(set(given) - set(names))
    if idle:
        raise ValueError(f"expected weights of the methods {names}, got some of {idle}")
    found = []
    for name in dict.fromkeys(names):
        weights = METHODS[name].weights
        extra = sorted(set(given.get(name, {})) - set(weights))
        if extra:
            raise ValueError(f"expected weights of {name} among {list(weights)}, got {extra}")
        negative = {k: v for k, v in given.get(name, {}).items() if not v >= 0}
        if negative:
            raise ValueError(f"expected weights of {name} of 0 or more, got {negative}")
        chosen = "given" if name in given else "tuned" if name in tuned else "default"
        values = {**weights, **tuned.get(name, {}), **given.get(name, {})}
        if name != ZERO_FILLED:
            told = f"{chosen} weights" + (_at_ends(name, values) if chosen == "tuned" else "")
            found.append(ClassicalMethod(name, values, told, circular))
    return found


def _at_ends(name: str, weights: Mapping[str, float]) -> str:
    """Which tuned weights lie where their grid ends, so that a wider one might have better ones."""
    grid = METHODS[name].grid
    ends = [key for key, tried in grid.items() if weights[key] in (min(tried), max(tried))]
    return f", at an end of the grid: {', '.join(ends)}" if ends else ""


def parse_weights(items: Sequence[str]) -> dict[str, dict[str, float]]:
    """``["temporal_tv.weight=0.02"]`` as ``{"temporal_tv": {"weight": 0.02}}``.

    Raises:
        ValueError: for an item of another form.
    """
    weights: dict[str, dict[str, float]] = {}
    for item in items:
        place, _, value = item.partition("=")
        method, _, name = place.partition(".")
        try:
            weights.setdefault(method, {})[name] = float(value)
        except ValueError as error:
            raise ValueError(f"expected METHOD.WEIGHT=NUMBER, got {item!r}") from error
        if not name:
            raise ValueError(f"expected METHOD.WEIGHT=NUMBER, got {item!r}")
    return weights
