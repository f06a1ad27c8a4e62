"""Scoring checkpoints on retrospectively undersampled cines."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flax import errors as flax_errors
from jaxtyping import Complex64, Float32
from tqdm import tqdm

from kgmgt_jax.data.sources import open_slices
from kgmgt_jax.data.transforms import coil_combine, ifft2c, scaled_inputs
from kgmgt_jax.data.validation import RetrospectiveCase, validation_cases
from kgmgt_jax.evaluation.figures import cine_gif, comparison_figure
from kgmgt_jax.evaluation.sequence import CineInput, reconstruct_cine
from kgmgt_jax.evaluation.tables import format_table, write_metrics_json
from kgmgt_jax.metrics import evaluate
from kgmgt_jax.models.kgmgt import KGMgT
from kgmgt_jax.training.checkpoint import CheckpointError, build_model, load_weights

__all__ = ["Method", "evaluate_files"]


@dataclasses.dataclass(frozen=True)
class Method:
    """A trained network by name.

    Attributes:
        name: what tables call it.
        source: where its checkpoint is.
        model: the network.
        variables: its variables.
        circular: whether it was trained to see the last frame before the first.
        input_fill: what its inputs have in the place of unmeasured samples.
        sens: how coil maps are estimated, for files without.
    """

    name: str
    source: str
    model: KGMgT
    variables: Any
    circular: bool = True
    input_fill: str = "zero"
    sens: str = "espirit"

    @classmethod
    def load(cls, name: str, path: str | Path) -> "Method":
        """Loads a checkpoint; see ``training.checkpoint.load_weights``."""
        config, variables = load_weights(path)
        try:
            model = build_model(config.model)
            circular = bool(config.data.circular)
            input_fill = config.data.get("input_fill", cls.input_fill)
            sens = config.data.get("sens", cls.sens)
        except (AttributeError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: expected this project's config, got {error}") from error
        return cls(name, str(path), model, variables, circular, input_fill, sens)

    def reconstruct(
        self,
        kspace: Complex64[np.ndarray, "t n h w"],
        mask: Float32[np.ndarray, "t h w"],
        sens: Complex64[np.ndarray, "*t n h w"] | None,
        progress: Callable[[int], None] | None = None,
    ) -> Complex64[np.ndarray, "t h w"]:
        """Images of a cine, in the units of its k-space.

        Args:
            kspace: k-space of the cine; what lies outside the mask is not looked at.
            mask: 1 where measured.
            sens: sensitivities; ``None`` for a single coil.
            progress: called with the number of frames done after each group of them.

        Raises:
            CheckpointError: if the variables are not those of the model.
        """
        images, measured, scale = scaled_inputs(
            kspace, mask, sens, circular=self.circular, input_fill=self.input_fill
        )
        cine = CineInput(images, measured, mask, sens)
        try:
            frames = reconstruct_cine(
                self.model, self.variables, cine, circular=self.circular, progress=progress
            )
            return np.asarray(frames) * scale
        except (flax_errors.ScopeParamShapeError, flax_errors.ScopeParamNotFoundError) as error:
            reason = str(error).split("(https")[0].strip()
            raise CheckpointError(
                f"{self.source}: expected weights of the model in its config, got: {reason}"
            ) from error


def evaluate_files(
    data: str | Path,
    methods: Sequence[Method],
    out: str | Path,
    *,
    mask_kind: str,
    acceleration: float,
    acs: int,
    preset: str,
    seed: int,
) -> str:
    """Scores methods and the zero-filled images on every slice of fully sampled files.

    Writes ``metrics.json``, and a figure and a GIF of the first case by the first method.

    Args:
        data: folder of fully sampled files, or one file.
        methods: networks to score.
        out: folder for what is written.
        mask_kind: sampling pattern.
        acceleration: nominal acceleration.
        acs: central lines that are always measured.
        preset: definition of the metrics.
        seed: of the masks.

    Returns:
        The table and the paths, to print.
    """
    source = open_slices(data, split="test", acs=acs, sens=methods[0].sens, cache_gib=0)
    cases = validation_cases(
        source, mask_kind=mask_kind, acceleration=acceleration, acs=acs, seed=seed
    )
    scores, measured, samples, pictures = {}, 0.0, 0, []
    out = Path(out)
    for case in tqdm(cases, desc="evaluate", unit="slice", dynamic_ncols=True):
        images = _images_of_case(case, methods)
        reference = images.pop("reference")
        scores[case.name] = {
            name: evaluate(np.abs(reference), np.abs(image), preset)
            for name, image in images.items()
        }
        measured, samples = measured + float(case.mask.sum()), samples + case.mask.size
        if not pictures:
            title = f"{case.name}, {mask_kind} {samples / measured:.2f}x"
            pictures = _draw(out, images, reference, methods[0].name, title)
    metrics = write_metrics_json(
        out / "metrics.json",
        scores,
        preset=preset,
        acceleration={"nominal": acceleration, "true": samples / measured},
        mask={"kind": mask_kind, "acs": acs, "seed": seed},
        checkpoints={method.name: method.source for method in methods},
    )
    return "\n".join([format_table(metrics), *map(str, [out / "metrics.json", *pictures])])


def _images_of_case(
    case: RetrospectiveCase, methods: Sequence[Method]
) -> dict[str, Complex64[np.ndarray, "t h w"]]:
    """The reference, the zero-filled images and each method's, in the units of the k-space."""
    kspace, mask, sens, _ = case
    images = {
        "reference": coil_combine(ifft2c(kspace), sens),
        "zero_filled": coil_combine(ifft2c(kspace * mask[:, None]), sens),
    }
    return images | {method.name: method.reconstruct(kspace, mask, sens) for method in methods}


def _draw(
    out: Path, images: dict[str, np.ndarray], reference: np.ndarray, name: str, title: str
) -> list[Path]:
    zero_filled, reconstruction = images["zero_filled"], images[name]
    figure = comparison_figure(
        out / "figure.png",
        reconstruction,
        zero_filled=zero_filled,
        reference=reference,
        title=title,
    )
    panels = {"reference": reference, "zero-filled": zero_filled, name: reconstruction}
    return [figure, cine_gif(out / "cine.gif", panels)]
