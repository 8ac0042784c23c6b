"""What is chosen by the features of a processor: the precision of networks, and how kernels are compiled."""

import platform
from dataclasses import dataclass

import torch

X86 = ("x86_64", "amd64", "i386", "i686")
"""Names of the architecture by which Python and compilers know it, in lower case."""

TUNED_BY_CPU = ("aarch64", "arm64", "armv7l", "ppc64le", "ppc64")
"""Architectures of which GCC takes the processor by ``-mcpu``; ``-march`` is only a part of it there, or unknown."""


@dataclass(frozen=True)
class Processor:
    """Features of a processor.

    Attributes:
        architecture: such as ``x86_64`` or ``aarch64``.
        capability: vectors that PyTorch uses: ``AVX512``, ``AVX2``, ``SVE256``, ``DEFAULT``, …
        amx: whether it has Intel's units for products of bf16 matrices.
        avx512_bf16: whether it multiplies vectors of bf16.
    """

    architecture: str
    capability: str = "DEFAULT"
    amx: bool = False
    avx512_bf16: bool = False

    @property
    def is_x86(self) -> bool:
        """Whether it is one of Intel's and AMD's architecture."""
        return self.architecture.lower() in X86

    @property
    def bf16_units(self) -> tuple[str, ...]:
        """Names of the units by which networks run in bf16, if any.

        Those of ARM are not among them: whether they are faster has not been measured.
        """
        units = (("AMX", self.amx), ("AVX-512 BF16", self.avx512_bf16))
        return tuple(name for name, has_units in units if has_units) if self.is_x86 else ()

    @property
    def vectors(self) -> str:
        """The vector instructions that PyTorch uses, as people call them."""
        known = {"AVX512": "AVX-512", "AVX2": "AVX2"}
        if self.is_x86:
            return known.get(self.capability, "no AVX2")
        if self.capability.startswith("SVE"):
            return f"SVE of {self.capability.removeprefix('SVE')} bits"
        return "NEON" if self.architecture.lower() in ("aarch64", "arm64") else "plain instructions"

    @property
    def precision(self) -> str:
        """The precision of networks by default, ``bf16`` or ``fp32``."""
        return "bf16" if self.bf16_units else "fp32"

    @property
    def reason(self) -> str:
        """Why networks have this precision, as a clause."""
        if self.bf16_units:
            return f"it has units for bf16, {' and '.join(self.bf16_units)}"
        if self.is_x86:
            return "it has neither AMX nor AVX-512 BF16, without which bf16 is slower"
        return "bf16 is used on x86 with AMX or AVX-512 BF16 only"

    @property
    def tuning_flags(self) -> tuple[str, ...]:
        """Flags by which GCC compiles for all that the processor has; none if there is no such flag."""
        if self.is_x86:
            return ("-march=native",)
        return ("-mcpu=native",) if self.architecture.lower() in TUNED_BY_CPU else ()


def this_processor() -> Processor:
    """Return the features of the processor of this machine, as PyTorch sees them."""
    return Processor(
        platform.machine(),
        torch.backends.cpu.get_cpu_capability(),
        amx=bool(torch.cpu._is_amx_tile_supported()),
        avx512_bf16=bool(torch.cpu._is_avx512_bf16_supported()),
    )
