"""A reconstruction as one StableHLO program, to run where this package is not installed::

    python -m kgmgt_jax.interop.export CHECKPOINT --out FILE --shape 12,1,256,256

The program holds the weights and does all of it: measured k-space in, complex images out, in the
units of the k-space. JAX runs it, of the version that wrote it or a newer one; it reads it by
``flatbuffers``, a package that JAX does not bring::

    exported = jax.export.deserialize(Path(FILE).read_bytes())
    images = exported.call(kspace=kspace, mask=mask)      # exported.in_avals: shapes and types

and ``exported.mlir_module_serialized`` is its bytecode, for other runtimes built on XLA. They must
have what JAX compiles to: complex Fourier transforms, which IREE has not, and, where inputs are
filled by L+S, JAX's calls of LAPACK or cuSOLVER for eigenvalues.
"""

import argparse
import contextlib
import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jaxtyping import Array, Complex, Float

from kgmgt_jax.commands import guarded
from kgmgt_jax.data.atomic import write_atomically
from kgmgt_jax.data.filling import fill_on_device
from kgmgt_jax.evaluation.cine import CineInput, scaled_cine
from kgmgt_jax.evaluation.methods import Method
from kgmgt_jax.evaluation.sequence import reconstruct_cine
from kgmgt_jax.evaluation.symmetries import ensemble_mean
from kgmgt_jax.models.chunks import chunks_for
from kgmgt_jax.models.kgmgt import KGMgT

__all__ = ["export_reconstruction", "main", "reconstruction_function"]

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def reconstruction_function(method: Method) -> Callable[..., Complex[Array, "t h w"]]:
    """The function of k-space that ``method.reconstruct`` is, as one that JAX can compile.

    Args:
        method: the network.

    Returns:
        ``f(kspace, mask, sens=None)`` to complex images (t h w) in the units of ``kspace``, with

        - ``kspace``: complex64 (t n h w), centred, orthonormal; what lies outside the mask is not
          looked at;
        - ``mask``: float32 (t h w), 1 where measured;
        - ``sens``: complex64 (n h w), for several coils.
    """

    def reconstruct(
        kspace: Complex[Array, "t n h w"],
        mask: Float[Array, "t h w"],
        sens: Complex[Array, "n h w"] | None = None,
    ) -> Complex[Array, "t h w"]:
        kspace = jnp.where(mask[:, None] > 0, kspace, 0)
        options = {"sens": sens, "circular": method.circular}
        filled = fill_on_device(kspace, mask, method.input_fill, **options)
        cine, scale = scaled_cine(kspace, mask, sens, filled)
        variables = method.variables
        if method.fixed_variables is not None:
            choose = functools.partial(jnp.where, (mask == mask[:1]).all())
            variables = jax.tree.map(choose, method.fixed_variables, variables)

        def images(cine: CineInput) -> Complex[Array, "t h w"]:
            return reconstruct_cine(method.model, variables, cine, circular=method.circular)

        return scale * ensemble_mean(images, cine, method.self_ensemble)

    return reconstruct


def export_reconstruction(
    checkpoint: str | Path,
    shape: tuple[int, int, int, int],
    *,
    platforms: Sequence[str] | None = None,
) -> export.Exported:
    """Traces the reconstruction of cines of one shape.

    Args:
        checkpoint: a training workdir, one checkpoint, or ``"pretrained"``.
        shape: frames, coils, height and width of the k-space. With more than one coil the program
            takes sensitivities.
        platforms: where it shall run, of cpu, cuda, rocm, tpu; ``None``: where it is exported. If
            a CPU is among them it is cut into blocks that suit a CPU, and is slower elsewhere.

    Raises:
        CheckpointError: if the weights cannot be read or are not those of their network.
        ValueError: for an unknown platform, or a shape that is not four positive numbers.
    """
    if len(shape) != 4 or min(shape) < 1:
        raise ValueError(f"expected frames, coils, height and width, all positive, got {shape=}")
    unknown = sorted(set(platforms or ()) - set(PLATFORMS))
    if unknown:
        raise ValueError(f"expected platforms among {', '.join(PLATFORMS)}, got {unknown}")
    method = Method.load("", checkpoint)
    if isinstance(method.model, KGMgT):  # JAX keeps no promise for exported Pallas kernels
        method = dataclasses.replace(method, model=method.model.clone(pallas=False))
    t, n, h, w = shape
    arguments: dict[str, Any] = {
        "kspace": jax.ShapeDtypeStruct((t, n, h, w), np.complex64),
        "mask": jax.ShapeDtypeStruct((t, h, w), np.float32),
    }
    if n > 1:
        arguments["sens"] = jax.ShapeDtypeStruct((n, h, w), np.complex64)
    function = jax.jit(reconstruction_function(method))
    with _without_paths(), chunks_for(cpu="cpu" in (platforms or [jax.default_backend()])):
        return export.export(function, platforms=platforms)(**arguments)


@contextlib.contextmanager
def _without_paths() -> Iterator[None]:
    """Lets a program name the files of its operations without the folders of this machine."""
    name = "jax_hlo_source_file_canonicalization_regex"
    before = getattr(jax.config, name)
    jax.config.update(name, ".*/")
    try:
        yield
    finally:
        jax.config.update(name, before)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; ends as ``commands.guarded`` says."""
    parser = argparse.ArgumentParser(
        prog="python -m kgmgt_jax.interop.export",
        description="The reconstruction of a checkpoint as one StableHLO program.",
    )
    parser.add_argument("checkpoint", help="training workdir, one checkpoint, or 'pretrained'")
    parser.add_argument("--out", required=True, help="file to be written")
    parser.add_argument("--shape", required=True, help="frames,coils,height,width")
    parser.add_argument("--platforms", help=f"of {','.join(PLATFORMS)}; else this machine's")
    options = parser.parse_args(arguments)

    def work() -> None:
        if Path(options.out).is_dir():
            raise ValueError(f"--out: expected a file to write, got the folder {options.out}")
        platforms = options.platforms.split(",") if options.platforms else None
        exported = export_reconstruction(
            options.checkpoint, _numbers(options.shape), platforms=platforms
        )
        path = write_atomically(options.out, lambda p: p.write_bytes(exported.serialize()))
        names = ", ".join(f"{k} {v.shape}" for k, v in _arguments(exported).items())
        size = path.stat().st_size / 2**20
        print(f"{path}: {size:.1f} MiB, for {', '.join(exported.platforms)}; takes {names}")

    return guarded(work)


def _numbers(text: str) -> tuple[int, int, int, int]:
    try:
        frames, coils, height, width = (int(part) for part in text.split(","))
    except ValueError as error:
        raise ValueError(f"expected --shape frames,coils,height,width, got {text!r}") from error
    return frames, coils, height, width


def _arguments(exported: export.Exported) -> dict[str, Any]:
    """Shapes and types of what the program takes, by name."""
    _, named = jax.tree.unflatten(exported.in_tree, exported.in_avals)
    return named


if __name__ == "__main__":
    sys.exit(main())
