"""Hints about unused GPUs, and how to use them. :func:`look` collects facts; the other functions format them."""

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

INSTALL = "see pytorch.org/get-started to install a GPU build"


@dataclass(frozen=True)
class Gpus:
    """GPUs of a machine, and their support by PyTorch.

    Attributes:
        nvidia: whether the machine has an NVIDIA GPU whose driver is loaded.
        apple: whether the machine is a Mac with an Apple GPU.
        torch: version of PyTorch.
        cuda_build: version of CUDA or ROCm that PyTorch is built for; ``None`` for CPU builds.
        usable: number of GPUs that PyTorch can use; an Apple GPU counts as one.
        trouble: error of PyTorch if it is built for GPUs but cannot use them.
        hidden: whether environment variables hide the GPUs.
    """

    nvidia: bool = False
    apple: bool = False
    torch: str = ""
    cuda_build: str | None = None
    usable: int = 0
    trouble: str = ""
    hidden: bool = False


def look(root: Path = Path("/"), environment: Mapping[str, str] = os.environ) -> Gpus:
    """Collect the GPUs of this machine.

    Args:
        root: root of the file system.
        environment: variables that may hide GPUs.
    """
    apple = platform.system() == "Darwin" and platform.machine() == "arm64"
    count = torch.cuda.device_count() if torch.cuda.is_available() else int(torch.backends.mps.is_available())
    build = torch.version.cuda or torch.version.hip
    hiding = (environment.get(name) for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"))
    return Gpus(
        nvidia=has_nvidia(root),
        apple=apple,
        torch=torch.__version__,
        cuda_build=build,
        usable=count,
        trouble=_cuda_error() if build and not count else "",
        hidden=any(value is not None and value.strip() in ("", "-1", "NoDevFiles") for value in hiding),
    )


def has_nvidia(root: Path = Path("/")) -> bool:
    """Return whether an NVIDIA GPU is accessible: a device file in /dev, or the Windows driver in WSL."""
    return any((root / "dev").glob("nvidia[0-9]*")) or (
        (root / "dev" / "dxg").exists() and (root / "usr" / "lib" / "wsl" / "lib" / "libcuda.so.1").exists()
    )


def _cuda_error() -> str:
    """Return the first sentence of PyTorch's error when it initializes CUDA."""
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError, OSError) as error:
        return " ".join(str(error).split()).partition(". ")[0].rstrip(".")
    return ""


def unused_gpu(gpus: Gpus) -> str:
    """Explain why a GPU of this machine cannot be used, and how to fix it; empty if there is no unused GPU.

    >>> unused_gpu(Gpus(nvidia=True, torch="2.13.0+cpu"))
    'this machine has an NVIDIA GPU, but PyTorch 2.13.0+cpu is built for the CPU only; see pytorch.org/get-started \
to install a GPU build'
    """
    if gpus.usable or gpus.hidden:
        return ""
    if gpus.nvidia and gpus.cuda_build is None:
        return f"this machine has an NVIDIA GPU, but PyTorch {gpus.torch} is built for the CPU only; {INSTALL}"
    if gpus.nvidia:
        why = f" ({gpus.trouble})" if gpus.trouble else ""
        return (
            f"this machine has an NVIDIA GPU, but PyTorch {gpus.torch}, built for {gpus.cuda_build}, cannot use it"
            f"{why}; install a newer driver, or a build for an older CUDA"
        )
    if gpus.apple:
        return f"this Mac has a GPU, but PyTorch {gpus.torch} cannot use it; macOS 14 or newer is required"
    return ""


def no_gpu(gpus: Gpus) -> str:
    """Explain why no GPU is available for a run that requested one."""
    if gpus.hidden:
        return "CUDA_VISIBLE_DEVICES hides all GPUs"
    return unused_gpu(gpus) or f"PyTorch {gpus.torch} finds no GPU on this machine"


def idle_gpus(gpus: Gpus, used: int, batches: int) -> str:
    """Suggest how to use idle GPUs; empty if no GPU is idle, or if there are no more batches.

    Args:
        gpus: the GPUs of the machine.
        used: number of GPUs that the run uses.
        batches: number of batches that can be shared.

    >>> idle_gpus(Gpus(usable=8), used=1, batches=40)
    '1 of 8 GPUs is used; dop fit … --trainer.devices 8 shares the work among them'
    """
    able = min(gpus.usable, batches)
    if used == 0 or able <= used:
        return ""
    which = f"{used} of {gpus.usable} GPUs {'is' if used == 1 else 'are'} used"
    return f"{which}; dop fit … --trainer.devices {able} shares the work among them"
