"""Kernels for processors, in C++; compiled on the machine where they run."""

from dop_lightning.foundation.native.compiled import library

__all__ = ["library"]
