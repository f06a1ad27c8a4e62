"""What one MGwinT block looks like."""

import dataclasses

from kgmgt_jax.models.layers import Layers

__all__ = ["BlockOptions"]


@dataclasses.dataclass(frozen=True)
class BlockOptions:
    """What one MGwinT block looks like.

    Attributes:
        width: channels of a token.
        n_heads: heads of either attention; divides ``width`` and, for RW-MSA, its half.
        window: side b of the square windows.
        rect_window: (height, width) of the rectangular windows; ``None`` leaves RW-MSA out.
        square_window: whether SW-MSA takes part.
        attention: ``"window"``, or ``"global"`` to replace both by one global attention.
        mlp_ratio: hidden width of the MLP over ``width``.
        layers: precision and initialisation.

    Raises:
        ValueError: for heads that do not divide the width, odd windows, or no attention at all.
    """

    width: int = 16
    n_heads: int = 4
    window: int = 8
    rect_window: tuple[int, int] | None = (16, 4)
    square_window: bool = True
    attention: str = "window"
    mlp_ratio: int = 2
    layers: Layers = Layers()

    def __post_init__(self):
        heads = {"n_heads": self.n_heads, "width": self.width}
        if self.width % (2 * self.n_heads):
            raise ValueError(f"2 * n_heads must divide width, got {heads}")
        if self.attention not in ("window", "global"):
            raise ValueError(f"attention must be 'window' or 'global', got {self.attention!r}")
        if self.window % 2:
            raise ValueError(f"window must be even, got {self.window}")
        if self.rect_window is not None and any(s < 2 or s % 2 for s in self.rect_window):
            raise ValueError(f"rect_window must have even sides above 0, got {self.rect_window}")
        if self.attention == "window" and not self.square_window and self.rect_window is None:
            raise ValueError(
                "square_window=False with rect_window=None leaves no attention; keep one of them"
            )
