"""The four-chamber view: ventricles, atria and valves in a plane along the long axis."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from kgmgt_jax.data.phantom.canvas import Plane, Point, polar
from kgmgt_jax.data.phantom.heart import (
    CAVITY,
    MYOCARDIUM,
    RIGHT_CAVITY,
    Beat,
    Heart,
    blood_flow,
)
from kgmgt_jax.data.phantom.motion import Motion
from kgmgt_jax.data.phantom.texture import ripple, tissue_grain

__all__ = ["paint_four_chamber"]


@dataclass(frozen=True)
class _LongAxis:
    """Heart coordinates in the four-chamber plane: ``s`` from the apex to the base, ``q`` across.

    ``q`` points to the right ventricle; the origin is the tip of the left cavity.
    """

    apex: Point
    angle: float

    def place(self, s, q):
        """Image position of the point ``(s, q)``."""
        return polar(polar(self.apex, self.angle, s), self.angle + np.pi / 2, q)

    def along(self, x, y):
        """Coordinate ``s`` of image positions."""
        return (x - self.apex[0]) * np.cos(self.angle) + (y - self.apex[1]) * np.sin(self.angle)


def paint_four_chamber(
    plane: Plane,
    rng: np.random.Generator,
    heart: Heart,
    motion: Motion,
    level: float,
    inside: Float[np.ndarray, "1 h w"],
) -> None:
    """Ventricles, atria and valves in a plane along the long axis.

    ``level`` shifts the plane: at 0.5 it holds the axis, elsewhere the chambers are narrower.
    ``inside`` is the distance into the chest cavity that the torso's painter returns.
    """
    beat = motion.beat
    valve = (heart.position[0] + 12 + motion.drift[0], heart.position[1] - 9 + motion.drift[1])
    frame = _LongAxis(polar(valve, heart.axis_angle, -heart.length), heart.axis_angle)
    narrow = float(np.sqrt(1 - (1.4 * (level - 0.5)) ** 2))
    radius, outer = beat.radius * narrow, beat.outer * narrow
    behind = beat.length - frame.along(*motion.image)  # distance to the valve plane, in mm
    right = _right_ventricle_shape(rng, beat, frame, outer, rng.uniform(24, 29) * narrow)
    flow = blood_flow(rng, beat, 0.05)
    fat, lean = rng.uniform(2.0, 5.0), {"angle": heart.axis_angle}
    for tissue, margin in (("fibrous", fat + 1.5), ("fat", fat)):
        style = {"texture": tissue_grain(rng, 0.06), "clip": np.minimum(inside, behind + 12)}
        for middle, axes, shape in (
            (frame.place(beat.length, 0.0), (beat.length + 0.7 * heart.wall, outer), lean),
            (right.middle, (right.axes[0] + 4, right.axes[1] + 4), right.shape),
            (frame.place(beat.length + 4, 0.5 * outer), (20.0, 1.5 * outer), lean),
        ):
            grown = (axes[0] + margin, axes[1] + margin)
            plane.blob(tissue, motion.image, middle, grown, **shape, **style)
    _atria(plane, rng, heart, motion, frame, (outer, right.width), flow)
    _right_ventricle_along(plane, rng, motion, frame, (outer, right), behind, flow)
    _left_ventricle_along(plane, rng, heart, motion, frame, (radius, outer), behind, flow)
    _valves(plane, motion, frame, (radius, outer, right.width))


@dataclass(frozen=True)
class _RightVentricle:
    """Outline of the right cavity in long axis; ``width`` is its half-width at end diastole."""

    middle: Point
    axes: Point
    shape: dict
    width: float


def _right_ventricle_shape(rng, beat: Beat, frame, outer, width) -> _RightVentricle:
    """An ellipse along the septum, wider at the base, which narrows and shortens in systole."""
    half = width * (1 - 0.20 * beat.contraction)
    middle = frame.place(0.66 * beat.length, 0.70 * outer + half - 4)
    shape = {"angle": frame.angle + 0.22, "power": 2.2, "ripple": ripple(rng, 0.03)}
    return _RightVentricle(middle, (0.58 * beat.length, half), shape, width)


def _atria(plane, rng, heart, motion, frame, sizes, flow) -> None:
    """Left and right atrium, pulled longer in systole by the valve plane; pulmonary veins."""
    outer, right = sizes
    base, image = motion.beat.length, motion.image
    edge = float(outer[0, 0, 0])
    roof = heart.length + rng.uniform(34, 42)
    for q, half, top in ((-2.0, edge - 8, roof), (edge + 0.75 * right, 0.95 * right, roof - 4)):
        middle = frame.place((base + top) / 2, q)
        axes = ((top - base) / 2 + 3, half)
        shape = {"angle": frame.angle, "power": 2.4, "ripple": ripple(rng, 0.03)}
        plane.blob("myocardium", image, middle, tuple(a + 2.0 for a in axes), **shape)
        plane.blob("blood", image, middle, axes, **shape, softness=2.0, texture=flow)
    for q, side in ((-edge + 14, -1), (6.0, 1)):
        start = frame.place(roof - 9, q)
        end = frame.place(roof + rng.uniform(4, 10), q + side * rng.uniform(8, 16))
        plane.stroke("blood", image, start, end, rng.uniform(6, 8), texture=flow)
    wall = edge - 8 + (0.75 * right + 8 - 0.95 * right) / 2
    start, end = frame.place(base + 2, wall + 1), frame.place(roof - 4, wall - 1)
    plane.stroke("myocardium", image, start, end, 3.0)
    for q in (-edge - 1.5, edge - 2, edge + 1.75 * right):  # fat in the groove at the valve plane
        plane.blob("fat", image, frame.place(base + 3, q), (6.5, 5.0), angle=frame.angle + 0.5)
        plane.blob("blood", image, frame.place(base + 4, q), (1.7, 1.7), opacity=0.8)


def _right_ventricle_along(plane, rng, motion, frame, sizes, behind, flow) -> None:
    """Right ventricle in long axis: narrow towards the apex, trabeculated free wall."""
    outer, right = sizes
    base, middle, axes = motion.beat.length, right.middle, right.axes
    grown, angle = tuple(a + 3.0 for a in axes), right.shape["angle"]
    plane.blob("myocardium", motion.image, middle, grown, **right.shape, clip=behind + 1)
    style = {"softness": 2.5, "texture": flow, "label": RIGHT_CAVITY, "clip": behind + 3}
    plane.blob("blood", motion.image, middle, axes, **right.shape, **style)
    for _ in range(16):
        turn, depth = rng.uniform(0.6, 3.3), rng.uniform(0.82, 1.0)
        spot = polar(middle, angle, depth * axes[0] * np.cos(turn))
        spot = polar(spot, angle + np.pi / 2, depth * axes[1] * np.sin(turn))
        radii = rng.uniform(1.0, 3.2), rng.uniform(1.0, 2.2)
        style = {"opacity": rng.uniform(0.3, 0.9), "clip": behind - 6}
        plane.blob("myocardium", motion.image, spot, radii, angle=angle + turn, **style)
    start, end = (
        frame.place(0.30 * base, outer - 3),
        frame.place(0.42 * base, outer + 1.3 * axes[1]),
    )
    plane.stroke("myocardium", motion.image, start, end, 3.0)  # moderator band


def _left_ventricle_along(plane, rng, heart, motion, frame, sizes, behind, flow) -> None:
    """Left ventricle in long axis: bullet-shaped wall and cavity, papillary muscle, trabeculae."""
    radius, outer = sizes
    base, image = motion.beat.length, motion.image
    cap = 0.7 * heart.wall * heart.length / base
    grain = tissue_grain(rng, 0.05)

    def muscle(x, y):
        """Texture in coordinates that shorten and thicken with the wall."""
        s = frame.along(x, y) * (heart.length / base)
        across = (y - frame.apex[1]) * np.cos(frame.angle) - (x - frame.apex[0]) * np.sin(
            frame.angle
        )
        return grain(s, across * (outer[0] / outer))

    shape = {"angle": frame.angle, "power": heart.power, "ripple": ripple(rng, 0.01)}
    centre = frame.place(base, 0.0)
    style = {"clip": behind + 2, "texture": muscle, "label": MYOCARDIUM}
    plane.blob("myocardium", image, centre, (base + cap, outer), **shape, **style)
    style = {"clip": behind + 4, "softness": 2.2, "texture": flow, "label": CAVITY}
    plane.blob("blood", image, centre, (base, radius), **shape, **style)
    for side, reach in ((-1, rng.uniform(0.55, 0.68)), (1, rng.uniform(0.40, 0.5))):
        start = frame.place(0.30 * base, side * 0.74 * radius)
        end = frame.place(reach * base, side * 0.62 * radius)
        plane.stroke("myocardium", image, start, end, rng.uniform(4.5, 6.5), softness=2.0)
        tip = frame.place(base - 10, side * 0.4 * radius)
        plane.stroke("fibrous", image, end, tip, 0.8)
    for _ in range(22):
        level, side = rng.uniform(0.04, 0.6), rng.choice([-1.0, 1.0])
        q = side * radius * heart.profile(level) * rng.uniform(0.84, 1.0)
        radii = rng.uniform(1.2, 3.5), rng.uniform(0.8, 1.6)
        style = {"angle": frame.angle + side * 0.4, "opacity": rng.uniform(0.2, 0.7)}
        plane.blob("myocardium", image, frame.place(level * base, q), radii, **style)


def _valves(plane, motion, frame, sizes) -> None:
    """Leaflets of the mitral and tricuspid valve, swinging with the opening of the beat."""
    radius, outer, right = sizes
    base, opening = motion.beat.length, motion.beat.opening
    for middle, half, s in (
        (0.0 * radius, 0.9 * radius, base),
        (outer + 0.8 * right, 0.75 * right, base - 5),
    ):
        for side in (-1, 1):
            hinge = frame.place(s + 2, middle + side * half)
            tip = frame.place(s - 3 - 0.55 * half * opening, middle + side * half * 0.6 * opening)
            plane.stroke("fibrous", motion.image, hinge, tip, 1.8)
