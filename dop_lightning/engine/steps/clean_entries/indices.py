"""Indices of true entries. On a CPU, NumPy finds them several times faster than torch."""

import numpy as np
import torch
from torch import Tensor


def indices(flags: Tensor) -> Tensor:
    """Return the indices of the true entries of a flattened bool tensor, ascending, int64.

    >>> indices(torch.tensor([[True, False], [False, True]]))
    tensor([0, 3])
    """
    if flags.device.type != "cpu":
        return flags.flatten().nonzero().squeeze(1)
    return torch.from_numpy(np.flatnonzero(flags.numpy()))
