"""Axis legend and array aliases used in every signature.

======  ======================================================================
letter  axis
======  ======================================================================
b       batch (independent target frames)
t       cardiac frames, in time order
n       receive coils
h       phase encoding (``ky``; image rows), undersampled
w       readout (``kx``; image columns), fully sampled
c       channels of a feature map or token
2       real and imaginary part, where a network sees a complex image
======  ======================================================================

K-space is centred: the zero frequency lies at index ``size // 2`` of both axes. Masks are 1 where
a sample was measured and 0 elsewhere, of shape ``(..., h, w)`` so that patterns which vary along
the readout need no special case.
"""

from typing import NamedTuple

from jaxtyping import Array, Complex, Float, Int, PRNGKeyArray

__all__ = [
    "ComplexImage",
    "KSpace",
    "Key",
    "Mask",
    "Measurement",
    "Reconstruction",
    "Scalar",
    "Sens",
]

ComplexImage = Complex[Array, "b h w"]
KSpace = Complex[Array, "b n h w"]
Sens = Complex[Array, "b n h w"]
Mask = Float[Array, "b h w"]
Key = PRNGKeyArray
Scalar = float | int | Float[Array, ""] | Int[Array, ""]  # a number, or an array of one


class Measurement(NamedTuple):
    """What the scanner measured of one target frame, and nothing else.

    Attributes:
        kspace: centred k-space by coil, 0 where not measured (n = 1 without ``sens``).
        mask: 1 where measured.
        sens: coil sensitivities with unit sum of squares; ``None`` for one coil of sensitivity 1.
    """

    kspace: KSpace
    mask: Mask
    sens: Sens | None = None


class Reconstruction(NamedTuple):
    """What a network makes of a target frame.

    Attributes:
        image: the reconstruction; KGMgT's learner makes it.
        mentor: the mentor's image; of a network without a mentor the reconstruction again.
    """

    image: ComplexImage
    mentor: ComplexImage
