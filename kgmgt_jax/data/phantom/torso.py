"""What lies around the heart: chest wall, lungs, spine, great vessels and the upper belly.

The chest wall is at the left of the image and the spine at the right; the head is up in short axis,
the patient's left side up in long axis.
"""

import numpy as np
from jaxtyping import Float

from kgmgt_jax.data.phantom.canvas import Plane, polar, superellipse
from kgmgt_jax.data.phantom.motion import Motion
from kgmgt_jax.data.phantom.texture import noise_field, ripple, tissue_grain

__all__ = ["paint_torso_axial", "paint_torso_oblique"]


def _chest_wall(plane: Plane, rng, motion: Motion, half_widths) -> np.ndarray:
    """Skin fat, muscle with fatty septa, ribs; returns the distance into the chest cavity in mm."""
    x, y = motion.body
    torso = superellipse(x, y, half_widths, power=2.5, ripple=ripple(rng, 0.015))
    uneven, streaks = noise_field(rng, 55.0), noise_field(rng, 9.0)
    fat = rng.uniform(7, 15) + 2.5 * uneven(x, y)
    muscle = rng.uniform(11, 15) + 2.5 * uneven(y + 90, x)
    grain = tissue_grain(rng, 0.05)(x, y)
    plane.paint("muscle", torso)
    plane.paint("fat", torso - 1.2, texture=grain)
    plane.paint("muscle", torso - fat, texture=1 + 0.10 * streaks(x, 2.5 * y))
    seam = 0.9 - np.abs(torso - fat - 0.45 * muscle - 1.5 * streaks(x, y))
    plane.paint("fat", seam, opacity=0.8)
    a, b = half_widths
    count = int(rng.integers(15, 19))
    for k in range(count):
        turn = 2 * np.pi * (k + rng.uniform(-0.2, 0.2)) / count
        cos, sin = np.cos(turn), np.sin(turn)
        inset = 21 + rng.uniform(-1.5, 1.5)
        stretch = (np.abs(cos) ** 2.5 + np.abs(sin) ** 2.5) ** (-1 / 2.5)
        spot = ((a - inset) * cos * stretch, (b - inset) * sin * stretch)
        slope = np.arctan2(b * cos, -a * sin)
        long = rng.uniform(5, 10)
        plane.blob("bone", motion.body, spot, (long, 4.4), angle=slope, power=2.5)
        plane.blob("marrow", motion.body, spot, (long - 1.7, 2.9), angle=slope, power=2.5)
    inside = torso - fat - muscle
    plane.paint("fat", inside, texture=0.9 * grain)
    return inside


def _vessel_tree(plane, rng, at, hilum, sector, clip) -> None:
    """Pulmonary vessels: branches from ``hilum`` within a ``sector`` of angles, thinning out."""
    for _ in range(9):
        angle, width = rng.uniform(*sector), rng.uniform(1.4, 3.2)
        spot = polar(hilum, angle, rng.uniform(0, 18))
        for _ in range(4):
            tip = polar(spot, angle, rng.uniform(6, 15))
            plane.stroke("blood", at, spot, tip, width, clip=clip, texture=lambda x, y: 0.5)
            spot, angle, width = tip, angle + rng.normal(0, 0.55), 0.72 * width
    for _ in range(22):
        spot = polar(hilum, rng.uniform(*sector), rng.uniform(10, 75))
        size = rng.uniform(0.7, 1.6)
        plane.blob("blood", at, spot, (size, size), clip=clip, opacity=rng.uniform(0.1, 0.6))


def _solid(plane, rng, tissue, motion, centre, axes, *, angle=0.0, clip=None, n_vessels=0) -> None:
    """An organ in a thin fat capsule, with texture and vessels cut at random."""
    shape = {"angle": angle, "power": 2.3, "ripple": ripple(rng, 0.05), "clip": clip}
    plane.blob("fat", motion.organs, centre, tuple(a + 1.2 for a in axes), **shape)
    plane.blob(tissue, motion.organs, centre, axes, **shape, texture=tissue_grain(rng, 0.05))
    for _ in range(n_vessels):
        turn, depth = rng.uniform(0, 2 * np.pi), np.sqrt(rng.uniform(0, 0.6))
        spot = (
            centre[0] + depth * axes[0] * np.cos(turn),
            centre[1] + depth * axes[1] * np.sin(turn),
        )
        radii = (rng.uniform(1.2, 4.5), rng.uniform(0.9, 1.8))
        tilt = rng.uniform(0, np.pi)
        plane.blob("blood", motion.organs, spot, radii, angle=tilt, clip=clip, opacity=0.7)


def _gut(plane, rng, motion, centre, size: float, clip) -> None:
    """A loop of stomach or bowel: wall, contents, and gas that has risen to the front."""
    axes = (size * rng.uniform(0.8, 1.2), size * rng.uniform(0.6, 0.9))
    shape = {"angle": rng.uniform(0, np.pi), "ripple": ripple(rng, 0.06), "clip": clip}
    tissue = rng.choice(["fluid", "muscle", "liver", "fat"], p=[0.2, 0.35, 0.3, 0.15])
    plane.blob("muscle", motion.organs, centre, axes, **shape)
    inner = tuple(a - 2.2 for a in axes)
    plane.blob(
        str(tissue), motion.organs, centre, inner, **shape, texture=tissue_grain(rng, 0.08, 4.0)
    )
    if rng.uniform() < 0.35:
        spot = (centre[0] - 0.45 * inner[0], centre[1])
        plane.blob("air", motion.organs, spot, (0.45 * inner[0], 0.6 * inner[1]), clip=clip)


def paint_torso_oblique(
    plane: Plane, rng: np.random.Generator, motion: Motion, level: float
) -> Float[np.ndarray, "1 h w"]:
    """Chest and upper belly in the plane of a short-axis slice: lung above, liver below.

    Returns:
        Distance into the chest cavity in mm, ``(1, h, w)``, for the heart to stay within.
    """
    half_widths = (rng.uniform(102, 116), rng.uniform(148, 158))
    inside = _chest_wall(plane, rng, motion, half_widths)
    x, y = motion.organs
    dome = rng.uniform(24, 36) - 14 * (level - 0.5) + 0.0028 * (x - rng.uniform(-5, 20)) ** 2 - y
    lung = np.minimum(np.minimum(inside - 1, dome), superellipse(x - 12, y + 30, (88, 96)))
    plane.paint("muscle", np.minimum(inside, np.minimum(dome + 3.0, lung + 4.0)))
    plane.paint("lung", lung, texture=tissue_grain(rng, 0.35)(x, y))
    hilum = (rng.uniform(35, 50), rng.uniform(-35, -20))
    _vessel_tree(plane, rng, motion.organs, hilum, (2.2, 5.8), lung - 3)
    belly = np.minimum(inside, -dome - 4)
    for _ in range(9):
        spot = (rng.uniform(-55, 60), rng.uniform(85, 135))
        _gut(plane, rng, motion, spot, rng.uniform(11, 18), belly)
    grow = 1.15 - 0.35 * level
    liver = (rng.uniform(-58, -40), rng.uniform(72, 90))
    axes = (grow * rng.uniform(38, 52), grow * rng.uniform(30, 44))
    tilt = rng.uniform(-0.5, 0.2)
    _solid(plane, rng, "liver", motion, liver, axes, angle=tilt, clip=belly, n_vessels=14)
    _gut(plane, rng, motion, (rng.uniform(14, 26), rng.uniform(66, 78)), rng.uniform(22, 28), belly)
    spleen = (rng.uniform(58, 68), rng.uniform(60, 75))
    _solid(plane, rng, "spleen", motion, spleen, (26, 14), angle=0.8, clip=belly, n_vessels=3)
    kidney = (rng.uniform(44, 56), rng.uniform(104, 118))
    _solid(plane, rng, "kidney", motion, kidney, (16, 25), angle=0.3, clip=belly, n_vessels=5)
    back = half_widths[0]
    _spine_column(plane, rng, motion, back - rng.uniform(38, 44), inside + 16)
    _aorta(plane, motion, (back - rng.uniform(64, 70), rng.uniform(-30, 0)), rng.uniform(1.0, 1.6))
    return inside


def _spine_column(plane, rng, motion, x: float, clip) -> None:
    """Vertebrae and discs along the back wall, cut near the midline."""
    shift, pitch, curve = rng.uniform(0, 26), rng.uniform(23, 27), rng.uniform(0.0004, 0.0012)
    for k in range(-6, 6):
        y = pitch * k + shift
        spot = (x - curve * y**2, y)
        tilt = -2 * curve * y
        shape = {"angle": -tilt, "power": 3.5, "ripple": ripple(rng, 0.03), "clip": clip}
        half = pitch / 2 - 2.5
        grain = tissue_grain(rng, 0.12)
        plane.blob("bone", motion.body, spot, (12.0, half + 1.3), **shape)
        plane.blob("marrow", motion.body, spot, (10.6, half), **shape, texture=grain)
        disc = (spot[0], y + pitch / 2)
        plane.blob("spleen", motion.body, disc, (9.5, 1.8), angle=-tilt, clip=clip, opacity=0.8)


def _aorta(plane, motion, centre, stretch: float) -> None:
    """The descending aorta, widened by the pulse."""
    radius = 10.5 * (1 + 0.07 * np.roll(motion.beat.contraction, 1, axis=0))
    for tissue, margin in (("fat", 3.2), ("muscle", 1.4), ("blood", 0.0)):
        axes = (radius + margin, stretch * radius + margin)
        plane.blob(tissue, motion.body, centre, axes)


def paint_torso_axial(
    plane: Plane, rng: np.random.Generator, motion: Motion, level: float
) -> Float[np.ndarray, "1 h w"]:
    """Chest in the plane of a four-chamber view: two lungs, spine, aorta, sometimes the liver.

    Returns:
        Distance into the chest cavity in mm, ``(1, h, w)``, for the heart to stay within.
    """
    half_widths = (rng.uniform(106, 116), rng.uniform(144, 156))
    inside = _chest_wall(plane, rng, motion, half_widths)
    x, y = motion.organs
    for side in (-1, 1):
        axes = (rng.uniform(74, 84), rng.uniform(62, 70))
        spot = (rng.uniform(4, 16), side * rng.uniform(70, 78))
        lung = superellipse(x - spot[0], y - spot[1], axes, power=2.5, ripple=ripple(rng, 0.03))
        lung = np.minimum(lung, inside - 1.5)
        plane.paint("muscle", lung + 1.5)
        plane.paint("lung", lung, texture=tissue_grain(rng, 0.35)(x, y))
        hilum = (rng.uniform(30, 42), side * 22.0)
        sector = (0.2, 2.8) if side > 0 else (3.4, 6.0)
        _vessel_tree(plane, rng, motion.organs, hilum, sector, lung - 2)
        if side > 0:
            shown, spot = rng.uniform() - 0.3 * (level - 0.5), (rng.uniform(-45, -10), 122.0)
            size = rng.uniform(28, 54) * (shown < 0.6) + 0.1
            axes = (size, 0.8 * size)
            _solid(plane, rng, "liver", motion, spot, axes, clip=lung - 1, n_vessels=8)
    back = half_widths[0]
    _vertebra(plane, rng, motion, back - 43)
    _aorta(plane, motion, (back - rng.uniform(56, 62), rng.uniform(-26, -20)), 1.0)
    gullet = (back - rng.uniform(66, 70), rng.uniform(-8, -4))
    plane.blob("muscle", motion.body, gullet, (5, 7))
    for side in (-1, 1):
        spot = (back - 22, side * rng.uniform(26, 32))
        plane.blob("muscle", motion.body, spot, (13, 22), power=2.5, texture=tissue_grain(rng, 0.1))
    return inside


def _vertebra(plane, rng, motion, x: float) -> None:
    """Vertebral body, processes, and the spinal canal with its cord, cut across."""
    for side in (-1, 1):
        start, end = (x + 22, side * 9.0), (x + 27, side * 30.0)
        plane.stroke("bone", motion.body, start, end, 10.0)
        plane.stroke("marrow", motion.body, start, end, 6.0)
    plane.stroke("bone", motion.body, (x + 30, 0.0), (x + 40, 0.0), 8.0)
    plane.blob("bone", motion.body, (x, 0.0), (15.5, 18.5), power=2.4)
    plane.blob(
        "marrow", motion.body, (x, 0.0), (13.8, 16.8), power=2.4, texture=tissue_grain(rng, 0.12)
    )
    plane.blob("bone", motion.body, (x + 24, 0.0), (11.5, 12.0))
    plane.blob("fluid", motion.body, (x + 24, 0.0), (8.5, 9.5))
    plane.blob("cord", motion.body, (x + 24.5, 0.0), (4.2, 5.0))
