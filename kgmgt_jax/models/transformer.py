"""The MGwinT block and the transformer body built of it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from kgmgt_jax.models.attend import ATTENDED
from kgmgt_jax.models.attention import AnchoredAttention, GlobalAttention, SquareAttention
from kgmgt_jax.models.layers import Layers, drop_path, gelu

__all__ = ["BlockOptions", "MGwinTBlock", "ResidualGroup", "TransformerBody"]


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


class MGwinTBlock(nn.Module):
    """Mixed-granularity window transformer: square and rectangular attention side by side.

    ``n = LN(x); x += DropPath(SW(n) + RW(n)); x += DropPath(W2 GELU(W1 LN(x)))``, GELU exact.

    Attributes:
        options: widths, windows and switches.
    """

    options: BlockOptions

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        shifted: Bool[Array, ""] | bool = False,
        drop_rate: Float[Array, ""] | None = None,
    ) -> Float[Array, "b h w c"]:
        """Transforms a map whose sides ``options.window`` divides.

        Args:
            x: tokens on their grid.
            shifted: whether the square windows are moved by half of their side.
            drop_rate: probability of dropping a branch for a sample; ``None`` for inference.
        """
        layers, width = self.options.layers, self.options.width

        def keep(branch: Array) -> Array:
            if drop_rate is None:
                return branch
            return drop_path(branch, drop_rate, self.make_rng("dropout"))

        n = layers.compute(layers.layer_norm("norm1")(x))
        x = x + keep(self._attend(n, shifted))
        n = layers.dense(self.options.mlp_ratio * width, name="mlp1")(layers.layer_norm("norm2")(x))
        return x + keep(layers.dense(width, name="mlp2")(gelu(n)))

    def _attend(
        self, n: Float[Array, "b h w c"], shifted: Bool[Array, ""] | bool
    ) -> Float[Array, "b h w c"]:
        o = self.options
        if o.attention == "global":
            return GlobalAttention(o.width, o.n_heads, o.layers, name="attention")(n)
        branches = []
        if o.square_window:
            square = SquareAttention(o.width, o.n_heads, o.window, o.layers, name="square")
            branches.append(square(n, shifted))
        if o.rect_window is not None:
            rect = AnchoredAttention(o.width, o.n_heads, o.rect_window, o.layers, name="rect")
            branches.append(rect(n))
        return sum(branches[1:], start=branches[0])


class ResidualGroup(nn.Module):
    """Blocks, of which every second one shifts its windows, a convolution, and the input added.

    One block is compiled for all: they are the turns of a loop.

    Attributes:
        options: the blocks' widths, windows and switches.
        n_blocks: blocks.
        remat: recompute each block in the backward pass, but for what its attentions give, instead
            of storing its inside.
        unroll: compile each block by itself after all.
    """

    options: BlockOptions
    n_blocks: int = 4
    remat: bool = True
    unroll: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], drop_rates: Float[Array, "blocks"] | None = None
    ) -> Float[Array, "b h w c"]:
        def turn(block: MGwinTBlock, x: Array, shifted: Array, drop_rate: Array | None):
            return block(x, shifted, drop_rate), None

        if self.remat:
            policy = jax.checkpoint_policies.save_only_these_names(ATTENDED)
            turn = nn.remat(turn, prevent_cse=False, policy=policy)
        loop = _loop(turn, self.n_blocks, self.unroll)
        shifted = jnp.arange(self.n_blocks) % 2 == 1
        y, _ = loop(MGwinTBlock(self.options, name="blocks"), x, shifted, drop_rates)
        return x + self.options.layers.conv(self.options.width, name="conv")(y)


class TransformerBody(nn.Module):
    """Layer norm, residual groups of MGwinT blocks, layer norm.

    Attributes:
        options: the blocks' widths, windows and switches.
        n_groups: residual groups.
        n_blocks: blocks a group, even.
        drop_path: largest probability of dropping a branch, reached linearly over the blocks.
        remat: recompute each block in the backward pass, but for what its attentions give, instead
            of storing its inside.
        unroll: compile each block by itself instead of one for all.
    """

    options: BlockOptions
    n_groups: int = 2
    n_blocks: int = 4
    drop_path: float = 0.1
    remat: bool = True
    unroll: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h w c"]:
        rates = None
        if self.n_blocks % 2:
            raise ValueError(f"n_blocks must be even (shifts alternate), got {self.n_blocks}")
        if train and self.drop_path > 0:
            rates = jnp.linspace(0.0, self.drop_path, self.n_groups * self.n_blocks)
            rates = rates.reshape(self.n_groups, self.n_blocks)
        turn = lambda group, x, rates: (group(x, rates), None)  # noqa: E731
        loop = _loop(turn, self.n_groups, self.unroll)
        group = ResidualGroup(self.options, self.n_blocks, self.remat, self.unroll, name="groups")
        x, _ = loop(group, self.options.layers.layer_norm("norm_in")(x), rates)
        return self.options.layers.layer_norm("norm_out")(x)


def _loop(turn: Callable, length: int, unroll: bool) -> Callable:
    """``turn(module, x, ...)`` so often, each turn with parameters of its own, stacked."""
    rngs: Any = {"params": True, "dropout": True}
    return nn.scan(
        turn,
        variable_axes={"params": 0},
        split_rngs=rngs,
        in_axes=0,
        length=length,
        unroll=length if unroll else 1,
        check_constancy_invariants=False,  # else the body is traced once more
    )
