"""Learned cardiac cine MRI reconstruction in JAX."""

__version__ = "0.1.0"
