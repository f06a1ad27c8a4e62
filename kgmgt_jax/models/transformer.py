"""The MGwinT block and the transformer body built of it."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from kgmgt_jax.models.attend import ATTENDED
from kgmgt_jax.models.attention import AnchoredAttention, GlobalAttention, SquareAttention
from kgmgt_jax.models.block_kernel import block_fits, block_in_kernels, block_weights
from kgmgt_jax.models.block_options import BlockOptions
from kgmgt_jax.models.layers import drop_path, gelu

__all__ = ["MGwinTBlock", "ResidualGroup", "TransformerBody"]


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
            n = self.n_groups * self.n_blocks
            rates = jnp.linspace(0.0, self.drop_path, n, dtype=jnp.float32)
            rates = rates.reshape(self.n_groups, self.n_blocks)
        fits = self.options.layers.pallas and block_fits(self.options, x.shape)
        if fits and not train and not self.is_initializing():
            return _fastest(self.clone(parent=None), self.variables["params"], x)

        def turn(group: ResidualGroup, x: Array, rates: Array | None):
            return group(x, rates), None

        loop = _loop(turn, self.n_groups, self.unroll)
        group = ResidualGroup(self.options, self.n_blocks, self.remat, self.unroll, name="groups")
        x, _ = loop(group, self.options.layers.layer_norm("norm_in")(x), rates)
        return self.options.layers.layer_norm("norm_out")(x)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _fastest(body: TransformerBody, params: Any, x: Array) -> Array:
    """A body at inference: in kernels on an NVIDIA GPU, plain elsewhere and backwards."""
    kernels = functools.partial(_in_kernels, body)
    return jax.lax.platform_dependent(params, x, cuda=kernels, default=_plain(body))


def _plain(body: TransformerBody) -> Callable[..., Any]:
    options = dataclasses.replace(
        body.options, layers=dataclasses.replace(body.options.layers, pallas=False)
    )
    plain = body.clone(options=options)
    return lambda params, x: plain.apply({"params": params}, x, train=False)


def _forward(body: TransformerBody, *args: Any) -> tuple[Array, tuple]:
    return _fastest(body, *args), args


def _backward(body: TransformerBody, args: tuple, grad: Array) -> tuple:
    return jax.vjp(_plain(body), *args)[1](grad)


_fastest.defvjp(_forward, _backward)


def _in_kernels(
    body: TransformerBody, params: Any, x: Float[Array, "b h w c"], *, interpret: bool = False
) -> Float[Array, "b h w c"]:
    """A body at inference, its blocks in the kernels of ``models.block_kernel``."""
    options, n_blocks = body.options, body.n_blocks
    norm: Any = options.layers.layer_norm()
    conv: Any = options.layers.conv(options.width)
    blocks = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), params["groups"]["blocks"])
    weights = jax.vmap(functools.partial(block_weights, options))(blocks)

    def block(x: Array, turn: Array) -> tuple[Array, None]:
        return block_in_kernels(options, weights, x, turn, interpret=interpret), None

    index = jnp.arange(body.n_groups * n_blocks, dtype=jnp.int32)
    turns = jnp.stack([index, index % 2 * (options.window // 2)], axis=1)
    x = norm.apply({"params": params["norm_in"]}, x)
    for i in range(body.n_groups):
        mine = turns[i * n_blocks : (i + 1) * n_blocks]
        y, _ = jax.lax.scan(block, x, mine, unroll=n_blocks if body.unroll else 1)
        kernel = jax.tree.map(lambda a: a[i], params["groups"]["conv"])  # noqa: B023
        x = x + conv.apply({"params": kernel}, y)
    return norm.apply({"params": params["norm_out"]}, x)


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
