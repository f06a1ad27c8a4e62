"""How large a heart is and how it beats: volumes, lengths and radii of the left ventricle.

Lengths are in mm. Quantities that change over the cine have shape ``(t, 1, 1)``.
"""

import functools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from kgmgt_jax.data.phantom.texture import Field, noise_field

__all__ = [
    "CAVITY",
    "MYOCARDIUM",
    "RIGHT_CAVITY",
    "Beat",
    "Heart",
    "OverTime",
    "blood_flow",
    "contraction",
]

CAVITY, MYOCARDIUM, RIGHT_CAVITY = 1, 2, 3
OverTime = Float[np.ndarray, "t 1 1"]


def _step(phase, start, duration):
    """Cosine step from 0 to 1."""
    return (1 - np.cos(np.pi * np.clip((phase - start) / duration, 0, 1))) / 2


def contraction(
    phase: Float[np.ndarray, "*grid"], *, systole: float, kick: float
) -> Float[np.ndarray, "*grid"]:
    """How far the ventricle has contracted: 0 at end diastole, 1 at end systole.

    A cardiac cycle from the R wave on: ejection, rapid filling of ``1 - kick`` of the stroke
    volume, diastasis, and the atrial kick that fills the rest. Periodic with period 1.

    Args:
        phase: time in cardiac cycles, any shape.
        systole: share of the cycle taken by ejection, 0.3 to 0.4.
        kick: share of the stroke volume filled by the atrium, in [0, 1].
    """
    phase = np.mod(phase, 1.0)
    ejection = _step(phase, 0.02, systole)
    filling = (1 - kick) * _step(phase, systole + 0.06, 0.22) + kick * _step(phase, 0.84, 0.16)
    return ejection - filling


@dataclass(frozen=True)
class Beat:
    """The left ventricle over the cine; arrays ``(t, 1, 1)``, lengths in mm.

    Attributes:
        contraction: 0 at end diastole, 1 at end systole.
        volume: of the cavity, relative to end diastole.
        length: of the cavity from apex to valve plane.
        radius: of the cavity at the valve plane.
        outer: radius of the epicardium there.
        opening: of the valves to the atria, 0 closed, 1 open.
        swirl: cosine and sine of the phase, for flow that repeats with the beat.
    """

    contraction: OverTime
    volume: OverTime
    length: OverTime
    radius: OverTime
    outer: OverTime
    opening: OverTime
    swirl: tuple[OverTime, OverTime]


@dataclass(frozen=True)
class Heart:
    """Size, shape and function of a heart at end diastole; lengths in mm, angles in rad.

    The cavity is a half superellipsoid of ``length`` and ``radius``; see `beat`.
    """

    length: float
    radius: float
    wall: float
    power: float
    ejection_fraction: float
    shortening: float
    twist: float
    systole: float
    kick: float
    axis_angle: float
    septum_angle: float
    position: tuple[float, float]

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Heart":
        """A random adult heart: ejection fraction 0.35 to 0.72, wall 7 to 11 mm."""
        ejection_fraction = rng.choice(
            [rng.uniform(0.54, 0.72), rng.uniform(0.35, 0.54)], p=[0.8, 0.2]
        )
        return cls(
            length=rng.uniform(80, 98),
            radius=rng.uniform(22, 28),
            wall=rng.uniform(7, 11),
            power=rng.uniform(2.2, 2.7),
            ejection_fraction=float(ejection_fraction),
            shortening=float(0.24 * ejection_fraction * rng.uniform(0.8, 1.2)),
            twist=rng.uniform(0.15, 0.32),
            systole=rng.uniform(0.31, 0.37),
            kick=rng.uniform(0.15, 0.35),
            axis_angle=rng.uniform(0.4, 0.8),
            septum_angle=np.pi + rng.uniform(-0.45, 0.45),
            position=(rng.uniform(-7, 7), rng.uniform(-8, 8)),
        )

    def beat(self, n_frames: int) -> Beat:
        """The heart at ``n_frames`` equidistant phases of one cycle, the first at end diastole.

        With contraction c(t): volume ``V = 1 - EF c``, length ``L = L0 (1 - shortening c)`` (the
        valve plane descends), cavity radius ``r = r0 (V L0 / L)^{1/2}``; the muscle keeps its
        volume, so that its cross-section is ``π (R² - r²) = π (R0² - r0²) L0 / L``.
        """
        phase = (np.arange(n_frames, dtype=np.float32) / n_frames)[:, None, None]
        curve = functools.partial(contraction, systole=self.systole, kick=self.kick)
        c = curve(phase)
        volume = 1 - self.ejection_fraction * c
        ratio = 1 - self.shortening * c
        radius = self.radius * np.sqrt(volume / ratio)
        muscle = (self.radius + self.wall) ** 2 - self.radius**2
        filling = np.clip((curve(phase - 0.03) - curve(phase + 0.03)) / 0.2, 0, 1)
        diastole = (phase > self.systole + 0.06).astype(np.float32)
        return Beat(
            contraction=c,
            volume=volume,
            length=self.length * ratio,
            radius=radius,
            outer=np.sqrt(radius**2 + muscle / ratio),
            opening=np.maximum(filling, 0.4 * diastole),
            swirl=(np.cos(2 * np.pi * phase), np.sin(2 * np.pi * phase)),
        )

    def profile(self, level: np.ndarray | float) -> np.ndarray | float:
        """Cavity radius at ``level`` (0 apex, 1 valve plane) relative to the valve plane."""
        return (1 - (1 - np.clip(level, 0, 1)) ** self.power) ** (1 / self.power)


def blood_flow(rng: np.random.Generator, beat: Beat, strength: float) -> Field:
    """Uneven blood signal where fresh spins enter: drifts with the beat and repeats with it."""
    first, second = noise_field(rng, 16.0), noise_field(rng, 16.0)
    dim = 1.12 - 0.10 * beat.contraction
    cos, sin = beat.swirl
    return lambda x, y: dim + strength * (cos * first(x, y) + sin * second(x, y))
