"""The environment in which tests start the scripts: one CPU device, the suite's compiler flags."""

import os

__all__ = ["scripts_environment"]


def scripts_environment(**more: str) -> dict[str, str]:
    """Environment variables; of several values of a compiler flag the last one counts."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=1"
    return {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", **more}
