"""Features of the processor, which determine the precision of networks and the compiler flags of kernels."""

import platform
from dataclasses import dataclass

import torch

X86 = ("x86_64", "amd64", "i386", "i686")
"""Names of the x86 architecture in Python and compilers, in lower case."""

TUNED_BY_CPU = ("aarch64", "arm64", "armv7l", "ppc64le", "ppc64")
"""Architectures on which GCC selects the processor with ``-mcpu``; ``-march`` is incomplete or unknown there."""


@dataclass(frozen=True)
class Processor:
    """Features of a processor.

    Attributes:
        architecture: architecture, such as ``x86_64`` or ``aarch64``.
        capability: vector instructions that PyTorch uses: ``AVX512``, ``AVX2``, ``SVE256``, ``DEFAULT``, …
        amx: whether it supports Intel AMX, which multiplies bf16 matrices.
        avx512_bf16: whether it supports AVX-512 BF16, which multiplies bf16 vectors.
    """

    architecture: str
    capability: str = "DEFAULT"
    amx: bool = False
    avx512_bf16: bool = False

    @property
    def is_x86(self) -> bool:
        """Whether the architecture is x86 (Intel, AMD)."""
        return self.architecture.lower() in X86

    @property
    def bf16_units(self) -> tuple[str, ...]:
        """Names of the bf16 extensions that networks use, if any.

        Those of ARM are not included, because it has not been measured whether they are faster.
        """
        units = (("AMX", self.amx), ("AVX-512 BF16", self.avx512_bf16))
        return tuple(name for name, has_units in units if has_units) if self.is_x86 else ()

    @property
    def vectors(self) -> str:
        """Common name of the vector instructions that PyTorch uses."""
        known = {"AVX512": "AVX-512", "AVX2": "AVX2"}
        if self.is_x86:
            return known.get(self.capability, "no AVX2")
        if self.capability.startswith("SVE"):
            return f"{self.capability.removeprefix('SVE')}-bit SVE"
        return "NEON" if self.architecture.lower() in ("aarch64", "arm64") else "no vector instructions"

    @property
    def precision(self) -> str:
        """Default precision of networks, ``bf16`` or ``fp32``."""
        return "bf16" if self.bf16_units else "fp32"

    @property
    def reason(self) -> str:
        """Reason for this precision, as a clause about the processor."""
        if self.bf16_units:
            return f"it supports bf16 with {' and '.join(self.bf16_units)}"
        if self.is_x86:
            return "it has neither AMX nor AVX-512 BF16, without which bf16 is slower"
        return "bf16 is used on x86 with AMX or AVX-512 BF16 only"

    @property
    def tuning_flags(self) -> tuple[str, ...]:
        """GCC flags that enable all features of the processor; empty if there is no such flag."""
        if self.is_x86:
            return ("-march=native",)
        return ("-mcpu=native",) if self.architecture.lower() in TUNED_BY_CPU else ()


def this_processor() -> Processor:
    """Return the features of this machine's processor, as detected by PyTorch."""
    return Processor(
        platform.machine(),
        torch.backends.cpu.get_cpu_capability(),
        amx=bool(torch.cpu._is_amx_tile_supported()),
        avx512_bf16=bool(torch.cpu._is_avx512_bf16_supported()),
    )
