"""What a report shows: plain arrays and words, checked before a page is made of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Array, Float

from kgmgt_jax.evaluation.sampling import Sampling
from kgmgt_jax.metrics import check_preset

__all__ = ["CineExample", "Efficiency", "ReportData", "ScoreSet"]

Cine = Float[np.ndarray, "t h w"]
MethodScores = Mapping[str, Mapping[str, Float[Array | np.ndarray, " n"]]]


@dataclass(frozen=True)
class ScoreSet:
    """Scores of all methods on all cases, for one sampling and one preset.

    Attributes:
        sampling: how the cases were undersampled.
        preset: the key of `metrics.PRESETS` scores were computed with.
        scores: ``{region: {case: {method: {metric: (n,)}}}}``, n frames or, where the preset
            scores volumes, 1. Every region has the same methods in each of its cases.
        subjects: ``{case: who was scanned}``; a case left out is a subject of its own.
        accelerations: ``{case: its own true one}``, which sizes change; a case left out has that of
            the sampling, which is that of all cases together.
    """

    sampling: Sampling
    preset: str
    scores: Mapping[str, Mapping[str, MethodScores]]
    subjects: Mapping[str, str] = field(default_factory=dict)
    accelerations: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_preset(self.preset)
        if not self.scores or not all(self.scores.values()):
            raise ValueError(f"expected scores of at least one case in each region, {self.scores=}")


@dataclass(frozen=True, eq=False)
class CineExample:
    """One case to look at.

    Attributes:
        name: of the case, as in the scores.
        sampling: how it was undersampled, with its own true acceleration.
        images: ``{method: (t, h, w)}`` magnitudes on the scale of the reference.
        reference: fully sampled magnitudes; ``None`` if there are none, and then no error maps.
        mask: sampling mask, to be drawn; may be left out.
        simulation: how the k-space was simulated; empty for measured k-space.
        aspect: height / width of a pixel.
    """

    name: str
    sampling: Sampling
    images: Mapping[str, Cine]
    reference: Cine | None = None
    mask: Cine | None = None
    simulation: str = ""
    aspect: float = 1.0

    def __post_init__(self) -> None:
        if not self.images:
            raise ValueError(f"expected images of at least one method, got none in {self.name!r}")
        cines = dict(self.images)
        if self.reference is not None:
            cines["reference"] = self.reference
        shapes = {name: np.shape(cine) for name, cine in cines.items()}
        if self.mask is not None:
            shapes["mask"] = self.mask.shape
        if len(set(shapes.values())) != 1 or len(next(iter(shapes.values()))) != 3:
            raise ValueError(
                f"expected cines of one shape (t, h, w) in {self.name!r}, got {shapes}"
            )
        for name, cine in cines.items():
            if np.iscomplexobj(cine) or not np.isfinite(cine).all() or np.min(cine) < 0:
                raise ValueError(
                    f"expected finite magnitudes, not negative, of {name!r} in {self.name!r}; pass "
                    "absolute values"
                )


@dataclass(frozen=True)
class Efficiency:
    """What a method costs; ``None`` where it is unknown or has no meaning.

    Attributes:
        parameters: trainable numbers.
        gflops: arithmetic of one frame, 1e9 operations.
        latency_ms: time of one frame, after compilation.
        peak_mib: largest memory of the computation.
        device: on what latency and memory were measured.
        shape: of the k-space they were measured with, (t, coil, ky, kx).
    """

    parameters: int | None = None
    gflops: float | None = None
    latency_ms: float | None = None
    peak_mib: float | None = None
    device: str = ""
    shape: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class ReportData:
    """Everything on the page.

    Attributes:
        title: heading.
        main: the method that others are compared with.
        score_sets: one for each sampling and preset.
        examples: cines, the first is shown first.
        efficiency: by method; may be empty.
        labels: names to show for methods, where not their keys.
        simulation: ``{case: how its k-space was simulated}``, for cases that were; those of the
            examples need not be repeated.
        unscored: ``{case: why}``, reconstructed but without reference.
        failed: ``{case: error}``, not reconstructed.
        facts: what else to state: command, checkpoints, versions, seed.

    Raises:
        ValueError: if there is neither a score nor an example, or the main method is missing.
    """

    title: str
    main: str
    score_sets: Sequence[ScoreSet]
    examples: Sequence[CineExample] = ()
    efficiency: Mapping[str, Efficiency] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    simulation: Mapping[str, str] = field(default_factory=dict)
    unscored: Mapping[str, str] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.score_sets and not self.examples:
            raise ValueError("expected scores or example cines to report, got neither")
        if self.score_sets and self.main not in self.methods:
            raise ValueError(f"expected {self.main=} to be one of {', '.join(self.methods)}")

    @property
    def methods(self) -> list[str]:
        """All methods, in the order they first appear."""
        names: dict[str, None] = {}
        for group in self.score_sets:
            for cases in group.scores.values():
                for methods in cases.values():
                    names |= dict.fromkeys(methods)
        for example in self.examples:
            names |= dict.fromkeys(example.images)
        return list(names | dict.fromkeys(self.efficiency))

    def simulation_of(self, case: str) -> str:
        """How a case was simulated; empty for measured k-space."""
        known = {example.name: example.simulation for example in self.examples}
        return self.simulation.get(case) or known.get(case, "")

    def label(self, method: str) -> str:
        """The name to show for a method."""
        return self.labels.get(method, method.replace("_", " "))
