import platform

import pytest
import torch

from dop_lightning.foundation.processor import Processor, this_processor

SAPPHIRE_RAPIDS = Processor("x86_64", "AVX512", amx=True, avx512_bf16=True)
ZEN_4 = Processor("AMD64", "AVX512", avx512_bf16=True)
SKYLAKE_X = Processor("x86_64", "AVX512")
HASWELL = Processor("x86_64", "AVX2")
NEHALEM = Processor("x86_64", "DEFAULT")
GRAVITON_3 = Processor("aarch64", "SVE256")
RASPBERRY_PI = Processor("aarch64", "DEFAULT")
APPLE = Processor("arm64", "DEFAULT")
RISCV = Processor("riscv64", "DEFAULT")


@pytest.mark.parametrize(
    ("processor", "vectors", "precision", "flags"),
    [
        (SAPPHIRE_RAPIDS, "AVX-512", "bf16", ("-march=native",)),
        (ZEN_4, "AVX-512", "bf16", ("-march=native",)),
        (SKYLAKE_X, "AVX-512", "fp32", ("-march=native",)),
        (HASWELL, "AVX2", "fp32", ("-march=native",)),
        (NEHALEM, "no AVX2", "fp32", ("-march=native",)),
        (GRAVITON_3, "256-bit SVE", "fp32", ("-mcpu=native",)),
        (RASPBERRY_PI, "NEON", "fp32", ("-mcpu=native",)),
        (APPLE, "NEON", "fp32", ("-mcpu=native",)),
        (RISCV, "no vector instructions", "fp32", ()),
    ],
)
def test_choice_for_a_processor(processor: Processor, vectors: str, precision: str, flags: tuple[str, ...]) -> None:
    assert (processor.vectors, processor.precision, processor.tuning_flags) == (vectors, precision, flags)


@pytest.mark.parametrize(
    ("processor", "reason"),
    [
        (SAPPHIRE_RAPIDS, "it supports bf16 with AMX and AVX-512 BF16"),
        (ZEN_4, "it supports bf16 with AVX-512 BF16"),
        (HASWELL, "it has neither AMX nor AVX-512 BF16, without which bf16 is slower"),
        (GRAVITON_3, "bf16 is used on x86 with AMX or AVX-512 BF16 only"),
    ],
)
def test_the_precision_has_a_reason(processor: Processor, reason: str) -> None:
    assert processor.reason == reason


def test_units_of_x86_do_not_count_on_arm() -> None:
    assert Processor("aarch64", "DEFAULT", amx=True, avx512_bf16=True).precision == "fp32"


def test_this_processor_agrees_with_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    assert this_processor() == HASWELL
