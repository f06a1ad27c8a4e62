"""Scoring checkpoints on retrospectively undersampled cines."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import errors as flax_errors
from jaxtyping import Complex64, Float32
from tqdm import tqdm

from kgmgt_jax.data.sources import open_slices
from kgmgt_jax.data.transforms import coil_combine, ifft2c, scaled_inputs
from kgmgt_jax.data.validation import RetrospectiveCase, validation_cases
from kgmgt_jax.evaluation.figures import cine_gif, comparison_figure
from kgmgt_jax.evaluation.regions import score_regions
from kgmgt_jax.evaluation.report import (
    CineExample,
    Efficiency,
    ReportData,
    Sampling,
    ScoreSet,
    write_report,
    write_score_files,
)
from kgmgt_jax.evaluation.sequence import CineInput, reconstruct_cine
from kgmgt_jax.evaluation.tables import format_table, write_metrics_json
from kgmgt_jax.metrics import evaluate
from kgmgt_jax.models.kgmgt import KGMgT
from kgmgt_jax.training.checkpoint import CheckpointError, build_model, load_weights

__all__ = ["Method", "evaluate_files"]

_EXAMPLES = 4  # cases that the report shows


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

    @property
    def n_parameters(self) -> int:
        """Trained numbers of the network."""
        return sum(np.size(leaf) for leaf in jax.tree.leaves(self.variables["params"]))

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

    Writes ``metrics.json``; tables as CSV; ``report.html``, one page with tables, players and
    plots; and a figure and a GIF of the first case by the first method.

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
    out = Path(out)
    source = open_slices(data, split="test", acs=acs, sens=methods[0].sens, cache_gib=0)
    cases = validation_cases(
        source, mask_kind=mask_kind, acceleration=acceleration, acs=acs, seed=seed
    )
    scores: dict[str, dict] = {}
    regions: dict[str, dict] = {}
    examples: list[CineExample] = []
    measured = samples = 0.0
    total = len(methods) * sum(info.shape[0] for info in source.slices)
    with tqdm(total=total, desc="evaluate", unit="frame", dynamic_ncols=True, mininterval=1) as bar:
        for case in cases:
            reference, images = _magnitudes(case, methods, bar.update)
            scores[case.name] = {k: evaluate(reference, v, preset) for k, v in images.items()}
            for region, found in score_regions(reference, images, preset).items():
                regions.setdefault(region, {})[case.name] = found
            measured, samples = measured + float(case.mask.sum()), samples + case.mask.size
            if len(examples) < _EXAMPLES:
                true = case.mask.size / float(case.mask.sum())
                sampling = Sampling(mask_kind, true, acceleration, acs)
                origin = "simulated from magnitude images" if case.simulated else ""
                example = CineExample(case.name, sampling, images, reference, case.mask, origin)
                examples.append(example)
    metrics = write_metrics_json(
        out / "metrics.json",
        scores,
        preset=preset,
        acceleration={"nominal": acceleration, "true": samples / measured},
        mask={"kind": mask_kind, "acs": acs, "seed": seed},
        checkpoints={method.name: method.source for method in methods},
    )
    sampling = Sampling(mask_kind, samples / measured, acceleration, acs)
    score_sets = [ScoreSet(sampling, preset, regions)]
    report = ReportData(
        title=str(data),
        main=methods[0].name,
        score_sets=score_sets,
        examples=examples,
        efficiency={method.name: Efficiency(method.n_parameters) for method in methods},
        facts={method.name: method.source for method in methods} | {"seed": str(seed)},
    )
    written = [
        out / "metrics.json",
        *_draw(out, examples[0], methods[0].name),
        write_report(out / "report.html", report),
        *write_score_files(out, score_sets, methods[0].name),
    ]
    return "\n".join([format_table(metrics), *map(str, written)])


def _magnitudes(
    case: RetrospectiveCase, methods: Sequence[Method], progress: Callable[[int], Any]
) -> tuple[Float32[np.ndarray, "t h w"], dict[str, Float32[np.ndarray, "t h w"]]]:
    """The reference; the zero-filled images and each method's; in the units of the k-space."""
    measurement = (case.kspace, case.mask, case.sens)
    images = {"zero_filled": coil_combine(ifft2c(case.kspace * case.mask[:, None]), case.sens)}
    images |= {method.name: method.reconstruct(*measurement, progress) for method in methods}
    reference = coil_combine(ifft2c(case.kspace), case.sens)
    return np.abs(reference), {name: np.abs(image) for name, image in images.items()}


def _draw(out: Path, example: CineExample, name: str) -> list[Path]:
    """The figure and the GIF of a case by one method."""
    zero_filled, image = example.images["zero_filled"], example.images[name]
    sampling = example.sampling
    figure = comparison_figure(
        out / "figure.png",
        image,
        zero_filled=zero_filled,
        reference=example.reference,
        title=f"{example.name}, {sampling.mask_kind} {sampling.true_acceleration:.2f}x",
    )
    panels = {"reference": example.reference, "zero-filled": zero_filled, name: image}
    return [figure, cine_gif(out / "cine.gif", panels)]
