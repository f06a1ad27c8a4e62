"""Frames of reference that move with the breathing and with the pull of the heart."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from kgmgt_jax.data.phantom.canvas import Coordinates
from kgmgt_jax.data.phantom.heart import Beat, Heart, OverTime
from kgmgt_jax.data.phantom.texture import noise_field

__all__ = ["Motion"]


@dataclass(frozen=True)
class Motion:
    """Frames of reference ``(x, y)``: the image, the body at rest, and the organs that move.

    Attributes:
        image: pixel coordinates, ``(1, h, w)``.
        body: the same, bent by a slow random field so that nothing is quite regular.
        organs: ``body`` following respiration and the pull of the heart, ``(t, h, w)``.
        drift: respiratory shift in mm, a pair of ``(t, 1, 1)``.
        beat: the motion of the heart itself.
    """

    image: Coordinates
    body: Coordinates
    organs: Coordinates
    drift: tuple[OverTime, OverTime]
    beat: Beat

    @classmethod
    def draw(
        cls,
        rng: np.random.Generator,
        x: Float[np.ndarray, "h w"],
        y: Float[np.ndarray, "h w"],
        heart: Heart,
        beat: Beat,
        *,
        breathing: float,
        taper: float,
    ) -> "Motion":
        """Random frames for the grid ``x, y`` of shape ``(h, w)``.

        ``breathing`` is the amplitude in mm along y; ``taper`` how much narrower than its middle
        the body may be at the top, as a fraction.
        """
        x, y = x[None], y[None]
        bend, lift = noise_field(rng, 70.0), noise_field(rng, 70.0)
        turn, taper = rng.uniform(-0.08, 0.08), rng.uniform(0.0, taper)
        wide = 1 / (1 + taper * y / 150)
        body = (
            (x + turn * y) * wide + 4.0 * bend(x, y),
            y - turn * x + 4.0 * lift(x, y),
        )
        n_frames = len(beat.contraction)
        time = (np.arange(n_frames, dtype=np.float32) / n_frames)[:, None, None]
        start = rng.uniform(0, 2 * np.pi)
        wave = np.sin(start + rng.uniform(0.8, 2.0) * time) - np.sin(start)
        drift = (0.25 * breathing * wave, breathing * wave)
        dx, dy = x - heart.position[0] + 20, y - heart.position[1]
        pull = 0.045 * beat.contraction * np.exp(-(dx**2 + dy**2) / (2 * 45.0**2))
        organs = (body[0] - drift[0] + pull * dx, body[1] - drift[1] + pull * dy)
        return cls(image=(x, y), body=body, organs=organs, drift=drift, beat=beat)
