"""Initial values of parameters: one class of distributions, drawn in two ways.

Every parameter of the package starts from an ``Initialiser``. ``model.init`` draws from it with
``jax.random``, as anywhere in Flax. ``initialise`` gives the same distributions without compiling:
it traces ``model.init`` abstractly to learn which parameter has which distribution, and draws them
with NumPy. XLA needs one to two minutes to compile the several hundred draws of this network;
drawing them takes a fraction of a second.
"""

import contextvars
import dataclasses
import math
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct
from flax.core import meta
from scipy import special

__all__ = ["Initialiser", "constant", "initialise"]

_KINDS = ("normal", "truncated_normal", "uniform", "constant")
_recording: contextvars.ContextVar[bool] = contextvars.ContextVar("recording", default=False)


@dataclasses.dataclass(frozen=True)
class Initialiser:
    """A distribution of initial values, usable wherever Flax takes an initialiser.

    Attributes:
        kind: ``"normal"``, ``"truncated_normal"`` (cut at two standard deviations), ``"uniform"``
            (on both sides of the mean) or ``"constant"``.
        scale: standard deviation, before truncation, or half-width.
        mean: centre, or the constant.
        per_fan_in: whether ``scale`` is divided by the square root of the fan-in, the product of
            all axes but the last.
    """

    kind: str
    scale: float = 0.0
    mean: float = 0.0
    per_fan_in: bool = False

    def __post_init__(self):
        if self.kind not in _KINDS:
            raise ValueError(f"kind must be one of {_KINDS}, got {self.kind!r}")

    def __call__(self, key: Any, shape: Sequence[int], dtype: Any = jnp.float32) -> Any:
        """Draws with ``jax.random``; ``key`` may be ``None`` for constants."""
        if _recording.get():
            return _Recorded(jnp.zeros(shape, dtype), self, tuple(shape))
        if self.kind == "constant":
            return jnp.full(shape, self.mean, dtype)
        draw: dict[str, Callable] = {
            "normal": lambda: jax.random.normal(key, shape, dtype),
            "truncated_normal": lambda: jax.random.truncated_normal(key, -2.0, 2.0, shape, dtype),
            "uniform": lambda: jax.random.uniform(key, shape, dtype, -1.0, 1.0),
        }
        return self.mean + self._scale(shape) * draw[self.kind]()

    def draw(
        self, rng: np.random.Generator, shape: Sequence[int], single: tuple[int, ...]
    ) -> np.ndarray:
        """Draws with NumPy a stack ``shape`` of parameters that each have the shape ``single``."""
        if self.kind == "constant":
            return np.full(shape, self.mean)
        if self.kind == "normal":
            z = rng.standard_normal(shape)
        elif self.kind == "truncated_normal":
            z = special.ndtri(rng.uniform(special.ndtr(-2.0), special.ndtr(2.0), shape))
        else:
            z = rng.uniform(-1.0, 1.0, shape)
        return self.mean + self._scale(single) * z

    def _scale(self, shape: Sequence[int]) -> float:
        return self.scale / math.sqrt(math.prod(shape[:-1])) if self.per_fan_in else self.scale


def constant(value: float) -> Initialiser:
    """The same value everywhere."""
    return Initialiser("constant", mean=value)


class _Recorded(struct.PyTreeNode, meta.AxisMetadata):
    """A parameter on its way through an abstract ``init``, with its distribution."""

    value: Any
    initialiser: Initialiser = struct.field(pytree_node=False)
    single: tuple[int, ...] = struct.field(pytree_node=False)

    def unbox(self):
        return self.value

    def replace_boxed(self, val):
        return self.replace(value=val)

    def add_axis(self, index, params):
        return self

    def remove_axis(self, index, params):
        return self


def initialise(model: nn.Module, seed: int, *args, **kwargs) -> dict:
    """Initial variables of ``model``, as NumPy arrays; the same whatever the devices.

    Args:
        model: a module whose parameters all start from an ``Initialiser``.
        seed: each parameter's generator is seeded by this and the parameter's path.
        *args: inputs of ``model.__call__``, arrays or ``jax.ShapeDtypeStruct``.
        **kwargs: further inputs, static.

    Raises:
        TypeError: if some parameter starts from anything else.
    """
    token = _recording.set(True)
    try:
        abstract = jax.eval_shape(
            lambda key, args: model.init(key, *args, **kwargs), jax.random.key(0), args
        )
    finally:
        _recording.reset(token)

    def fill(path, leaf):
        name = jax.tree_util.keystr(path)
        if not isinstance(leaf, _Recorded):
            raise TypeError(
                f"parameter {name} must start from an Initialiser, as layers of models/layers.py "
                f"do (Flax's own do not), got {type(leaf).__name__}"
            )
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        drawn = leaf.initialiser.draw(rng, leaf.value.shape, leaf.single)
        return drawn.astype(leaf.value.dtype)

    return jax.tree_util.tree_map_with_path(
        fill, abstract, is_leaf=lambda leaf: isinstance(leaf, _Recorded)
    )
