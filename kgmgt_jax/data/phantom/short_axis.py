"""The ventricles in short axis: rings and crescents cut across the long axis."""

import numpy as np
from jaxtyping import Float

from kgmgt_jax.data.phantom.canvas import Plane, polar
from kgmgt_jax.data.phantom.heart import (
    CAVITY,
    MYOCARDIUM,
    RIGHT_CAVITY,
    Beat,
    Heart,
    OverTime,
    blood_flow,
)
from kgmgt_jax.data.phantom.motion import Motion
from kgmgt_jax.data.phantom.texture import ripple, tissue_grain

__all__ = ["paint_short_axis", "short_axis_radii"]


def short_axis_radii(heart: Heart, beat: Beat, level: float) -> tuple[OverTime, OverTime]:
    """Cavity and epicardial radius in mm, ``(t, 1, 1)``, in a fixed slice.

    The slice lies at ``level`` of the long axis at end diastole. As the base descends it meets
    muscle from nearer the base, at level ``level L0 / L(t)``.
    """
    stretch = heart.length / beat.length
    inner = beat.radius * heart.profile(level * stretch)
    rest = heart.radius * heart.profile(level)
    wall = heart.wall * (0.75 + 0.25 * level)
    return inner, np.sqrt(inner**2 + ((rest + wall) ** 2 - rest**2) * stretch)


def paint_short_axis(
    plane: Plane,
    rng: np.random.Generator,
    heart: Heart,
    motion: Motion,
    level: float,
    inside: Float[np.ndarray, "1 h w"],
) -> None:
    """Both ventricles, their fat and the pericardium, cut across the long axis at ``level``.

    ``inside`` is the distance into the chest cavity that the torso's painter returns.
    """
    beat = motion.beat
    inner, outer = short_axis_radii(heart, beat, level)
    lean = 16 * (level - 0.5)  # the long axis is oblique to the stack of slices
    pull = 2.0 * beat.contraction
    centre = (
        heart.position[0] - 14 + lean - pull + motion.drift[0],
        heart.position[1] - 4 - 0.6 * lean + motion.drift[1],
    )
    fat, margin = ripple(rng, 0.05), rng.uniform(1.0, 3.0)
    for tissue, width in (("fibrous", margin + 1.6), ("fat", margin)):
        axes = (outer + width, outer + width)
        plane.blob(tissue, motion.image, centre, axes, ripple=fat, clip=inside)
    _right_ventricle_across(plane, rng, heart, motion, centre, outer, level, inside)
    for side in (-1, 1):  # grooves with fat and a coronary vessel
        spot = polar(centre, heart.septum_angle + side * rng.uniform(1.05, 1.25), outer + 3.0)
        plane.blob("fat", motion.image, spot, (6.5, 4.0), angle=heart.septum_angle + side * 2.4)
        plane.blob("blood", motion.image, spot, (1.6, 1.6), opacity=0.8)
    _left_ventricle_across(plane, rng, heart, motion, centre, (inner, outer), level)


def _right_ventricle_across(plane, rng, heart, motion, centre, outer, level, inside) -> None:
    """Right ventricle in short axis: a crescent, since the left one is painted over it."""
    c = motion.beat.contraction
    angle = heart.septum_angle
    size = float(outer[0, 0, 0]) * (0.62 + 0.5 * level)
    axes = (0.86 * size * (1 - 0.22 * c), 1.14 * size * (1 - 0.10 * c))
    middle = polar(centre, angle, 0.98 * outer - 0.10 * size * c)
    shape = {"angle": angle, "power": 2.2, "ripple": ripple(rng, 0.035)}
    fat, uneven = rng.uniform(1.5, 5.0), {**shape, "ripple": ripple(rng, 0.05)}
    for tissue, margin in (("fibrous", fat + 4.2), ("fat", fat + 2.8), ("myocardium", 2.8)):
        grown = tuple(a + margin for a in axes)
        style = {"clip": inside + 4, "texture": tissue_grain(rng, 0.05)}
        outline = shape if tissue == "myocardium" else uneven
        plane.blob(tissue, motion.image, middle, grown, **outline, **style)
    flow = blood_flow(rng, motion.beat, 0.05)
    style = {"softness": 2.5, "texture": flow, "label": RIGHT_CAVITY}
    plane.blob("blood", motion.image, middle, axes, **shape, **style)
    for _ in range(16):
        turn, depth = rng.uniform(-1.8, 1.8), rng.uniform(0.80, 1.02)
        spot = polar(middle, angle, depth * axes[0] * np.cos(turn))
        spot = polar(spot, angle + np.pi / 2, depth * axes[1] * np.sin(turn))
        radii = rng.uniform(1.0, 2.4), rng.uniform(1.0, 3.6)
        opacity = rng.uniform(0.4, 0.9)
        plane.blob("myocardium", motion.image, spot, radii, angle=angle + turn, opacity=opacity)


def _left_ventricle_across(plane, rng, heart, motion, centre, radii, level) -> None:
    """Left ventricle in short axis: muscle, cavity, papillary muscles, trabeculae; all twist."""
    inner, outer = radii
    beat = motion.beat
    twist = heart.twist * beat.contraction * (0.8 - 1.2 * level)
    grain = tissue_grain(rng, 0.05)

    def muscle(x, y):
        """Texture at the place that each piece of muscle has at end diastole."""
        dx, dy = x - centre[0], y - centre[1]
        phi = np.arctan2(dy, dx) - twist
        r2 = (dx**2 + dy**2 - inner**2) * (beat.length / heart.length) + inner[0] ** 2
        r = np.sqrt(np.maximum(r2, 0))
        return grain(r * np.cos(phi), r * np.sin(phi))

    oval = ripple(rng, 0.012)
    style = {"ripple": oval, "texture": muscle, "label": MYOCARDIUM}
    plane.blob("myocardium", motion.image, centre, (outer, outer), **style)
    rough = 0.9 + 0.9 * (1 - level)  # mm; the inner surface is rougher towards the apex
    ridges = [
        (k, rough * rng.normal(0, 0.42) / inner, rng.uniform(0, 6.3) - k * twist)
        for k in (2, 5, 7, 8, 11, 13)
    ]
    flow = blood_flow(rng, beat, 0.05)
    style = {"ripple": ridges, "softness": 2.2, "texture": flow, "label": CAVITY}
    plane.blob("blood", motion.image, centre, (inner, inner), **style)
    for side in (-1, 1):
        angle = heart.septum_angle + np.pi + side * rng.uniform(0.75, 1.15) + twist
        girth = np.sin(np.pi * np.clip((level - 0.05) / 0.75, 0, 1)) * rng.uniform(0.8, 1.1)
        for depth, length, width in ((0.66, 5.2, 3.8), (0.80, 4.0, 2.6)):
            spot = polar(centre, angle + side * rng.uniform(-0.15, 0.3), depth * inner)
            axes = (length * girth + 0.2, width * girth + 0.2)
            plane.blob("myocardium", motion.image, spot, axes, angle=angle, softness=2.0)
    for _ in range(18):
        angle = rng.uniform(0, 2 * np.pi) + twist
        spot = polar(centre, angle, inner * rng.uniform(0.86, 0.98))
        axes = (rng.uniform(1.0, 2.2), rng.uniform(0.7, 1.5))
        opacity = rng.uniform(0.2, 0.7)
        plane.blob("myocardium", motion.image, spot, axes, angle=angle, opacity=opacity)
