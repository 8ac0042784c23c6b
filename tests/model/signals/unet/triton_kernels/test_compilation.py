"""Kernels are compiled for a GPU, without one: the interpreter accepts what the compiler refuses."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.triton

COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from dop_lightning.model.signals.unet.triton_kernels import kernels

images = {"skip", "low", "x", "y", "z", "gradient", "dx", "d", "e", "dskip", "dlow"}
constants = {"PADDING": 1, "PIXELS": 8, "CHANNELS": 8, "SHARES": 8, "MOMENTS": True}
for name, kernel in vars(kernels).items():
    if not isinstance(kernel, triton.JITFunction) or kernel.__module__ != kernels.__name__ or name.startswith("_"):
        continue
    signature, values = {}, {}
    for place, argument in enumerate(kernel.arg_names):
        if argument in images:
            signature[argument] = "*bf16"
        elif argument in ("slope", "epsilon"):
            signature[argument] = "fp32"
        elif argument in constants or argument == "S":
            signature[argument] = "constexpr"
            values[place,] = constants.get(argument, 4)
        else:
            is_number = len(argument) == 1 or argument in ("shares", "low_pixels", "skip_pixels")
            signature[argument] = "i32" if is_number else "*fp32"
    made = triton.compile(
        ASTSource(fn=kernel, signature=signature, constexprs=values),
        target=GPUTarget("cuda", 90, 32),
        options={"num_warps": 1},
    )
    assert "cubin" in made.asm
    print(name)
"""


def test_every_kernel_compiles_for_a_gpu(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path), "TRITON_DEFAULT_FP_FUSION": "1"}
    command = [sys.executable, "-c", COMPILE]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [
        "moments", "finish", "pad", "activate", "activate_sums", "activate_backward", "joined_moments", "join",
        "joined_sums", "joined_backward", "branch_sums", "join_backward",
    ]  # fmt: skip
