"""The released network with the fixtures' weights, compiled in parts.

XLA compiles the whole two-pass training step in more than a minute; mentor and learner are one
network there, so one compiled pass serves both. ``Released`` runs the package's own ``__call__``,
``mentor`` and ``learner`` around compiled ``encode`` and ``mentor_net``.
"""

import functools
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs.kgmgt import get_config
from kgmgt_jax.interop.torch_names import (
    extractor_entries,
    from_state_dict,
    generator_entries,
)
from kgmgt_jax.models.aggregation import GuidedUNet
from kgmgt_jax.models.kgmgt import KGMgT
from kgmgt_jax.models.registry import build_model

SEEDS = {"net_g": 101, "net_extractor": 102, "net_map": 103, "net_d": 104, "perceptual": 105}
ENTRIES = [*generator_entries(), *extractor_entries()]
AGGREGATED = ("down_1", "down_2", "swapped_3", "swapped_2", "swapped_1")  # d1..d5 there
SCALES = ("relu1_1", "relu2_1", "relu3_1")


def model() -> KGMgT:
    """The released network without stochastic depth, as precise as its inputs."""
    config: Any = get_config("released")
    fields = config.model.to_dict()
    return build_model(fields | {"drop_path": 0.0, "dtype": None})


@functools.cache
def recipe(folder: Path) -> ModuleType:
    """The fixtures' own way to draw weights and inputs."""
    spec: Any = importlib.util.spec_from_file_location("fixture_recipe", folder / "recipe.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shapes(folder: Path, name: str) -> dict[str, tuple[int, ...]]:
    """Shape of every array of a released network, by its name there."""
    stored = json.loads((folder / "state_dict_keys.json").read_text())
    return {k: tuple(v["shape"]) for k, v in stored[name].items()}


def state_dict(folder: Path, name: str, *, offset: int = 0) -> dict[str, np.ndarray]:
    """A network's weights by the recipe; ``offset`` gives others than the fixtures'."""
    drawn = recipe(folder).weights(shapes(folder, name), SEEDS[name] + offset)
    return recipe(folder).tie_extractor(drawn) if name == "net_extractor" else drawn


def variables(folder: Path) -> dict:
    """The fixtures' weights as our variables."""
    names = ("net_g", "net_extractor", "net_map")
    weights = {k: v for name in names for k, v in state_dict(folder, name).items()}
    return from_state_dict(ENTRIES, weights)


def cast(tree: Any, dtype: Any) -> Any:
    """Every array of a tree in another precision."""
    return jax.tree.map(lambda a: np.asarray(a, dtype), tree)


def to_image(x: np.ndarray) -> np.ndarray:
    """(b, 2, h, w) to complex (b, h, w)."""
    return x[:, 0] + np.asarray(1j, np.result_type(x.dtype, np.complex64)) * x[:, 1]


def from_image(x: Any) -> np.ndarray:
    """Complex (b, h, w) to (b, 2, h, w)."""
    x = np.asarray(x)
    return np.stack([x.real, x.imag], axis=1)


def _own_vjp(function):
    """``function`` with a forward and a backward program, each compiled once for all its calls.

    JAX would compile a call anew whenever other inputs or outputs of it carry a gradient.
    """
    linearise = jax.jit(lambda *arguments: jax.vjp(function, *arguments))
    pull_back = jax.jit(lambda pullback, ct: pullback(ct))
    wrapped = jax.custom_vjp(jax.jit(function))
    wrapped.defvjp(linearise, pull_back)
    return wrapped


class Compiled:
    """Compiled parts of one network, for training (``train``) or inference."""

    def __init__(self, *, train: bool):
        net = model()

        def encode(variables, frame):
            return net.apply(variables, frame, method=KGMgT.encode)

        def one_pass(variables, *arguments):
            """Image and d1..d5; then batch statistics (training) or the U-Net's residual."""

            def call(bound):
                return bound.mentor_net(*arguments, None, train=train)

            if train:
                return net.apply(variables, method=call, mutable=["batch_stats"])
            output, captured = net.apply(
                variables,
                method=call,
                mutable=["intermediates"],
                capture_intermediates=lambda module, _: isinstance(module, GuidedUNet),
            )
            return output, captured["intermediates"]["mentor_net"]["unet"]["__call__"][0][0]

        self.encode, self.one_pass = _own_vjp(encode), _own_vjp(one_pass)


class Released:
    """One forward of ``KGMgT`` over compiled parts; what ``self`` is to its methods.

    Attributes:
        variables: with the batch statistics that the passes so far left.
        passes: of each pass so far image, d1..d5, and the U-Net's residual (inference).
    """

    knowledge = True
    from_features = KGMgT.from_features.__wrapped__
    mentor = KGMgT.mentor.__wrapped__
    learner = KGMgT.learner.__wrapped__

    def __init__(self, variables: dict, parts: Compiled):
        self.variables, self.parts, self.passes = variables, parts, []

    def encode(self, frame):
        return self.parts.encode(self.variables, frame)

    def mentor_net(self, image, target, reference, priors, measurement, *, train):
        arguments = (image, target, reference, priors)
        (image, aggregated), rest = self.parts.one_pass(self.variables, *arguments)
        if train:
            self.variables = {**self.variables, **rest}
        self.passes.append((image, aggregated, rest))
        return image, aggregated

    learner_net = mentor_net

    def __call__(self, *frames, train=False):
        return KGMgT.__call__.__wrapped__(self, *map(jnp.asarray, frames), train=train)
