"""Where a function works that is given data and, perhaps, the name of a device."""

import torch
from torch import Tensor


def settle_device(device: str | torch.device, data: object = None) -> torch.device:
    """The device that a name means.

    Args:
        device: ``auto`` (that of the data, if it is a tensor on a GPU; else a GPU where there is one, else the CPU),
            ``gpu`` for the first one, or what ``torch.device`` takes.
        data: what is worked on.

    Raises:
        ValueError: there is no such device, or not on this machine.

    >>> settle_device("cpu")
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
    try:
        if device == "gpu":
            raise RuntimeError("there is no GPU")
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device must be auto, cpu, gpu, or one of torch, got {device!r} ({reason})") from None
    return found
