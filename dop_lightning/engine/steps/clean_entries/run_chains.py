"""Chains of runs: runs of pixels in consecutive rows that have one property in common.

A run is a position (row, first column, length), as in ``run_paths.py``. Runs of consecutive rows are linked if their
first columns and their lengths differ by at most 1 and their properties by at most a tolerance. All links of a chain
move to the same side, or straight.

Shapes: P×N×H×W, a property of P numbers of runs of 1 … N pixels by row and first column.
"""

import torch
from torch import Tensor


def chain_lengths(field: Tensor, valid: Tensor, tolerance: float) -> Tensor:
    """Return the number of runs of the longest chain from above that ends at each run; float32, ``(N, H, W)``.

    Args:
        field: the property, ``(P, N, H, W)``, with N = 1 if it is the same for all lengths.
        valid: bool, ``(N, H, W)``. Other runs belong to no chain and have the result 0.
        tolerance: maximum difference of each of the P numbers between linked runs.

    >>> field = torch.tensor([[5.0, 0.0, 0.0], [0.0, 5.0, 0.0], [0.0, 0.0, 5.1]])[None, None]
    >>> chain_lengths(field, field[0] > 1, 0.2)[0].tolist()
    [[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 3.0]]
    """
    sizes, _, width = valid.shape
    around, each = torch.meshgrid(torch.arange(-1, 2), torch.arange(-1, 2), indexing="ij")
    steps = (around * (width + 2) + each).view(9, 1)  # to the runs above: by length, and by first column
    same_size = field.shape[1] == 1
    result = torch.zeros(valid.shape, dtype=torch.float32)
    reached, next_reached = torch.zeros(2, 2, (sizes + 2) * (width + 2))
    previous = reached.new_zeros(0, dtype=torch.int64)
    by_row = valid.transpose(0, 1).nonzero()
    for row, runs in enumerate(by_row.split(valid.sum(dim=(0, 2)).tolist())):
        n, column = runs[:, 1], runs[:, 2]
        own = (n + 1) * (width + 2) + column + 1
        if row and len(own) and len(previous):
            size, first = (
                (n + around.reshape(9, 1)).clamp(0, sizes - 1),
                (column + each.reshape(9, 1)).clamp(0, width - 1),
            )
            above = field[:, 0, row - 1][:, first] if same_size else field[:, :, row - 1][:, size, first]
            here = field[:, 0 if same_size else n, row, column][:, None]
            alike = (above - here).abs().amax(dim=0) <= tolerance
            linked = (reached[:, own + steps] * alike).view(2, 3, 3, -1).amax(dim=1)
            chains = 1 + torch.stack([linked[0, 1:].amax(dim=0), linked[1, :-1].amax(dim=0)])
        else:
            chains = torch.ones(2, len(own))
        next_reached[:, own] = chains
        result[n, row, column] = chains.amax(dim=0)
        reached[:, previous] = 0
        reached, next_reached, previous = next_reached, reached, own
    return result
