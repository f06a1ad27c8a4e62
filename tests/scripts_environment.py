"""The environment in which tests start other processes: CPU devices, the suite's compiler flags."""

import os

__all__ = ["scripts_environment"]


def scripts_environment(*, n_devices: int = 1, **more: str) -> dict[str, str]:
    """Environment variables; of several values of a compiler flag the last one counts."""
    count = f"--xla_force_host_platform_device_count={n_devices}"
    flags = f"{os.environ.get('XLA_FLAGS', '')} {count}"
    return {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", **more}
