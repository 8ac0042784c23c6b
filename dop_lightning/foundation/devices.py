"""Resolve and check devices, and move modules to them."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def resolve_device(device: str | torch.device, data: object = None) -> torch.device:
    """Return the device with the given name.

    Args:
        device: ``auto``, ``gpu`` for the first GPU, or an argument of ``torch.device``. ``auto`` is the device of
            ``data`` if that is a tensor on a GPU; otherwise a GPU if available, or the CPU.
        data: the data to process.

    Raises:
        ValueError: the device is unknown or not available on this machine.

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
        raise ValueError("device must be auto, cpu, gpu, or a device of torch, got 'gpu' (no GPU is available)")
    check_device(device, "auto, cpu, gpu, or a device of torch")
    return torch.device(device)


def check_device(device: str | torch.device, allowed: str) -> None:
    """Check that PyTorch can use a device on this machine.

    Args:
        device: an argument of ``torch.device``.
        allowed: description of the allowed values, for the error message.

    Raises:
        ValueError: the device is unknown or not available on this machine.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:  # AssertionError if PyTorch is built without the device
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"device must be {allowed}, got {device!r} ({reason})") from None


def place_module(module: M, device: torch.device) -> M:
    """Move a module to a device. Skips modules that are already there, which is faster than ``module.to(device)``."""
    tensors = (*module.parameters(), *module.buffers())
    return module if all(tensor.device == device for tensor in tensors) else module.to(device)


@contextmanager
def without_device_modes(device: torch.device) -> Iterator[None]:
    """Disable surrounding ``with torch.device(...)`` modes for PyTorch functions on the CPU.

    Lightning configures models within two such modes, which intercept every function call: creating a network of many
    small layers takes twice as long. No-op for other devices.

    Args:
        device: the device on which modules are created.
    """
    with torch._C.DisableTorchFunction() if device.type == "cpu" else nullcontext():
        yield


@contextmanager
def default_to_float32() -> Iterator[None]:
    """Use float32 as the default dtype, whatever a Trainer has set: random initial values of layers depend on it."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
