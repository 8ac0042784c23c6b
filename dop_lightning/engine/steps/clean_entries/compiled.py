"""Choose between the compiled kernels and plain operations."""

from ctypes import CDLL

import torch
from torch import Tensor

from dop_lightning.foundation.native import library


def kernels_for(*arrays: Tensor) -> CDLL | None:
    """Return the compiled kernels, or ``None`` if they do not support an array or cannot be compiled.

    They support float32 on the CPU, and are not differentiable.
    """
    if all(each.device.type == "cpu" and each.dtype == torch.float32 and not each.requires_grad for each in arrays):
        return library()
    return None
