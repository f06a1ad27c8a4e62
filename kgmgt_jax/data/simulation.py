"""K-space simulated from images that a scanner has already reconstructed.

Such images are interpolated, combined over coils and filtered, so their undersampled
reconstructions look better than those of measured data. Every case says that it is simulated.
"""

import zlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Complex64, Num

from kgmgt_jax.data.phantom.coils import (
    coil_sensitivities,
    complex_noise,
    pixel_grid,
    smooth_phase,
)
from kgmgt_jax.data.transforms import fft2c

__all__ = ["Simulation"]

_LONGER_SIDE_MM = 340.0
_CHEST_MM = (155.0, 110.0)
_TILT = 0.45


@dataclass(frozen=True)
class Simulation:
    """How k-space is made from the images of a cine.

    With images x, a random quadratic phase φ (not for complex images), coil maps s of loops around
    the chest, and circular complex Gaussian noise n::

        y_n = F(s_n x e^{iφ}) + n_n,      E|n|² = (noise · P99(|x|))²

    F is the centred orthonormal DFT and P99 the 99th percentile over the cine. φ, s and n depend
    on the seed, the name and the shape only. The longer side of the image stands for 340 mm.

    Attributes:
        n_coils: Receive coils; one has the same sensitivity everywhere. A pair is the least and
            the most of a number that `draw_coils` draws for each file.
        noise: Standard deviation of the noise as a fraction of P99, at least 0.
        seed: Of everything random, at least 0.
        single_coil_share: Of files that have one coil rather than a number from the pair, 0 to 1.

    Raises:
        ValueError: If a value is out of range.
    """

    n_coils: int | tuple[int, int] = 8
    noise: float = 0.005
    seed: int = 0
    single_coil_share: float = 0.0

    def __post_init__(self) -> None:
        if np.size(self.n_coils) not in (1, 2):
            raise ValueError(f"expected n_coils, or the least and the most, got {self.n_coils}")
        least, most = self._range
        if not 1 <= least <= most or not 0 <= self.noise < np.inf or self.seed < 0:
            raise ValueError(f"expected n_coils >= 1, noise >= 0 and seed >= 0, got {self}")
        if not 0 <= self.single_coil_share <= 1:
            raise ValueError(f"expected single_coil_share of 0 to 1, got {self.single_coil_share}")

    @property
    def _range(self) -> tuple[int, int]:
        n_coils = np.ravel(self.n_coils).tolist()
        return n_coils[0], n_coils[-1]

    def draw_coils(self, name: str) -> int:
        """A number of coils, by seed and name if there is a choice.

        Args:
            name: Name of the file, all of whose slices have equal coils.
        """
        least, most = self._range
        rng = np.random.default_rng([self.seed, zlib.crc32(f"{name}: coils".encode())])
        n_coils = int(rng.integers(least, most + 1))
        return 1 if rng.random() < self.single_coil_share else n_coils

    def __str__(self) -> str:
        """What a case of magnitude images says about itself."""
        return self.told(complex_images=False)

    def told(self, *, complex_images: bool) -> str:
        """What a case says about itself; complex images keep the phase they have."""
        images, phase = "images", "smooth random phase"
        if complex_images:
            images, phase = "complex images", "the images' own phase"
        coils = "1 coil" if self._range == (1, 1) else f"{self.n_coils} coils"
        return (
            f"simulated from {images}: {coils}, noise {self.noise:g} of the 99th percentile, "
            f"{phase}, seed {self.seed}"
        )

    def run(
        self, images: Num[np.ndarray, "t h w"], name: str
    ) -> tuple[Complex64[np.ndarray, "t n h w"], Complex64[np.ndarray, "t h w"]]:
        """K-space, and the noise-free images with their phase, in the units of ``images``.

        Args:
            images: Magnitude images, at least 0, or complex ones.
            name: Name of the case, which the random numbers depend on.

        Raises:
            ValueError: If ``n_coils`` is a choice of several; see `draw_coils`.
        """
        n_coils, most = self._range
        if n_coils != most:
            raise ValueError(f"expected one number of coils, as draw_coils(name) gives, got {self}")
        rng = np.random.default_rng([self.seed, zlib.crc32(name.encode())])
        h, w = images.shape[-2:]
        fov = (_LONGER_SIDE_MM * h / max(h, w), _LONGER_SIDE_MM * w / max(h, w))
        x, y = pixel_grid((h, w), fov)
        phase = smooth_phase(rng, 2 * x / fov[1], 2 * y / fov[0])
        if np.iscomplexobj(images):
            phase = np.zeros_like(phase)
        image = (images * np.exp(1j * phase)).astype(np.complex64)
        sens = coil_sensitivities(rng, x, y, n_coils, tilt=_TILT, half_widths=_CHEST_MM)
        kspace = fft2c(image[:, None] * sens).astype(np.complex64)
        std = self.noise * float(np.percentile(np.abs(image), 99))
        return kspace + complex_noise(rng, kspace.shape, std), image
