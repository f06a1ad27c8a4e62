"""What is done to the slices of a prepared set."""

import math
import re
from dataclasses import dataclass
from typing import Any

from kgmgt_jax.data.formats import ReadOptions
from kgmgt_jax.mri.coils import MIN_CALIBRATION_LINES, SENS_OPTIONS

__all__ = ["SENS_METHODS", "SPLITS", "PrepareOptions"]

SENS_METHODS = tuple(SENS_OPTIONS)
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class PrepareOptions:
    """What is done to the slices.

    Attributes:
        readout: Columns to keep around the centre of the images, ``None`` for all. Readouts are
            often oversampled twofold, and their outer columns empty.
        sens: How sensitivities are estimated, ``"espirit"`` or ``"adaptive"``. Those that a file
            brings along are kept.
        acs: Central lines that they are estimated from, at least 4; all where there are fewer,
            and of undersampled slices.
        views: Cardiac views to keep, e.g. ``("sax",)``; ``"lax"`` stands for ``"lax_4ch"`` and
            its like too. Empty for all, also unknown ones.
        split: Fractions of the subjects for train, validation and test, summing to 1, which are
            rounded to whole subjects. One may be 0, and those at the end may be missing.
        seed: Of the split, at least 0.
        subject: Regular expression that finds the subject in a path below the source, the first
            group of it if there is one; ``None`` for the rules of `identify`.
        read: How files are read, and how k-space is made of magnitude images.
        undersampled: Whether undersampled slices are kept, to train without references, and no
            fully sampled ones.

    Raises:
        ValueError: If a value is out of range.
    """

    readout: int | None = None
    sens: str = "espirit"
    acs: int = 24
    views: tuple[str, ...] = ()
    split: tuple[float, ...] = (0.8, 0.1, 0.1)
    seed: int = 0
    subject: str | None = None
    read: ReadOptions = ReadOptions()
    undersampled: bool = False

    def __post_init__(self) -> None:
        if self.readout is not None and self.readout < 1:
            raise ValueError(f"readout must be at least 1 column, got {self.readout}")
        if self.sens not in SENS_METHODS:
            raise ValueError(f"sens must be one of {SENS_METHODS}, got {self.sens!r}")
        if self.acs < MIN_CALIBRATION_LINES:
            raise ValueError(f"acs must be at least {MIN_CALIBRATION_LINES}, got {self.acs}")
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, got {self.seed}")
        fractions = self.split
        fit = 1 <= len(fractions) <= len(SPLITS) and all(0 <= part <= 1 for part in fractions)
        if not fit or not math.isclose(sum(fractions), 1, abs_tol=1e-6):
            wanted = f"1 to {len(SPLITS)} fractions, at least 0, that sum to 1"
            raise ValueError(f"split must be {wanted}, such as 0.8,0.1,0.1, got {fractions}")
        try:
            re.compile(self.subject or "")
        except re.error as error:
            got = f"{self.subject!r} ({error})"
            raise ValueError(f"subject must be a regular expression, got {got}") from error

    def settings(self) -> dict[str, Any]:
        """All of it in values that JSON knows."""
        simulation = self.read.simulation
        n_coils = simulation.n_coils
        share = simulation.single_coil_share
        return {
            "readout": self.readout,
            "sens": self.sens,
            "acs": self.acs,
            "views": list(self.views),
            "split": list(self.split),
            "seed": self.seed,
            "subject": self.subject,
            "key": self.read.key,
            "axes": self.read.axes,
            "coils": n_coils if isinstance(n_coils, int) else list(n_coils),
            "noise": simulation.noise,
            "simulation_seed": simulation.seed,
            # sets without these came first
            **({"single_coil_share": share} if share else {}),
            **({"undersampled": True} if self.undersampled else {}),
            **({"virtual_coils": self.read.virtual_coils} if self.read.virtual_coils else {}),
        }
