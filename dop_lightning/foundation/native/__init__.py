"""CPU kernels in C++, compiled on the machine on which they run."""

from dop_lightning.foundation.native.compiled import library

__all__ = ["library"]
