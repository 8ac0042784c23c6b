"""Check whether the kernels can be used on a device."""

import os
import warnings
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from dop_lightning.foundation.machine import is_out_of_memory
from dop_lightning.model.signals.unet.fused_unet import fused_forward
from dop_lightning.model.signals.unet.skip_network import skip_network

TOLERANCE = 2e-2
"""Maximum deviation of the outputs of a small network, relative to the largest value."""


@cache
def are_usable(device: torch.device) -> bool:
    """Return whether the kernels work on a device: a GPU with Triton on which a small network agrees with a plain one.

    If they do not work, the reason is reported once by a warning.
    """
    if device.type != "cuda" or (torch.version.cuda is None and torch.version.hip is None):
        return False  # without CUDA and HIP, the device is not a real GPU
    if os.environ.get("TRITON_INTERPRET") == "1":
        return False  # interpreted kernels run on the CPU, for tests only
    reason = "Triton is not installed"
    if find_spec("triton") is not None:
        try:
            largest = deviation(device)
            if largest <= TOLERANCE:
                return True
            reason = f"kernels deviate from PyTorch operations by {largest:.3g}"
        except Exception as error:  # compilers raise many types
            if is_out_of_memory(error):
                raise
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    warnings.warn(f"the network uses PyTorch operations, which is slower: {reason}", RuntimeWarning, stacklevel=2)
    return False


def deviation(device: torch.device) -> float:
    """Return the maximum deviation of the kernels from PyTorch operations, in a small network in float32.

    It includes the output and the gradients of all parameters, each relative to the largest value.
    """
    from dop_lightning.model.signals.unet.triton_kernels.network import TritonOperations

    with torch.device("meta"):  # avoids random draws
        network = skip_network(2, 4, 1, 3, 2, bias=False)
    network.to_empty(device=device)
    for place, p in enumerate(network.parameters()):
        p.data = _wave(p.shape, device, 1.0 + place).add_(1.0 if p.dim() == 1 else 0.0)
    z = _wave((1, 3, 4, 6), device, 0.5).contiguous(memory_format=torch.channels_last)
    found = []
    with torch.enable_grad(), torch.autocast(device.type, enabled=False):
        for output in (network(z), fused_forward(network, z, z.dtype, TritonOperations(network, z.dtype))):
            made = torch.autograd.grad((output * _wave(output.shape, device, 2.0)).sum(), list(network.parameters()))
            found.append([output.detach(), *made])
    most = [max(float(one.abs().max()) for one in group) for group in (found[0][:1], found[0][1:])]
    errors = [float((one - other).abs().max()) for one, other in zip(*found, strict=True)]
    return max(errors[0] / most[0], max(errors[1:]) / most[1])


def _wave(shape: torch.Size | tuple[int, ...], device: torch.device, frequency: float) -> Tensor:
    size = torch.Size(shape).numel()
    return (torch.arange(size, dtype=torch.float32, device=device) * frequency).sin().view(shape)
