"""Chains of runs: runs of pixels in consecutive rows that have one property in common.

A run is a position (row, first column, length), as in ``run_paths.py``. Runs of consecutive rows are linked if their
first columns and their lengths differ by at most 1 and their properties by at most a tolerance. All links of a chain
move to the same side, or straight.

Shapes: P×N×H×W, a property of P numbers of runs of 1 … N pixels by row and first column.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad


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
    sizes, height, width = valid.shape
    result = torch.zeros(valid.shape, dtype=torch.float32)
    reached = torch.zeros(2, sizes, width)
    for row in range(height):
        own = valid[:, row]
        if row and bool(own.any()):
            around = pad(reached, (1, 1, 1, 1)).unfold(1, 3, 1).unfold(2, 3, 1)  # 2 × N × W × 3 × 3
            above = pad(field[:, :, row - 1], (1, 1, 1, 1) if field.shape[1] > 1 else (1, 1), value=torch.inf)
            near = above.unfold(2, 3, 1) if field.shape[1] == 1 else above.unfold(1, 3, 1).unfold(2, 3, 1)
            here = field[:, :, row, :, None] if field.shape[1] == 1 else field[:, :, row, :, None, None]
            alike = (near - here).abs().amax(dim=0) <= tolerance
            if field.shape[1] == 1:
                alike = alike[..., None, :]
            linked = (around * alike).amax(dim=3)
            to_left, to_right = linked[0, ..., 1:].amax(dim=-1), linked[1, ..., :-1].amax(dim=-1)
            reached = (1 + torch.stack([to_left, to_right])) * own
        else:
            reached = own.to(torch.float32).expand(2, -1, -1)
        result[:, row] = reached.amax(dim=0)
    return result
