"""Stack matrices of several shapes into a few arrays, so that products of all of them take few kernel launches.

Shapes: B matrices n×m in a stack.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


class Stacks:
    """Mapping between matrices and their stacks, which are padded with zeros.

    Matrices with the same shorter side, rounded up to a power of 2, share a stack. Tall matrices are transposed.

    Args:
        shapes: rows and columns of each matrix.
        like: a tensor with the device and dtype of the matrices.

    >>> matrices = [torch.ones(2, 3), 2 * torch.ones(4, 2)]
    >>> (stack,) = (stacks := Stacks([(2, 3), (4, 2)], matrices[0])).stack(matrices, torch.float32)
    >>> stack
    tensor([[[1., 1., 1., 0.],
             [1., 1., 1., 0.]],
    <BLANKLINE>
            [[2., 2., 2., 2.],
             [2., 2., 2., 2.]]])
    >>> [matrix.shape for matrix in stacks.unstack([stack], torch.float32)]
    [torch.Size([2, 3]), torch.Size([4, 2])]
    """

    def __init__(self, shapes: Sequence[tuple[int, int]], like: Tensor) -> None:
        self.shapes = list(shapes)
        self._sizes = [rows * columns for rows, columns in shapes]
        total = sum(self._sizes)
        alike: dict[int, list[int]] = {}
        for place, shape in enumerate(shapes):
            alike.setdefault((min(shape) - 1).bit_length(), []).append(place)
        # explicitly on the CPU, since users may set another default device
        entries = torch.arange(total, dtype=torch.int32, device="cpu").split(self._sizes)
        back = torch.empty(total, dtype=torch.int32, device="cpu")
        places, begin = [], 0
        for group in alike.values():
            n, m = max(min(shapes[i]) for i in group), max(max(shapes[i]) for i in group)
            index = torch.full((len(group), n, m), total, dtype=torch.int32, device="cpu")  # index of the appended zero
            for b, i in enumerate(group):
                own = entries[i].view(shapes[i])
                own = own.mT if shapes[i][0] > shapes[i][1] else own
                index[b, : own.shape[0], : own.shape[1]] = own
            flat = index.flatten()
            inside = torch.nonzero(flat < total).flatten()
            back[flat[inside].long()] = (begin + inside).int()
            begin += flat.numel()
            places.append(index)
        self._places = [index.to(like.device) for index in places]
        self._back = back.to(like.device)
        self._zero = like.new_zeros(1)

    def stack(self, matrices: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
        """Return the stacks ``(B, n, m)``, n ≤ m, of the matrices, with the given dtype."""
        flat = torch.cat([*(matrix.reshape(-1) for matrix in matrices), self._zero]).to(dtype)
        return [flat.index_select(0, index.view(-1)).view(index.shape) for index in self._places]

    def unstack(self, stacks: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
        """Return the matrices of the stacks, with the given dtype."""
        flat = torch.cat([stack.reshape(-1) for stack in stacks]).index_select(0, self._back).to(dtype)
        return [part.view(shape) for part, shape in zip(flat.split(self._sizes), self.shapes, strict=True)]
