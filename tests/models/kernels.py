"""Programs with Pallas kernels for a GPU that is not there."""

import contextlib

import jax

__all__ = ["PALLAS", "absent_gpu", "lowered_for_cuda"]

PALLAS = "__gpu$xla.gpu.triton"  # what a kernel is called in a program


def lowered_for_cuda(function, *inputs):
    """The program of a function for NVIDIA GPUs, as text."""
    check = jax.export.DisabledSafetyCheck.custom_call(PALLAS)
    exporting = jax.export.export(jax.jit(function), platforms=["cuda"], disabled_checks=[check])
    with absent_gpu():
        return exporting(*inputs).mlir_module()


def absent_gpu():
    """From 0.11 on, JAX wants to know for which GPU it lowers a kernel where there is none."""
    if jax.__version_info__ < (0, 11):
        return contextlib.nullcontext()
    device = jax.sharding.AbstractDevice("NVIDIA H100 80GB HBM3", 132, "gpu")
    mesh = jax.sharding.AbstractMesh((1,), ("x",), abstract_device=device)
    return jax.sharding.use_abstract_mesh(mesh)
