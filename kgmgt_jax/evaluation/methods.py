"""What is evaluated: the interface of methods, and trained networks behind it."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
import scipy.fft
from flax import errors as flax_errors
from jaxtyping import Complex64, Float32

from kgmgt_jax.data.filling import fill_on_device, same_in_all_frames
from kgmgt_jax.data.transforms import scaled_inputs
from kgmgt_jax.evaluation.cine import CineInput, scaled_cine
from kgmgt_jax.evaluation.sequence import reconstruct_cine
from kgmgt_jax.evaluation.symmetries import SYMMETRIES, ensemble_mean
from kgmgt_jax.models.registry import Network, build_model
from kgmgt_jax.mri.cine import check_cine
from kgmgt_jax.training.parallel import check_platform
from kgmgt_jax.training.weights import FIXED_WEIGHTS, CheckpointError, load_item, load_weights

__all__ = [
    "ZERO_FILLED",
    "Method",
    "Program",
    "Reconstructor",
    "checked_input",
]

ZERO_FILLED = "zero_filled"

Kspace = Complex64[np.ndarray, "t n h w"]
Mask = Float32[np.ndarray, "t h w"]
Sens = Complex64[np.ndarray, "*t n h w"] | None
Progress = Callable[[int], Any]
_ROUNDING = 0.01  # of the sum of squares of coil maps
_OTHER_VARIABLES = (
    flax_errors.ScopeCollectionNotFound,
    flax_errors.ScopeParamNotFoundError,
    flax_errors.ScopeParamShapeError,
)


class Program(NamedTuple):
    """A pure function that does a method's work, to count what it costs.

    Attributes:
        function: what is compiled.
        arguments: what it is called with.
        n_frames: how many frames it reconstructs.
        n_times: how often it is run for them.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    n_frames: int
    n_times: int = 1


class Reconstructor(Protocol):
    """Anything that reconstructs cines.

    Attributes:
        name: what tables call it.
        source: where its weights come from.
        n_parameters: trained numbers; ``None`` where nothing is trained.
    """

    @property
    def name(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def n_parameters(self) -> int | None: ...

    def reconstruct(
        self, kspace: Kspace, mask: Mask, sens: Sens, progress: Progress | None = None
    ) -> Complex64[np.ndarray, "t h w"]:
        """Images of a cine, in the units of its k-space.

        Args:
            kspace: k-space of the cine; what lies outside the mask is not looked at.
            mask: 1 where measured.
            sens: sensitivities of unit sum of squares; ``None`` for a single coil.
            progress: called with the number of frames done, as often as the method likes.
        """
        ...

    def program(self, kspace: Kspace, mask: Mask, sens: Sens) -> Program:
        """The method at work on a cine, or on as little of it as it takes at once."""
        ...


def checked_input(kspace: Kspace, mask: Mask, sens: Sens) -> tuple[Kspace, Mask, Sens]:
    """The arrays in their single precision, in whatever precision or byte order they came.

    Raises:
        ValueError: for what is no cine, and for masks and maps of another scale, which would go
            unnoticed.
    """
    kspace, mask = _native(kspace), _native(mask)
    sens = None if sens is None else _native(sens)
    check_cine(kspace, mask, sens)
    kspace, mask = np.asarray(kspace, np.complex64), np.asarray(mask, np.float32)
    if sens is None:
        return kspace, mask, None
    sens = np.asarray(sens, np.complex64)
    power = np.sum(np.abs(sens) ** 2, axis=-3)
    if not ((power == 0) | (np.abs(power - 1) <= _ROUNDING)).all():
        raise ValueError(
            "expected sens whose squares add up to 1 over the coils, got sums from "
            f"{power.min():g} to {power.max():g}; divide them by their root sum of squares"
        )
    return kspace, mask, sens


def _every_nth(progress: Progress, n: int) -> Progress:
    """Tells of every n-th of the frames that it is told of."""
    done = 0

    def told(frames: int) -> None:
        nonlocal done
        before, done = done // n, done + frames
        progress(done // n - before)

    return told


def _native(array: np.ndarray) -> np.ndarray:
    """An array in the byte order of this machine."""
    array = np.asarray(array)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


@dataclasses.dataclass(frozen=True, eq=False)
class Method:
    """A trained network by name; a `Reconstructor`.

    Attributes:
        name: what tables call it.
        source: where its checkpoint is.
        model: the network.
        variables: its variables.
        circular: whether it was trained to see the last frame before the first.
        input_fill: what its inputs have in the place of unmeasured samples.
        sens: how coil maps are estimated, for files without.
        fixed_variables: variables for masks that are the same in all frames, if others are better
            there.
        frames_at_once: frames that are reconstructed together; see `reconstruct_cine`.
        trained_on: path of its training data on the machine it was trained on.
        validated_on: that of the data by which its best checkpoint was known.
        self_ensemble: of how many of `SYMMETRIES` images are the mean; 1 is the cine alone.
        virtual_coils: most coils that files are to be read with, 0 for all; see ``ReadOptions``.
    """

    name: str
    source: str
    model: Network
    variables: Any = dataclasses.field(repr=False)
    circular: bool = True
    input_fill: str = "zero"
    sens: str = "espirit"
    fixed_variables: Any = dataclasses.field(default=None, repr=False)
    frames_at_once: int = 1
    trained_on: str = ""
    validated_on: str = ""
    self_ensemble: int = 1
    virtual_coils: int = 0

    def __post_init__(self):
        most = len(SYMMETRIES)
        if not 1 <= self.self_ensemble <= most:
            raise ValueError(f"expected self_ensemble from 1 to {most}, got {self.self_ensemble}")

    @property
    def n_parameters(self) -> int:
        """Trained numbers of the network."""
        return sum(np.size(leaf) for leaf in jax.tree.leaves(self.variables["params"]))

    @classmethod
    def load(
        cls,
        name: str,
        path: str | Path,
        frames_at_once: int = 1,
        circular: bool | None = None,
        computing: Mapping[str, Any] | None = None,
        self_ensemble: int = 1,
        virtual_coils: int | None = None,
    ) -> "Method":
        """Loads a checkpoint; see ``training.weights.load_weights``.

        Args:
            name: what tables call it; empty for the network's own name.
            path: a training workdir or one checkpoint.
            frames_at_once: frames that are reconstructed together.
            circular: whether the last frame precedes the first; ``None`` for as in training.
            computing: fields of the network to replace, such as ``dtype``, where it has them; none
                that changes its parameters.
            self_ensemble: of how many symmetric copies of a cine images are the mean.
            virtual_coils: most coils to read files with; ``None`` for as in training.

        Raises:
            CheckpointError: if there is none, or it is not of this project.
            ValueError: if JAX has no device of those that ``JAX_PLATFORMS`` names, or for another
                ``self_ensemble`` than 1 to 8.
        """
        check_platform("")
        config, variables = load_weights(path)
        try:
            model = build_model(config.model)
            has = {field.name for field in dataclasses.fields(model)}
            changed = {name: v for name, v in (computing or {}).items() if name in has}
            model = model.clone(**changed)
            data = config.get("data", {})
            circular = bool(data.get("circular", cls.circular)) if circular is None else circular
            input_fill = data.get("input_fill", cls.input_fill)
            sens = data.get("sens", cls.sens)
            if virtual_coils is None:
                virtual_coils = int(data.get("virtual_coils", cls.virtual_coils))
            trained_on = data.get("train", cls.trained_on)
            validated_on = data.get("validation", cls.validated_on)
        except (AttributeError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: expected this project's config, got {error}") from error
        name = name or type(model).__name__.lower()
        return cls(
            name,
            str(path),
            model,
            jax.device_put(variables),  # once, not with every frame
            circular,
            input_fill,
            sens,
            fixed_variables=jax.device_put(load_item(path, FIXED_WEIGHTS)),
            frames_at_once=frames_at_once,
            trained_on=trained_on,
            validated_on=validated_on,
            self_ensemble=self_ensemble,
            virtual_coils=virtual_coils,
        )

    def variables_for(self, mask: Mask) -> Any:
        """The variables to reconstruct a cine with that was measured with this mask."""
        fixed = self.fixed_variables is not None and same_in_all_frames(mask)
        return self.fixed_variables if fixed else self.variables

    def reconstruct(
        self, kspace: Kspace, mask: Mask, sens: Sens, progress: Progress | None = None
    ) -> Complex64[np.ndarray, "t h w"]:
        """See `Reconstructor`; progress is told after each group of frames.

        Images scale as their k-space does, but a phase common to all of it changes magnitudes a
        little, too: networks see real and imaginary parts.

        Raises:
            CheckpointError: if the variables are not those of the model.
            ValueError: if the arrays are not one cine, the mask has other values than 0 and 1, the
                sensitivities have another sum of squares than 1 (or 0), or measured samples are
                NaN or infinite.
        """
        cine, scale = self._input(kspace, mask, sens)
        cine, variables = cine.on_device(), self.variables_for(mask)
        options: Any = {"circular": self.circular, "frames_at_once": self.frames_at_once}
        if progress is not None:
            options["progress"] = _every_nth(progress, self.self_ensemble)

        def images(cine: CineInput) -> jax.Array:
            return reconstruct_cine(self.model, variables, cine, **options)

        try:
            frames = ensemble_mean(images, cine, self.self_ensemble)
            return jax.device_get(frames) * scale
        except _OTHER_VARIABLES as error:
            reason = str(error).split("(https")[0].strip()
            raise CheckpointError(
                f"{self.source}: expected weights of the model in its config, got: {reason}"
            ) from error

    def program(self, kspace: Kspace, mask: Mask, sens: Sens) -> Program:
        """What is reconstructed together: each frame is encoded and refined once."""
        n = min(self.frames_at_once, len(kspace))
        own = sens[:n] if sens is not None and sens.ndim == 4 else sens
        cine, _ = self._input(kspace[:n], mask[:n], own)
        options = {"circular": self.circular, "frames_at_once": n}

        def run(variables: Any, cine: CineInput) -> jax.Array:
            return reconstruct_cine(self.model, variables, cine, **options)

        return Program(run, (self.variables, cine.on_device()), n, self.self_ensemble)

    def _input(self, kspace: Kspace, mask: Mask, sens: Sens) -> tuple[CineInput, np.float32]:
        kspace, mask, sens = checked_input(kspace, mask, sens)
        kspace = np.where(mask[:, None] > 0, kspace, np.complex64(0))
        if not np.isfinite(kspace).all():
            raise ValueError("expected finite kspace, got NaN or infinite values")
        if jax.default_backend() != "cpu":
            kspace, mask, sens = jax.device_put((kspace, mask, sens))  # once for both
            options = {"sens": sens, "circular": self.circular}
            filled = fill_on_device(kspace, mask, self.input_fill, **options)
            cine, scale = jax.device_get(scaled_cine(kspace, mask, sens, filled))
            return cine, np.float32(scale)
        with scipy.fft.set_workers(-1):  # all cores
            images, measured, scale = scaled_inputs(
                kspace, mask, sens, circular=self.circular, input_fill=self.input_fill
            )
        return CineInput(images, measured, mask, sens), scale
