"""Where a function works that is given data and, perhaps, the name of a device."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def resolve_device(device: str | torch.device, data: object = None) -> torch.device:
    """The device that a name means.

    Args:
        device: ``auto`` (that of the data, if it is a tensor on a GPU; else a GPU where there is one, else the CPU),
            ``gpu`` for the first one, or what ``torch.device`` takes.
        data: what is worked on.

    Raises:
        ValueError: there is no such device, or not on this machine.

    >>> resolve_device("cpu")
    device(type='cpu')
    """
    if device == "auto" and isinstance(data, Tensor) and data.device.type != "cpu":
        return data.device
    if device in ("auto", "gpu"):
        if torch.cuda.is_available():
            return torch.device("cuda")
        if torch.backends.mps.is_available():
            return torch.device("mps")
        if device == "auto":
            return torch.device("cpu")
    if device == "gpu":
        raise ValueError("device must be auto, cpu, gpu, or one of torch, got 'gpu' (there is no GPU)")
    check_device(device, "auto, cpu, gpu, or one of torch")
    return torch.device(device)


def check_device(device: str | torch.device, allowed: str) -> None:
    """Refuse a device that PyTorch cannot work on here.

    Args:
        device: as ``torch.device`` takes it.
        allowed: what it may be, for the error.

    Raises:
        ValueError: there is no such device, or not on this machine.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:  # the second where PyTorch is built without it
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"device must be {allowed}, got {device!r} ({reason})") from None


def place_module(module: M, device: torch.device) -> M:
    """Return a module on a device: as it is if all of it is there, which is faster than ``module.to(device)``."""
    tensors = (*module.parameters(), *module.buffers())
    return module if all(tensor.device == device for tensor in tensors) else module.to(device)


@contextmanager
def without_device_modes(device: torch.device) -> Iterator[None]:
    """Let PyTorch functions on the CPU skip the modes of ``with torch.device(...)`` around them.

    Lightning configures models inside of two modes, which every function passes through: a network of many small layers
    takes twice as long to make. Does nothing for other devices.

    Args:
        device: where modules are made.
    """
    with torch._C.DisableTorchFunction() if device.type == "cpu" else nullcontext():
        yield


@contextmanager
def single_by_default() -> Iterator[None]:
    """Use single precision by default, whatever a trainer has set: the random numbers of a layer depend on it."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
