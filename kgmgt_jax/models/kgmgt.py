"""KGMgT: a mentor network guides a learner network in reconstructing one frame of a cine::

    target, preceding --> MENTOR --> mentor image, priors (five feature maps)
    mentor image, succeeding, priors --> LEARNER --> reconstruction

Source: Lyu et al., Medical Image Analysis, 2026, section 3.
"""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from kgmgt_jax.models.aggregation import GuidedUNet, Priors
from kgmgt_jax.models.denoiser import UnrolledDenoiser
from kgmgt_jax.models.encoder import Features, FrameEncoder
from kgmgt_jax.models.initialisation import constant
from kgmgt_jax.models.layers import Layers
from kgmgt_jax.models.matching import best_match, soft_match
from kgmgt_jax.models.motion import Alignment, align
from kgmgt_jax.models.padding import crop_frame, pad_frame
from kgmgt_jax.mri.fourier import to_channels, to_complex
from kgmgt_jax.types import ComplexImage, Measurement, Reconstruction

__all__ = ["KGMgT", "KnowledgeNet"]

_INITIAL_INVERSE_TEMPERATURE = 20.0


class KnowledgeNet(nn.Module):
    """K_m or K_l: align a reference, aggregate it, add the residual, denoise consistently.

    Attributes:
        unet: the U-Net of TdFA stages.
        denoiser: the unrolled denoiser with data consistency.
        flow: ``"argmax"`` or ``"soft"``.
        search_radius: reach of the matching in quarter-resolution pixels; ``None`` is global.
        warp_flow: ``"centred"`` or ``"corner"``.
        alignment: whether the reference is aligned at all.
    """

    unet: GuidedUNet
    denoiser: UnrolledDenoiser
    flow: str = "argmax"
    search_radius: int | None = 4
    warp_flow: str = "centred"
    alignment: bool = True

    @nn.compact
    def __call__(
        self,
        image: ComplexImage,
        target: Features,
        reference: Features,
        priors: Priors,
        measurement: Measurement | None,
        *,
        train: bool,
    ) -> tuple[ComplexImage, Priors]:
        """Reconstructs ``image``, whose features are ``target``, with the help of ``reference``."""
        h, w = image.shape[-2:]
        padded = to_channels(pad_frame(image, 4 * self.unet.window))  # b h w -> b hp wp 2
        references = self._align(target, reference)  # at 1, 1/2, 1/4
        residual, aggregated = self.unet(padded, priors, references, train=train)
        image = image + to_complex(crop_frame(residual, h, w))  # b hp wp 2 -> b h w
        return self.denoiser(image, measurement, train=train), aggregated  # b h w, and d1 .. d5

    def _align(
        self, target: Features, reference: Features
    ) -> tuple[Alignment, Alignment, Alignment]:
        if not self.alignment:
            large, medium, small = (Alignment(v, v, *_no_motion(v)) for v in reference.values)
            return large, medium, small
        full = jnp.promote_types(target.query.dtype, jnp.float32)
        query, key = target.query.astype(full), reference.key.astype(full)
        if self.flow == "argmax":
            match = best_match(query, key, search_radius=self.search_radius)
            return align(match, reference.values, warp_flow=self.warp_flow)
        if self.flow != "soft":
            raise ValueError(f"flow must be 'argmax' or 'soft', got {self.flow!r}")
        if self.search_radius is None:
            raise ValueError("flow='soft' needs a search_radius: its softmax is over a window")
        init = constant(math.log(_INITIAL_INVERSE_TEMPERATURE))
        beta = jnp.exp(self.param("log_inverse_temperature", init, ()))
        match = soft_match(query, key, beta, search_radius=self.search_radius)
        return align(match, reference.values, warp_flow=self.warp_flow, smooth=True)


def _no_motion(
    v: Float[Array, "b h w c"],
) -> tuple[Float[Array, "b h w 9 2"], Float[Array, "b h w 1"]]:
    """Flow of the taps and similarity where a reference is not aligned; none looks at them."""
    return jnp.zeros((*v.shape[:3], 9, 2)), jnp.zeros((*v.shape[:3], 1))


class KGMgT(nn.Module):
    """Knowledge-guided mixed-Transformer network for one frame of a cardiac cine.

    It can be differentiated backwards (``jax.grad``, ``jax.vjp``), not forwards (``jax.jvp``).

    Attributes:
        channels: C_1, C_2, C_3, feature channels at full, half and quarter resolution.
        width: channels of a token.
        n_heads: heads of each attention.
        window: side b of the square windows.
        rect_window: (height, width) of the rectangular windows by scale; ``None``: no RW-MSA.
        square_window: ``False``: no SW-MSA.
        attention: ``"window"`` or ``"global"``.
        mlp_ratio: hidden width of a block's MLP over ``width``.
        n_groups, n_blocks: residual groups of a body and blocks of a group.
        drop_path: largest stochastic depth rate.
        n_offset_groups: channel groups of the deformable aggregation.
        zero_offsets: by scale, whether offset predictions start at zero.
        encoder: ``"shared"`` or ``"released"`` (three networks, trained elsewhere).
        tie_weights: mentor and learner are one network.
        knowledge: ``False``: the learner gets no prior (zeros in its place, so that a comparison
            measures information, not size).
        alignment: ``False``: references are used unaligned.
        flow: ``"argmax"`` or ``"soft"``.
        search_radius: reach of the matching in quarter-resolution pixels; ``None``: everywhere.
        warp_flow: ``"centred"`` or ``"corner"``.
        n_iterations: denoiser iterations.
        consistency: ``"hard"``, ``"soft"`` or ``"none"``.
        solver: ``"gradient"`` or ``"cg"``, for several coils.
        denoiser_channels: width of the denoiser.
        denoiser_norm: ``"none"`` or ``"batch"``.
        remat: recompute blocks and denoiser iterations in the backward pass.
        unroll: compile every block by itself: longer to compile, fewer kernels a frame.
        dtype: compute precision, see ``layers.Layers``.
        weight_init: ``"he"`` or ``"normal"``.
        pallas: on one NVIDIA GPU, transformer blocks (in training, their attention) and deformable
            convolutions in Pallas kernels; over several, each would do the whole batch.
    """

    channels: tuple[int, int, int] = (64, 128, 256)
    width: int = 16
    n_heads: int = 4
    window: int = 8
    rect_window: tuple[tuple[int, int], ...] | None = ((16, 4), (4, 16), (16, 4))
    square_window: bool = True
    attention: str = "window"
    mlp_ratio: int = 2
    n_groups: int = 2
    n_blocks: int = 4
    drop_path: float = 0.1
    n_offset_groups: int = 4
    zero_offsets: tuple[bool, bool, bool] = (True, True, True)
    encoder: str = "shared"
    tie_weights: bool = False
    knowledge: bool = True
    alignment: bool = True
    flow: str = "argmax"
    search_radius: int | None = 4
    warp_flow: str = "centred"
    n_iterations: int = 5
    consistency: str = "hard"
    solver: str = "gradient"
    denoiser_channels: int = 64
    denoiser_norm: str = "none"
    remat: bool = True
    unroll: bool = False
    dtype: str | None = None
    weight_init: str = "he"
    pallas: bool = False

    def setup(self):
        layers = Layers(self.dtype, self.weight_init, self.pallas)
        self.frame_encoder = FrameEncoder(self.encoder, self.channels, layers)
        self.mentor_net = self._network(layers)
        self.learner_net = self.mentor_net if self.tie_weights else self._network(layers)

    def _network(self, layers: Layers) -> KnowledgeNet:
        unet = GuidedUNet(
            channels=self.channels,
            width=self.width,
            n_heads=self.n_heads,
            window=self.window,
            rect_window=self.rect_window,
            square_window=self.square_window,
            attention=self.attention,
            mlp_ratio=self.mlp_ratio,
            n_groups=self.n_groups,
            n_blocks=self.n_blocks,
            drop_path=self.drop_path,
            remat=self.remat,
            unroll=self.unroll,
            n_offset_groups=self.n_offset_groups,
            zero_offsets=self.zero_offsets,
            alignment=self.alignment,
            layers=layers,
        )
        denoiser = UnrolledDenoiser(
            n_iterations=self.n_iterations,
            consistency=self.consistency,
            solver=self.solver,
            channels=self.denoiser_channels,
            norm=self.denoiser_norm,
            remat=self.remat,
            layers=layers,
        )
        return KnowledgeNet(
            unet, denoiser, self.flow, self.search_radius, self.warp_flow, self.alignment
        )

    def encode(self, frame: ComplexImage) -> Features:
        """Features of a frame for whatever place it takes: target, preceding or succeeding."""
        return self.frame_encoder(to_channels(pad_frame(frame, 4 * self.window)))

    def mentor(
        self,
        image: ComplexImage,
        target: Features,
        preceding: Features,
        measurement: Measurement | None,
        *,
        train: bool = False,
    ) -> tuple[ComplexImage, Priors]:
        """First estimate from the undersampled frame and its predecessor; the learner's priors."""
        v1, v2, v3 = preceding.values
        priors = (v1, v2, v3, v2, v1)
        return self.mentor_net(image, target, preceding, priors, measurement, train=train)

    def learner(
        self,
        image: ComplexImage,
        priors: Priors,
        succeeding: Features,
        measurement: Measurement | None,
        *,
        train: bool = False,
    ) -> ComplexImage:
        """The reconstruction from the mentor's image, its priors, and the next frame."""
        if not self.knowledge:
            priors = jax.tree.map(jnp.zeros_like, priors)
        features = self.encode(image)
        refined, _ = self.learner_net(image, features, succeeding, priors, measurement, train=train)
        return refined

    def from_features(
        self,
        image: ComplexImage,
        target: Features,
        preceding: Features,
        succeeding: Features,
        measurement: Measurement | None,
        *,
        train: bool = False,
    ) -> Reconstruction:
        """Mentor and learner, where the three frames are encoded already.

        Args:
            image: the target frames themselves, as ``__call__`` has them.
            target, preceding, succeeding: what ``encode`` made of the frames.
            measurement: the targets' own measured k-space.
            train: as for ``__call__``.
        """
        # images b h w, and the mentor's d1 .. d5 at 1, 1/2, 1/4, 1/2, 1 as priors
        first, priors = self.mentor(image, target, preceding, measurement, train=train)
        refined = self.learner(first, priors, succeeding, measurement, train=train)
        return Reconstruction(refined, first)

    def __call__(
        self,
        target: ComplexImage,
        preceding: ComplexImage,
        succeeding: ComplexImage,
        measurement: Measurement | None = None,
        *,
        train: bool = False,
    ) -> Reconstruction:
        """Reconstructs target frames of any size.

        Args:
            target: zero-filled (coil-combined) target frames, about unit intensity.
            preceding: the frames before, likewise undersampled.
            succeeding: the frames after.
            measurement: the targets' own measured k-space, for data consistency.
            train: stochastic depth on (rng ``dropout``), batch statistics in batch norm.
        """
        # b h w -> query, key (b h4 w4 c3) and values (b h w c1), (b h2 w2 c2), (b h4 w4 c3)
        before, after, here = (self.encode(frame) for frame in (preceding, succeeding, target))
        return self.from_features(target, here, before, after, measurement, train=train)
