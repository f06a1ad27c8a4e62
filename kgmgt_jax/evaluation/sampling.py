"""What a table or a report says of how its cines were undersampled."""

from dataclasses import dataclass

import numpy as np

__all__ = ["Sampling"]


@dataclass(frozen=True)
class Sampling:
    """How cines were undersampled.

    Attributes:
        mask_kind: family of the sampling pattern.
        true_acceleration: all samples over measured ones, the central lines included; >= 1.
        nominal_acceleration: as the pattern is named; ``None`` if unknown.
        acs: central lines that are always measured; ``None`` if unknown.
    """

    mask_kind: str
    true_acceleration: float
    nominal_acceleration: float | None = None
    acs: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.true_acceleration < np.inf:
            raise ValueError(f"expected true_acceleration >= 1, got {self.true_acceleration=}")

    @property
    def label(self) -> str:
        """``uniform, true 3.08x (nominal 4x), 8 central lines``."""
        nominal = self.nominal_acceleration
        parts = [self.mask_kind, f"true {self.true_acceleration:.2f}×"]  # noqa: RUF001
        if nominal is not None:
            parts[-1] += f" (nominal {nominal:g}×)"  # noqa: RUF001
        if self.acs is not None:
            parts.append(f"{self.acs} central lines")
        return ", ".join(parts)
