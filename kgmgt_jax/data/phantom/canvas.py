"""Painting tissues onto the imaged slice, with partial volume at every edge.

Positions are in mm: ``x`` along the readout (columns), ``y`` along phase encoding (rows,
downwards), the origin at the centre.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

__all__ = ["Coordinates", "Plane", "Point", "Quantity", "polar", "superellipse"]

Quantity = float | int | np.floating | Float[np.ndarray, "..."]
Point = tuple[Quantity, Quantity]
Coordinates = tuple[Float[np.ndarray, "#t h w"], Float[np.ndarray, "#t h w"]]
_EVERYWHERE = (slice(None), slice(None))


def superellipse(
    x: Float[np.ndarray, "..."],
    y: Float[np.ndarray, "..."],
    axes: Point,
    *,
    angle: Quantity = 0.0,
    power: float = 2.0,
    ripple: Iterable | None = None,
) -> Float[np.ndarray, "..."]:
    """Approximate signed distance to a rippled superellipse around the origin, positive inside.

    With ``g = (|u/a|^p + |v/b|^p)^{1/p}`` in rotated coordinates ``(u, v)``, the first-order
    distance is ``(1 - g) / |∇g|``: exact at the edge, and for a circle everywhere.

    Args:
        x: column coordinate in mm; any shapes that broadcast with ``y``.
        y: row coordinate in mm.
        axes: semi-axes ``(a, b)`` in mm, numbers or arrays.
        angle: of the first axis from x towards y, in rad.
        power: p >= 2; larger is squarer.
        ripple: rows ``(order, amplitude, phase)``: the radius is multiplied by
            ``1 + Σ amplitude cos(order φ + phase)``.

    Returns:
        Distance in mm, of the broadcast shape.
    """
    a, b = axes
    u = x * np.cos(angle) + y * np.sin(angle)
    v = y * np.cos(angle) - x * np.sin(angle)
    if ripple is not None:
        phi = np.arctan2(v, u)
        scale = 1 + sum(amplitude * np.cos(k * phi + phase) for k, amplitude, phase in ripple)
        u, v = u / scale, v / scale
    p, q = np.abs(u / a), np.abs(v / b)
    if power == 2.0:
        g = np.maximum(np.hypot(p, q), 1e-4)
        slope = np.hypot(p / a, q / b) / g
    else:
        g = np.maximum((p**power + q**power) ** (1 / power), 1e-4)
        slope = np.hypot((p / g) ** (power - 1) / a, (q / g) ** (power - 1) / b)
    flattest = 2 ** (1 / power - 0.5) / np.maximum(a, b)  # of |∇g|, undefined at the origin
    return (1 - g) / np.maximum(slope, flattest)


def polar(centre: Point, angle: Quantity, distance: Quantity) -> Point:
    """The point at ``distance`` (mm) from ``centre``, ``angle`` (rad) from x towards y."""
    return centre[0] + distance * np.cos(angle), centre[1] + distance * np.sin(angle)


@dataclass(frozen=True)
class Plane:
    """The imaged slice: each pixel mixes the signals of what covers it.

    Shapes are painted one over the other, ``image <- image + α (signal - image)``, where the
    coverage ``α = clip(distance / width + 1/2, 0, 1)`` falls over one pixel. An edge that moves by
    a fraction of a pixel thus changes the pixels it crosses in proportion.
    """

    x: Float[np.ndarray, "h w"]
    y: Float[np.ndarray, "h w"]
    pixel: float
    signals: Mapping[str, np.ndarray]
    image: np.ndarray
    labels: UInt8[np.ndarray, "t h w"]

    def paint(
        self,
        tissue: str,
        distance: Float[np.ndarray, "#t h w"],
        *,
        window: tuple[slice, slice] = _EVERYWHERE,
        opacity: Quantity = 1.0,
        softness: float = 0.0,
        texture: Quantity = 1.0,
        label: int | None = None,
    ) -> None:
        """Lay ``tissue`` over the pixels where ``distance`` (mm) is positive.

        Args:
            tissue: a key of ``signals``.
            distance: signed distance in mm, broadcastable to ``(t, h, w)`` of the window.
            window: row and column slices that ``distance`` covers.
            opacity: greatest coverage, in [0, 1].
            softness: width of the edge in mm where it exceeds a pixel.
            texture: factor on the signal, broadcastable likewise.
            label: number given to pixels covered by half or more.
        """
        cover = np.asarray(opacity, np.float32) * np.clip(
            distance / max(self.pixel, softness) + 0.5, 0, 1
        )
        region = self.image[:, *window]
        region += cover * (texture * self.signals[tissue][window] - region)
        if label is not None:
            marked = self.labels[:, *window]
            marked[np.broadcast_to(cover >= 0.5, marked.shape)] = label

    def window(self, centre: Point, reach: float) -> tuple[slice, slice]:
        """Rows and columns within ``reach`` mm of every position that ``centre`` takes."""
        columns, rows = self.x[0], self.y[:, 0]
        x0, x1 = np.min(centre[0]) - reach, np.max(centre[0]) + reach
        y0, y1 = np.min(centre[1]) - reach, np.max(centre[1]) + reach
        return (
            slice(*np.searchsorted(rows, [y0, y1])),
            slice(*np.searchsorted(columns, [x0, x1])),
        )

    def blob(
        self,
        tissue: str,
        at: Coordinates,
        centre: Point,
        axes: Point,
        *,
        angle: Quantity = 0.0,
        power: float = 2.0,
        ripple: Iterable | None = None,
        clip: Float[np.ndarray, "#t h w"] | None = None,
        **style,
    ) -> None:
        """Paint a superellipse around ``centre`` (mm), within ``clip`` (a distance) if given.

        Args:
            tissue: a key of ``signals``.
            at: coordinates ``(x, y)`` of shape ``(1 or t, h, w)``: the frame the shape moves with.
            centre: ``(x, y)`` in mm, numbers or ``(t, 1, 1)`` arrays.
            axes: semi-axes in mm, likewise; see `superellipse` for the other shape arguments.
            clip: distance in mm of shape ``(1 or t, h, w)``; the shape ends where it is negative.
            **style: passed to `paint`; ``texture`` is a function of ``at`` here.
        """
        least = self.pixel / 2  # smaller ones turn translucent
        drawn = (np.maximum(axes[0], least), np.maximum(axes[1], least))
        style["opacity"] = style.get("opacity", 1.0) * (axes[0] / drawn[0]) * (axes[1] / drawn[1])
        window = self.window(centre, 1.3 * float(np.max(np.maximum(*drawn))) + 12)
        x, y = (coordinate[:, *window] for coordinate in at)
        distance = superellipse(
            x - centre[0], y - centre[1], drawn, angle=angle, power=power, ripple=ripple
        )
        self._paint_local(tissue, distance, window, (x, y), clip, **style)

    def stroke(
        self,
        tissue: str,
        at: Coordinates,
        start: Point,
        end: Point,
        width: float,
        *,
        clip: Float[np.ndarray, "#t h w"] | None = None,
        **style,
    ) -> None:
        """Paint a line of ``width`` mm with round ends; thinner than a pixel, it is translucent.

        Args:
            tissue: a key of ``signals``.
            at: coordinates, as for `blob`.
            start: ``(x, y)`` in mm, numbers or ``(t, 1, 1)`` arrays.
            end: likewise.
            width: in mm.
            clip: as for `blob`.
            **style: as for `blob`, except ``opacity``, which the width decides.
        """
        middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
        dx, dy = end[0] - start[0], end[1] - start[1]
        length = np.maximum(np.hypot(dx, dy), 1e-3)
        window = self.window(middle, float(np.max(length)) / 2 + width + 12)
        x, y = (coordinate[:, *window] for coordinate in at)
        along = ((x - start[0]) * dx + (y - start[1]) * dy) / length**2
        along = np.clip(along, 0, 1)
        drawn = max(width, self.pixel)
        distance = drawn / 2 - np.hypot(x - start[0] - along * dx, y - start[1] - along * dy)
        style["opacity"] = width / drawn
        self._paint_local(tissue, distance, window, (x, y), clip, **style)

    def _paint_local(self, tissue, distance, window, at, clip, *, texture=None, **style) -> None:
        """Paint in a window after clipping, with the texture evaluated there."""
        if clip is not None:
            distance = np.minimum(distance, clip[:, *window])
        factor = 1.0 if texture is None else texture(*at)
        self.paint(tissue, distance, window=window, texture=factor, **style)
