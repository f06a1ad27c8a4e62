"""Tissues and their signal in a balanced steady-state sequence."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Complex, Float

__all__ = ["TISSUES", "Protocol", "Tissue", "bssfp_signal"]


@dataclass(frozen=True)
class Tissue:
    """Relaxation times in ms at 1.5 T, proton density relative to water, chemical shift in Hz."""

    t1: float
    t2: float
    density: float
    shift: float = 0.0


TISSUES: Mapping[str, Tissue] = {
    "air": Tissue(1000.0, 100.0, 0.0),
    "lung": Tissue(1200.0, 40.0, 0.08),
    "blood": Tissue(1550.0, 250.0, 0.95),
    "myocardium": Tissue(1000.0, 48.0, 0.80),
    "fibrous": Tissue(900.0, 25.0, 0.40),
    "muscle": Tissue(1000.0, 36.0, 0.75),
    "fat": Tissue(290.0, 85.0, 0.85, shift=-220.0),
    "liver": Tissue(590.0, 46.0, 0.75),
    "spleen": Tissue(1050.0, 75.0, 0.80),
    "kidney": Tissue(1000.0, 85.0, 0.80),
    "fluid": Tissue(2800.0, 900.0, 0.90),
    "marrow": Tissue(600.0, 55.0, 0.60),
    "bone": Tissue(800.0, 10.0, 0.12),
    "cord": Tissue(950.0, 85.0, 0.75),
}


@dataclass(frozen=True)
class Protocol:
    """Repetition time in ms and flip angle in rad of a balanced sequence with TE = TR / 2."""

    repetition_time: float
    flip_angle: float


def bssfp_signal(
    tissue: Tissue, protocol: Protocol, off_resonance: Float[np.ndarray, "*grid"]
) -> Complex[np.ndarray, "*grid"]:
    """Steady-state signal of a balanced sequence with alternating RF phase, at the echo.

    ``S = M0 sin α (1 - E1) √E2 (e^{iθ/2} + E2 e^{-iθ/2}) / (D + C cos θ)`` with
    ``E = exp(-TR/T)``, ``C = E2 (1 - E1)(1 + cos α)``, ``D = 1 - E1 cos α - E2² (E1 - cos α)`` and
    the precession over one repetition ``θ = 2π TR (Δf + shift)``. It vanishes nearly at θ = π (the
    dark bands) and changes sign from one band to the next. Fat therefore points against water,
    which draws the dark line where the two share a pixel.

    Args:
        tissue: relaxation times in ms and chemical shift in Hz.
        protocol: TR in ms and flip angle α in rad.
        off_resonance: Δf in Hz.

    Returns:
        The transverse magnetisation in units of the equilibrium magnetisation of water.

    Source: Hargreaves, "Rapid gradient-echo imaging", JMRI 36:1300 (2012).
    """
    e1 = np.exp(-protocol.repetition_time / tissue.t1)
    e2 = np.exp(-protocol.repetition_time / tissue.t2)
    cos = np.cos(protocol.flip_angle)
    theta = 2e-3 * np.pi * protocol.repetition_time * (off_resonance + tissue.shift)
    amplitude = tissue.density * np.sin(protocol.flip_angle) * (1 - e1) * np.sqrt(e2)
    numerator = np.exp(0.5j * theta) + e2 * np.exp(-0.5j * theta)
    denominator = 1 - e1 * cos - e2**2 * (e1 - cos) + e2 * (1 - e1) * (1 + cos) * np.cos(theta)
    return amplitude * numerator / denominator
